"""A split as one flat memory-mapped array of ids plus document offsets, cached by fingerprint."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unroll.data.config import CorpusConfig
from unroll.data.corpus import TEXT, Corpus, discard
from unroll.data.text_reader import content_hash
from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import END, FirstSeen, Vocabulary
from unroll.errors import require
from unroll.registry import build

if TYPE_CHECKING:
    from datasets import Dataset

FORMAT = 2  # increase it when the same settings and files give other ids
RELEASE_AFTER = 1 << 23  # ids read before their memory pages are released
CHARACTERS_AT_ONCE = 1 << 20  # of the documents that are tokenized together
DIGESTS = "digests.json"
IDS_AT_ONCE = 1 << 20  # that are counted or replaced together

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


class TokenStream:
    """The documents of a split, end to end.

    Attributes:
        tokens: int32 ids, ``(tokens,)``, memory-mapped.
        offsets: int64, ``(documents + 1,)``; document ``d`` is ``tokens[offsets[d]:offsets[d+1]]``.
        characters: length of the original text in characters, over all documents.
    """

    def __init__(self, tokens: Ids, offsets: Offsets, characters: int) -> None:
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
            mapping = getattr(self.tokens, "_mmap", None)
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
        return all(content_hash(folder / name).hex() == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):  # Refused is a ValueError
        return False


def _write(
    folder: Path,
    config: CorpusConfig,
    corpus: Corpus,
    tokenizer: Tokenizer | None,
    vocabulary: Vocabulary | None,
) -> None:
    tables = corpus.read()
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        meta = {}
        if tokenizer is None or vocabulary is None:
            tokenizer, vocabulary, meta["train"] = _learn(work / "train", config, tables["train"])
        for split in tables:
            if split not in meta:
                meta[split] = _write_stream(
                    work / split, tables[split], tokenizer, vocabulary, config.append_eos
                )
        for split, (tokens, _) in meta.items():
            require(tokens > 0, f"{corpus.where(split)}: the {split} split contains no token")
        (work / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
        (work / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        (work / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        digests = {path.name: content_hash(path).hex() for path in work.iterdir()}
        (work / DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
        os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _learn(
    stem: Path, config: CorpusConfig, table: Dataset
) -> tuple[Tokenizer, Vocabulary, tuple[int, int]]:
    """Learn tokenizer and vocabulary from a training table, and write it as a stream.

    The text is read and split once: it is written with the numbers of ``FirstSeen``, these are
    counted, and then replaced by the ids.
    """
    tokenizer: Tokenizer = build("data/tokenizer", config.tokenizer)
    tokenizer.train(texts(table))
    numbers = FirstSeen()
    meta = _write_stream(stem, table, tokenizer, numbers, config.append_eos)
    seen, ends = numbers.tokens, len(table) if config.append_eos else 0
    require(meta[0] > ends, f"data={config.name}: the training split contains no token")
    numbered = stem.with_suffix(".numbers")
    os.replace(stem.with_suffix(".tokens"), numbered)
    counts = np.zeros(len(seen), np.int64)
    for part in _parts(numbered):
        counts += np.bincount(part, minlength=len(seen))
    # with append_eos <eos> is counted too, but its place in a vocabulary does not depend on it
    found = Counter(dict(zip(seen, counts.tolist(), strict=True)))
    vocabulary = Vocabulary.from_counts(found, config.vocabulary, tokenizer.inventory)
    ids = vocabulary.encode(seen)
    with stem.with_suffix(".tokens").open("wb") as file:
        for part in _parts(numbered):
            ids[part].tofile(file)
    numbered.unlink()
    return tokenizer, vocabulary, meta


def _parts(path: Path) -> Iterator[Ids]:
    """The ids of a file, with ``IDS_AT_ONCE`` in memory at a time."""
    with path.open("rb") as file:
        while len(part := np.fromfile(file, np.int32, IDS_AT_ONCE)):
            yield part


def texts(table: Dataset) -> Iterator[str]:
    """The documents of a table, with a thousand in memory at a time."""
    return chain.from_iterable(batch[TEXT] for batch in table.iter(batch_size=1000))


def blocks(documents: Iterable[str]) -> Iterator[list[str]]:
    """The documents in lists of about ``CHARACTERS_AT_ONCE`` characters."""
    block: list[str] = []
    characters = 0
    for text in documents:
        block.append(text)
        characters += len(text) + 1  # so that empty documents count too
        if characters >= CHARACTERS_AT_ONCE:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _write_stream(
    stem: Path,
    table: Dataset,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary | FirstSeen,
    append_eos: bool,
) -> tuple[int, int]:
    """Write ids and offsets as a stream; return the number of tokens and of characters."""
    characters = total = 0
    with (
        stem.with_suffix(".tokens").open("wb") as tokens_file,
        stem.with_suffix(".offsets").open("wb") as offsets_file,
    ):
        np.zeros(1, np.int64).tofile(offsets_file)
        for block in blocks(texts(table)):
            documents = tokenizer.tokenize_all(block)
            if append_eos:
                for tokens in documents:
                    tokens.append(END)
            vocabulary.encode(chain.from_iterable(documents)).tofile(tokens_file)
            ends = total + np.cumsum(list(map(len, documents)), dtype=np.int64)
            ends.tofile(offsets_file)
            characters += sum(map(len, block))
            total = int(ends[-1])
    return total, characters


def _open(folder: Path, config: CorpusConfig, fingerprint: str, corpus_fingerprint: str) -> Encoded:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    streams = {}
    for split, (_, characters) in meta.items():
        tokens = np.memmap(folder / f"{split}.tokens", dtype=np.int32, mode="r")
        offsets = np.memmap(folder / f"{split}.offsets", dtype=np.int64, mode="r")
        streams[split] = TokenStream(tokens, offsets, characters)
    tokenizer: Tokenizer = build("data/tokenizer", config.tokenizer)
    tokenizer.restore((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary.from_json((folder / "vocabulary.json").read_text(encoding="utf-8"))
    return Encoded(tokenizer, vocabulary, streams, fingerprint, corpus_fingerprint)
