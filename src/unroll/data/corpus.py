"""Where text comes from: documents per split, as memory-mapped ``datasets`` tables.

A corpus knows nothing about tokens. ``fingerprint`` identifies its content without importing
``datasets``, so that a cached token stream can be found without that package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.data.address import file_at
from unroll.data.config import CorpusConfig, LeeNewsConfig, PennTreebankConfig, TextFilesConfig
from unroll.data.tables import TABLES, Column, column_texts
from unroll.data.text_reader import File, Reader, existing, expand, source_hash
from unroll.errors import Refused, explain, redacted, require

if TYPE_CHECKING:
    from datasets import Dataset

TEXT = "text"
SPLITS = ("train", "valid", "test")


class Corpus:
    """Documents per split. A subclass says which files it reads and how."""

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config

    def files(self) -> Mapping[str, Sequence[File]]:
        """The files of each split that the corpus itself has.

        Raises:
            Refused: a file does not exist.
        """
        raise NotImplementedError

    def table(self, files: list[Any]) -> Dataset:
        """The documents of these ``files``, one per row, in the column ``text``."""
        raise NotImplementedError

    def tables(self) -> dict[str, Dataset]:
        """The tables of the splits that the corpus itself has."""
        return {split: self.table(list(paths)) for split, paths in self.files().items()}

    @property
    def reading(self) -> dict[str, Any]:
        """The settings that decide how the same files become documents."""
        return {"name": self.config.name}

    def fingerprint(self) -> str:
        """A hash of the content of every file and of every setting that decides the documents.

        Files on disk are read in full, whatever ``data.limit``, but only once by a process while
        they do not change."""
        config = self.config
        digest = hashlib.blake2b(digest_size=16)
        settings: list[Any] = [self.reading, config.limit, config.split_seed]
        settings += [config.valid_fraction, config.test_fraction]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for split, paths in sorted(self.files().items()):
            for path in paths:
                digest.update(f"{split}:{path.name}:".encode())
                digest.update(source_hash(path))
        return digest.hexdigest()

    def pinned(self) -> CorpusConfig:
        """The config that gives the same documents later, so far as it can say which they are."""
        return self.config

    def read(self) -> dict[str, Dataset]:
        """The tables of train, valid and test.

        For a split that the corpus does not have, a seeded random share of its training documents
        is held out; they keep their order. A share of 0 gives no such split.

        Raises:
            Refused: a file is missing or unreadable, or there are too few documents to hold out.
        """
        import datasets
        import numpy as np

        datasets.disable_progress_bars()
        tables = self.tables()
        if self.config.limit is not None:
            limit = self.config.limit
            tables = {
                split: table.select(range(min(limit, len(table))))
                for split, table in tables.items()
            }
        for split in tables:
            require(len(tables[split]) > 0, f"{self.where(split)}: no text in the {split} split")
        documents = len(tables["train"])
        left = np.arange(documents)
        for split in ("test", "valid"):
            share = getattr(self.config, f"{split}_fraction")
            if split not in tables and share > 0:
                held = max(1, round(share * documents))
                require(
                    held < len(left),
                    f"{self.where('train')}: {documents} document(s) for training, too few to "
                    f"hold out any for {split}: give more text, set data.{split}_fraction=0, or "
                    "split plain text into more documents with data.document=line",
                )
                shuffled = np.random.default_rng(self.config.split_seed).permutation(left)
                chosen, left = np.sort(shuffled[:held]), np.sort(shuffled[held:])
                tables[split] = tables["train"].select(chosen)
        if len(left) < documents:
            tables["train"] = tables["train"].select(left)
        return tables

    def where(self, split: str) -> str:
        """The file, or else the corpus, to name in an error about a split."""
        paths = self.files().get(split, [])
        return str(paths[0]) if paths else f"data={self.config.name}"


def texts(table: Dataset) -> Iterator[str]:
    """The documents of a table, with a thousand in memory at a time."""
    return chain.from_iterable(batch[TEXT] for batch in table.iter(batch_size=1000))


def part_of_gensim(file: str, corpus: str) -> Path:
    """A text that the installed package gensim contains; gensim itself is not imported.

    Raises:
        Refused: gensim is not installed, or lacks the file.
    """
    found = importlib.util.find_spec("gensim")
    if found is None or found.origin is None:
        raise Refused(
            f"data={corpus} reads a text that is part of the package gensim, which is not "
            "installed: pip install gensim, or use another data="
        )
    return existing(Path(found.origin).parent / "test" / "test_data" / file)


class LeeNews(Corpus):
    """300 training and 50 test articles, one per line, from the installed gensim package."""

    config: LeeNewsConfig

    def files(self) -> dict[str, list[Path]]:
        name = self.config.name
        return {
            "train": [part_of_gensim("lee_background.cor", name)],
            "test": [part_of_gensim("lee.cor", name)],
        }

    def table(self, files: list[Path]) -> Dataset:
        return streamed(files, self.config.cache, Reader("line", "latin-1"))


class PennTreebank(Corpus):
    """One sentence per line; every sentence is a document."""

    config: PennTreebankConfig

    def files(self) -> dict[str, list[Path]]:
        folder = existing(self.config.path, "data.path")
        require(
            folder.is_dir(),
            f"data.path={folder} is a file: give the folder with ptb.train.txt, ptb.valid.txt and "
            "ptb.test.txt",
        )
        files = {split: [folder / f"ptb.{split}.txt"] for split in SPLITS}
        for (file,) in files.values():
            require(file.is_file(), f"data.path={folder} has no {file.name}")
        return files

    def table(self, files: list[Path]) -> Dataset:
        return streamed(files, self.config.cache, Reader("line"))


class TextFiles(Corpus):
    """Any text: plain, gz, zip, CSV, JSONL, Parquet; a file, a folder, a glob or an address."""

    config: TextFilesConfig

    def files(self) -> Mapping[str, Sequence[File]]:
        given = {"train": self.config.path}
        if self.config.valid_path is not None:
            given["valid"] = self.config.valid_path
        if self.config.test_path is not None:
            given["test"] = self.config.test_path
        return {
            split: expand(path, "data.path" if split == "train" else f"data.{split}_path")
            for split, path in given.items()
        }

    @property
    def reading(self) -> dict[str, Any]:
        config = self.config
        return {
            "name": config.name,
            "document": config.document,
            "encoding": config.encoding,
            "text_column": config.text_column,
        }

    def table(self, files: list[File]) -> Dataset:
        config = self.config
        reader = Reader(config.document, config.encoding)
        return streamed(files, config.cache, reader, config.text_column, config.limit)


def _documents(
    paths: list[str], reader: Reader, column: Column, limit: int | None = None
) -> Iterator[dict[str, str]]:
    documents = chain.from_iterable(_texts(file_at(path), reader, column) for path in paths)
    yield from ({TEXT: text} for text in islice(documents, limit))


def _texts(path: File, reader: Reader, column: Column) -> Iterator[str]:
    if path.suffix in TABLES:
        return column_texts(path, column, reader.encoding)
    return reader.documents(path)


def streamed(
    files: Sequence[File],
    cache: str,
    reader: Reader,
    column: Column = TEXT,
    limit: int | None = None,
) -> Dataset:
    """A table on disk of the first ``limit`` documents of ``files``, written while they are read;
    what follows is not read."""
    paths = [str(path) for path in files]
    arguments = {"paths": paths, "reader": reader, "column": column}
    arguments |= {} if limit is None else {"limit": limit}
    return generated(_documents, arguments, files, cache)


def generated(
    rows: Callable[..., Iterator[dict[str, str]]],
    arguments: dict[str, Any],
    files: Sequence[File],
    cache: str,
) -> Dataset:
    """A table on disk of what ``rows(**arguments)`` yields, made from ``files``."""
    from datasets import Dataset, Features, Value

    folder = _cache_folder(files, cache, repr(arguments))

    def table() -> Dataset:
        return Dataset.from_generator(
            rows,
            features=Features({TEXT: Value("string")}),
            cache_dir=str(folder),
            gen_kwargs={name: _once(value) for name, value in arguments.items()},
        )

    existed = folder.exists()
    try:
        return table()
    except Exception as error:
        _require_text(files[0] if files else folder, error)
        if not existed or explain(error)[0] is not None:
            raise
    discard(folder)
    return table()


def discard(folder: Path) -> None:
    """Delete a damaged entry of the cache, and say so."""
    print(redacted(f"the cache entry {folder} is damaged: it is made again"), flush=True)
    shutil.rmtree(folder)


def _require_text(file: object, error: BaseException) -> None:
    """Raise ``Refused`` if ``error``, which ``datasets`` raised, comes from the content of the
    files."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Refused):
            raise Refused(str(cause)) from error
        if isinstance(cause, UnicodeEncodeError):
            raise Refused(
                f"{file} contains half of a surrogate pair, which is not valid Unicode: correct "
                "the file"
            ) from error
        cause = cause.__cause__
    if "no data" in str(error):
        raise Refused(f"{file} contains no text") from error


def _once(value: Any) -> Any:
    """datasets would split a list among workers; a tuple stays one argument."""
    return tuple(value) if isinstance(value, list) else value


def _cache_folder(files: Sequence[File], cache: str, how: str) -> Path:
    """The cache folder of these files; files with the same names but other content get another."""
    digest = hashlib.blake2b(how.encode(), digest_size=16)
    for path in files:
        digest.update(source_hash(path))
    return Path(cache) / "documents" / digest.hexdigest()
