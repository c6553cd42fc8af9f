"""Shards of a split: each is written by one process, and all are read as one array of ids.

A shard is a run of documents. It is written first with numbers of its own, in the order in which
its tokens are first seen. Shard after shard, these give the order of the whole split, so the
vocabulary is the one that a single process finds, and then the numbers are replaced by ids.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from unroll.data.corpus import texts
from unroll.data.text_reader import content_hash
from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import END, FirstSeen
from unroll.folders import write_atomically

if TYPE_CHECKING:
    from datasets import Dataset

CHARACTERS_AT_ONCE = 1 << 20  # of the documents that are tokenized together
IDS_AT_ONCE = 1 << 20  # that are counted or replaced together
IDLE_SECONDS = 10
"""After which a process ends that has no shard to write, also where its parent was killed."""

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


class Shards:
    """Arrays of ids, end to end, that are read like one array ``(tokens,)``."""

    dtype = np.dtype(np.int32)

    def __init__(self, parts: Sequence[Ids]) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, place: slice | Offsets) -> Ids:
        """The ids of a slice without a step (in one shard: a view), or at positions of any
        shape."""
        if isinstance(place, slice):
            first, stop, step = place.indices(len(self))
            assert step == 1
            found = [
                part[max(first - start, 0) : max(stop - start, 0)]
                for start, part in zip(self._starts.tolist(), self.parts, strict=False)
            ]
            found = [part for part in found if len(part)]
            nothing = np.zeros(0, self.dtype)
            return found[0] if len(found) == 1 else np.concatenate([nothing, *found])
        shards = np.searchsorted(self._starts, place, side="right") - 1
        ids = np.empty(np.shape(place), self.dtype)
        for shard in range(shards.min(initial=len(self.parts)), shards.max(initial=-1) + 1):
            here = shards == shard
            ids[here] = self.parts[shard][place[here] - self._starts[shard]]
        return ids

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=bool(copy))


def mapped(paths: Sequence[Path]) -> Ids | Shards:
    """The files of a split, memory-mapped, as one array."""
    parts: list[Ids] = [
        # an empty file cannot be mapped
        np.memmap(path, np.int32, mode="r") if path.stat().st_size else np.zeros(0, np.int32)
        for path in paths
    ]
    return parts[0] if len(parts) == 1 else Shards(parts)


@dataclass(frozen=True)
class Numbered:
    """A shard with numbers of its own: the files with this ``stem`` and the suffixes ``.numbers``
    (int32, the tokens), ``.lengths`` (int64, tokens of each document), ``.counts`` (int64, of each
    number) and ``.seen`` (JSON, the token of each number)."""

    stem: str
    tokens: int
    documents: int
    characters: int
    digests: dict[str, str]
    """By suffix."""

    def file(self, suffix: str) -> Path:
        return Path(self.stem + suffix)

    def seen(self) -> list[str]:
        found: list[str] = json.loads(self.file(".seen").read_text(encoding="utf-8"))
        return found

    @classmethod
    def finished(cls, stem: str) -> Numbered | None:
        """The shard, if an earlier process wrote it to the end. Its record is written last."""
        try:
            found = cls(**json.loads(Path(stem + ".json").read_text(encoding="utf-8")))
            whole = all(
                content_hash(found.file(suffix)).hex() == digest
                for suffix, digest in found.digests.items()
            )
        except (OSError, ValueError, TypeError):  # none, or damaged; Refused is a ValueError
            return None
        return found if whole else None


@contextmanager
def _renamed(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole. A worker may outlive a parent that was killed:
    its file is another one than that of the process that goes on."""
    writing = path.with_name(f".{path.name}.{os.getpid()}")
    with writing.open("wb") as file:
        yield file
    os.replace(writing, path)


