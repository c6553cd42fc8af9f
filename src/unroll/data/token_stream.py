"""A split as one flat memory-mapped array of ids plus document offsets, cached by fingerprint."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unroll.data.config import CorpusConfig
from unroll.data.corpus import Corpus, discard, texts
from unroll.data.shards import (
    Ids,
    Numbered,
    Offsets,
    Shards,
    cut,
    in_processes,
    join_counts,
    join_offsets,
    mapped,
    number,
    renumber,
)
from unroll.data.text_reader import content_hash
from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import Vocabulary
from unroll.errors import Refused, require
from unroll.folders import write_atomically
from unroll.registry import build

if TYPE_CHECKING:
    from datasets import Dataset

FORMAT = 3  # increase it when the same settings and files give other ids or other files
RELEASE_AFTER = 1 << 23  # ids read before their memory pages are released
DIGESTS = "digests.json"


class TokenStream:
    """The documents of a split, end to end.

    Attributes:
        tokens: int32 ids, ``(tokens,)``, memory-mapped, from one file or from several shards.
        offsets: int64, ``(documents + 1,)``; document ``d`` is ``tokens[offsets[d]:offsets[d+1]]``.
        characters: length of the original text in characters, over all documents.
    """

    def __init__(self, tokens: Ids | Shards, offsets: Offsets, characters: int) -> None:
        self.tokens, self.offsets, self.characters = tokens, offsets, characters
        self._read = 0

    @classmethod
    def from_documents(cls, documents: list[Ids], characters: int = 0) -> TokenStream:
        """A stream in memory."""
        lengths = np.array([0] + [len(document) for document in documents], dtype=np.int64)
        joined = np.concatenate([np.zeros(0, np.int32), *documents]).astype(np.int32)
        return cls(joined, np.cumsum(lengths), characters)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Offsets:
        """Tokens of each document, ``(documents,)``."""
        return self.offsets[1:] - self.offsets[:-1]

    def rows(self, starts: Offsets, length: int) -> npt.NDArray[np.int64]:
        """The ``length`` ids that begin at each start, ``(len(starts), length)``.

        Pages of the mapping are released from time to time, so that resident memory does not grow
        with the corpus.
        """
        found: npt.NDArray[np.int64] = self.tokens[starts[:, None] + np.arange(length)].astype(
            np.int64
        )
        self._read += found.size
        if self._read >= RELEASE_AFTER:
            self._read = 0
            for part in getattr(self.tokens, "parts", [self.tokens]):
                mapping = getattr(part, "_mmap", None)
                if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
                    mapping.madvise(mmap.MADV_DONTNEED)
        return found

    def document(self, index: int, length: int | None = None) -> Ids:
        """The ids of a document, or its first ``length``."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.tokens[start : end if length is None else min(end, start + length)]