def number(stem: str, table: Dataset, tokenizer: Tokenizer, append_eos: bool) -> Numbered:
    """Write the documents of ``table`` as a shard, unless it is there."""
    if (found := Numbered.finished(stem)) is not None:
        return found
    shard = Numbered(stem, 0, len(table), 0, {})
    numbers = FirstSeen()
    characters = tokens = 0
    with _renamed(shard.file(".numbers")) as ids_file, _renamed(shard.file(".lengths")) as lengths:
        for block in blocks(texts(table)):
            documents = tokenizer.tokenize_all(block)
            if append_eos:
                for document in documents:
                    document.append(END)
            ids = numbers.encode(chain.from_iterable(documents))
            ids.tofile(ids_file)
            np.array(list(map(len, documents)), np.int64).tofile(lengths)
            tokens += len(ids)
            characters += sum(map(len, block))
    seen = numbers.tokens
    counts = np.zeros(len(seen), np.int64)
    for part in read_parts(shard.file(".numbers"), np.int32):
        counts += np.bincount(part, minlength=len(seen))
    with _renamed(shard.file(".counts")) as file:
        counts.tofile(file)
    write_atomically(shard.file(".seen"), json.dumps(seen))
    suffixes = (".numbers", ".lengths", ".counts", ".seen")
    digests = {suffix: content_hash(shard.file(suffix)).hex() for suffix in suffixes}
    shard = Numbered(stem, tokens, len(table), characters, digests)
    write_atomically(shard.file(".json"), json.dumps(asdict(shard)))
    return shard


def renumber(shard: Numbered, path: Path, ids: Ids) -> None:
    """Write a shard with the ids of its numbers, ``ids (numbers,)``."""
    with path.open("wb") as file:
        for part in read_parts(shard.file(".numbers"), np.int32):
            ids[part].tofile(file)


def join_offsets(shards: Sequence[Numbered], path: Path) -> None:
    """Write where each document of a split begins, and where the last one ends."""
    total = 0
    with path.open("wb") as file:
        np.zeros(1, np.int64).tofile(file)
        for shard in shards:
            for part in read_parts(shard.file(".lengths"), np.int64):
                ends = total + np.cumsum(part)
                ends.tofile(file)
                total = int(ends[-1])


def join_counts(shards: Sequence[Numbered]) -> Counter[str]:
    """How often each token occurs, in the order in which the tokens are first seen."""
    numbers, counts = FirstSeen(), np.zeros(0, np.int64)
    for shard in shards:
        places = numbers.encode(shard.seen())
        counts = np.pad(counts, (0, len(numbers) - len(counts)))
        counts[places] += np.fromfile(shard.file(".counts"), np.int64)
    return Counter(dict(zip(numbers.tokens, counts.tolist(), strict=True)))


def cut(table: Dataset, shards: int) -> list[Dataset]:
    """The table in ``shards`` runs of documents, or in as many as it has documents."""
    shards = max(1, min(shards, len(table)))
    ends = [len(table) * shard // shards for shard in range(shards + 1)]
    return [table.select(range(first, end)) for first, end in pairwise(ends)]


def in_processes(call: Callable[..., Any], arguments: Iterable[Sequence[Any]], jobs: int) -> Any:
    """``call`` with each of the arguments, by up to ``jobs`` processes and one for each core
    (joblib counts them; ``LOKY_MAX_CPU_COUNT`` sets fewer). The results, in order."""
    from joblib import Parallel, cpu_count, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor

    jobs = min(jobs, cpu_count())
    if jobs == 1:
        return [call(*each) for each in arguments]
    with parallel_config("loky", idle_worker_timeout=IDLE_SECONDS):
        found = Parallel(n_jobs=jobs)(delayed(_alone)(call, *each) for each in arguments)
    get_reusable_executor().shutdown()  # a training does not need their memory
    return found


def _alone(call: Callable[..., Any], *arguments: Any) -> Any:
    """``call`` in a worker, where tokenizers must not start a thread for each core again."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return call(*arguments)


def read_parts(path: Path, dtype: type) -> Iterator[npt.NDArray[Any]]:
    """The numbers of a file, with ``IDS_AT_ONCE`` in memory at a time."""
    part: npt.NDArray[Any]
    with path.open("rb") as file:
        while len(part := np.fromfile(file, dtype, IDS_AT_ONCE)):
            yield part


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