COUNTED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Encoded:
    """A corpus as ids: the streams by split, and the tokenizer and vocabulary that made them."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    streams: dict[str, TokenStream]
    fingerprint: str
    corpus_fingerprint: str

    def counts(self) -> list[int]:
        """How often the training split contains each id, a part of it in memory at a time."""
        tokens, size = self.streams["train"].tokens, len(self.vocabulary)
        found = np.zeros(size, dtype=np.int64)
        for first in range(0, len(tokens), COUNTED_AT_ONCE):
            found += np.bincount(tokens[first : first + COUNTED_AT_ONCE], minlength=size)
        return [int(count) for count in found]


def encode(
    config: CorpusConfig,
    corpus: Corpus,
    tokenizer: Tokenizer | None = None,
    vocabulary: Vocabulary | None = None,
) -> Encoded:
    """The token streams of a corpus, from the cache if they are in it.

    Tokenizer and vocabulary are learned from the training split, unless both are given. The
    cache entry is written to a temporary folder and renamed, under a lock: if two processes start
    together, the second waits and then reads.

    Raises:
        Refused: the corpus cannot be read or contains no token.
    """
    from filelock import FileLock

    corpus_fingerprint = corpus.fingerprint()
    recipe: list[Any] = [FORMAT, corpus_fingerprint, asdict(config.tokenizer), config.append_eos]
    if vocabulary is None:
        recipe.append(asdict(config.vocabulary))
    else:
        assert tokenizer is not None
        recipe += [tokenizer.to_json(), vocabulary.to_json()]
    fingerprint = hashlib.blake2b(
        json.dumps(recipe, sort_keys=True).encode(), digest_size=16
    ).hexdigest()
    root = Path(config.cache) / "streams"
    folder = root / fingerprint
    if not is_whole(folder):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{fingerprint}.lock"):
            if not is_whole(folder):
                if folder.is_dir():
                    discard(folder)
                _write(folder, config, corpus, tokenizer, vocabulary)
    return _open(folder, config, fingerprint, corpus_fingerprint)


def is_whole(folder: Path) -> bool:
    """Whether a cache entry is there, and every file of it as it was written."""
    try:
        digests = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        return bool(_digests(folder / name for name in digests) == digests)
    except (OSError, ValueError, TypeError):  # Refused is a ValueError
        return False


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    """A hash of the content of each file by its name, by a thread for each core."""
    paths = list(paths)
    with ThreadPoolExecutor() as threads:
        found = threads.map(content_hash, paths)
        return {path.name: digest.hex() for path, digest in zip(paths, found, strict=True)}


def _write(
    folder: Path,
    config: CorpusConfig,
    corpus: Corpus,
    tokenizer: Tokenizer | None,
    vocabulary: Vocabulary | None,
) -> None:
    """Write a cache entry. Shards that are finished stay where ``parts`` is until the entry is
    there, so that a writing that was killed goes on from them."""
    tables = corpus.read()
    parts = folder.with_name(f".parts-{folder.name}-{config.shards}")
    parts.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=parts))
    try:
        if tokenizer is None or vocabulary is None:
            tokenizer, vocabulary = _trained(parts, config, tables["train"]), None
        numbered = _numbered(parts, config, corpus, tokenizer, tables)
        if vocabulary is None:
            vocabulary = _learned(config, tokenizer, numbered["train"])
        meta = {}
        ready = []
        for split, found in numbered.items():
            join_offsets(found, work / f"{split}.offsets")
            meta[split] = len(found), sum(shard.characters for shard in found)
            for place, shard in zip(token_files(work, split, len(found)), found, strict=True):
                ready.append((shard, place, vocabulary.encode(shard.seen())))
        in_processes(renumber, ready, config.shards)
        (work / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
        (work / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        (work / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        digests = _digests(work.iterdir())
        (work / DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
        os.replace(work, folder)
        _remove_parts(folder)
    except BrokenProcessPool as error:
        raise Refused(
            f"a process that wrote the token stream {folder} was killed, perhaps because memory "
            "ran out: run it again, with LOKY_MAX_CPU_COUNT=1 in the environment for one process"
        ) from error
    except Exception:
        _remove_parts(folder)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _trained(parts: Path, config: CorpusConfig, table: Dataset) -> Tokenizer:
    """The tokenizer, trained on a table, unless that was done before."""
    tokenizer: Tokenizer = build("data/tokenizer", config.tokenizer)
    learned = parts / "tokenizer.json"
    if learned.is_file():
        tokenizer.restore(learned.read_text(encoding="utf-8"))
    else:
        tokenizer.train(texts(table))
        write_atomically(learned, tokenizer.to_json())
    return tokenizer


def _numbered(
    parts: Path,
    config: CorpusConfig,
    corpus: Corpus,
    tokenizer: Tokenizer,
    tables: Mapping[str, Dataset],
) -> dict[str, list[Numbered]]:
    """The shards of each split, with numbers of their own."""
    work = [
        (split, str(parts / f"{split}-{shard}"), table)
        for split in tables
        for shard, table in enumerate(cut(tables[split], config.shards))
    ]
    calls = [(stem, table, tokenizer, config.append_eos) for _, stem, table in work]
    found: dict[str, list[Numbered]] = {split: [] for split in tables}
    for (split, *_), shard in zip(work, in_processes(number, calls, config.shards), strict=True):
        found[split].append(shard)
    for split, shards in found.items():
        tokens = sum(shard.tokens for shard in shards)
        require(tokens, f"{corpus.where(split)}: the {split} split contains no token")
    return found


def _learned(config: CorpusConfig, tokenizer: Tokenizer, shards: Sequence[Numbered]) -> Vocabulary:
    ends = sum(shard.documents for shard in shards) if config.append_eos else 0
    require(
        sum(shard.tokens for shard in shards) > ends,
        f"data={config.name}: the training split contains no token",
    )
    # with append_eos <eos> is counted too, but its place in a vocabulary does not depend on it
    return Vocabulary.from_counts(join_counts(shards), config.vocabulary, tokenizer.inventory)


def _remove_parts(folder: Path) -> None:
    """Remove the finished shards of an entry, also those of another number of shards."""
    for parts in folder.parent.glob(f".parts-{folder.name}-*"):
        shutil.rmtree(parts, ignore_errors=True)


def token_files(folder: Path, split: str, shards: int) -> list[Path]:
    """The files of ids of a split."""
    return [folder / f"{split}-{shard}.tokens" for shard in range(shards)]


def _open(folder: Path, config: CorpusConfig, fingerprint: str, corpus_fingerprint: str) -> Encoded:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    streams = {}
    for split, (shards, characters) in meta.items():
        tokens = mapped(token_files(folder, split, shards))
        offsets = np.memmap(folder / f"{split}.offsets", dtype=np.int64, mode="r")
        streams[split] = TokenStream(tokens, offsets, characters)
    tokenizer: Tokenizer = build("data/tokenizer", config.tokenizer)
    tokenizer.restore((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary.from_json((folder / "vocabulary.json").read_text(encoding="utf-8"))
    return Encoded(tokenizer, vocabulary, streams, fingerprint, corpus_fingerprint)
