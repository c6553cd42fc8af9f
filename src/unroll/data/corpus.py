"""Where text comes from: documents per split, as memory-mapped ``datasets`` tables.

A corpus knows nothing about tokens. ``fingerprint`` names its content without importing
``datasets``, so that a cached token stream can be found on a machine that has none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.data.config import (
    AGNewsConfig,
    CorpusConfig,
    LeeNewsConfig,
    LyricsConfig,
    PennTreebankConfig,
    TextFilesConfig,
    TimeMachineConfig,
)
from unroll.data.text_reader import Reader, content_hash, existing, expand, first_line, opened
from unroll.errors import Refused, require

if TYPE_CHECKING:
    from datasets import Dataset

TEXT = "text"
SPLITS = ("train", "valid", "test")
TABLES = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}


class Corpus:
    """Documents per split. A subclass says which files it reads and how."""

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config

    def files(self) -> dict[str, list[Path]]:
        """The files behind each split that the corpus itself has.

        Raises:
            Refused: a file is not there.
        """
        raise NotImplementedError

    def table(self, files: list[Path]) -> Dataset:
        """Documents of a split, a row each, in the column ``text``."""
        raise NotImplementedError

    def tables(self) -> dict[str, Dataset]:
        """The tables of the splits that the corpus itself has."""
        return {split: self.table(paths) for split, paths in self.files().items()}

    @property
    def reading(self) -> dict[str, Any]:
        """What of the config decides how the same files become documents."""
        return {"name": self.config.name}

    def fingerprint(self) -> str:
        """A hash of every byte read and of every setting that decides what becomes of it."""
        config = self.config
        digest = hashlib.blake2b(digest_size=16)
        settings: list[Any] = [self.reading, config.limit, config.split_seed]
        settings += [config.valid_fraction, config.test_fraction]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for split, paths in sorted(self.files().items()):
            for path in paths:
                digest.update(f"{split}:{path.name}:".encode())
                digest.update(content_hash(path))
        return digest.hexdigest()

    def read(self) -> dict[str, Dataset]:
        """The tables of train, valid and test; a split that is held out of nothing is missing.

        A corpus that lacks a split holds out a seeded share of its training documents, which
        keep their order.

        Raises:
            Refused: a file is missing or unreadable, or too few documents can be held out.
        """
        import datasets

        datasets.disable_progress_bars()
        tables = self.tables()
        if self.config.limit is not None:
            limit = self.config.limit
            tables = {
                split: table.select(range(min(limit, len(table))))
                for split, table in tables.items()
            }
        for split in tables:
            require(len(tables[split]) > 0, f"{self.where(split)}: no text for the {split} split")
        documents = len(tables["train"])
        left = list(range(documents))
        for split in ("test", "valid"):
            share = getattr(self.config, f"{split}_fraction")
            if split not in tables and share > 0:
                held = max(1, round(share * documents))
                require(
                    held < len(left),
                    f"{self.where('train')}: {documents} document(s) for training, none can be "
                    f"held out for {split}: give more text, set data.{split}_fraction=0, or in "
                    "plain text part it otherwise with data.document=line",
                )
                chosen = set(_seeded_choice(left, held, self.config.split_seed))
                tables[split] = tables["train"].select(sorted(chosen))
                left = [row for row in left if row not in chosen]
        if len(left) < documents:
            tables["train"] = tables["train"].select(left)
        return tables

    def where(self, split: str) -> str:
        """The place to name in a message about a split."""
        paths = self.files().get(split, [])
        return str(paths[0]) if paths else f"data={self.config.name}"


def _seeded_choice(rows: list[int], count: int, seed: int) -> list[int]:
    import numpy as np

    chosen: list[int] = np.random.default_rng(seed).permutation(rows)[:count].tolist()
    return chosen


class LeeNews(Corpus):
    """300 training and 50 test articles, a line each, out of the installed gensim package."""

    config: LeeNewsConfig

    def files(self) -> dict[str, list[Path]]:
        found = importlib.util.find_spec("gensim")  # finds the package, does not import it
        if found is None or found.origin is None:
            raise Refused(
                "data=lee_news reads the corpus that the package gensim carries, which is not "
                "installed: pip install gensim, or take another data="
            )
        folder = Path(found.origin).parent / "test" / "test_data"
        return {
            "train": [existing(folder / "lee_background.cor")],
            "test": [existing(folder / "lee.cor")],
        }

    def table(self, files: list[Path]) -> Dataset:
        return _streamed(files, self.config.cache, Reader("line", "latin-1"))


class PennTreebank(Corpus):
    """A sentence a line; every sentence a document."""

    config: PennTreebankConfig

    def files(self) -> dict[str, list[Path]]:
        folder = existing(self.config.path, "data.path")
        require(
            folder.is_dir(),
            f"data.path={folder} is a file: give the folder of ptb.train.txt, ptb.valid.txt and "
            "ptb.test.txt",
        )
        files = {split: [folder / f"ptb.{split}.txt"] for split in SPLITS}
        for (file,) in files.values():
            require(file.is_file(), f"data.path={folder} holds no {file.name}")
        return files

    def table(self, files: list[Path]) -> Dataset:
        return _streamed(files, self.config.cache, Reader("line"))


class AGNews(Corpus):
    """News articles from a ``save_to_disk`` folder or from the Hugging Face hub."""

    config: AGNewsConfig
    HUB = "fancyzhx/ag_news"

    def files(self) -> dict[str, list[Path]]:
        if self.config.path is None:
            return {}
        folder = existing(self.config.path, "data.path")
        require(
            (folder / "dataset_dict.json").is_file(),
            f"data.path={folder} holds no dataset_dict.json: give a folder that datasets' "
            "save_to_disk wrote, with the splits train and test",
        )
        found: dict[str, list[Path]] = {}
        for split in ("train", "test"):
            found[split] = sorted((folder / split).glob("*.arrow"))
            require(found[split], f"data.path={folder} holds no split '{split}'")
        return found

    @property
    def reading(self) -> dict[str, Any]:
        return {"name": self.config.name, "hub": self.config.path is None}

    def table(self, files: list[Path]) -> Dataset:
        from datasets import load_from_disk

        try:
            table = load_from_disk(str(files[0].parent))
        except Exception as error:  # whatever a damaged folder makes the library raise
            raise Refused(
                f"data.path={files[0].parent} cannot be read: {first_line(error)}"
            ) from error
        return _text_column(table, TEXT, str(files[0].parent))

    def tables(self) -> dict[str, Dataset]:
        if self.config.path is not None:
            return super().tables()
        from datasets import load_dataset

        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # the line below says it
        try:
            tables = {split: load_dataset(self.HUB, split=split) for split in ("train", "test")}
        except Exception as error:  # offline, refused, timed out: the remedy is the same
            raise Refused(
                f"cannot reach {self.HUB} on the Hugging Face hub ({type(error).__name__}): set "
                "data.path= to a save_to_disk folder of AG News, or take data=lee_news, which "
                "needs no download"
            ) from error
        return {split: _text_column(table, TEXT, self.HUB) for split, table in tables.items()}


class TextFiles(Corpus):
    """Any text: plain, gz, zip, CSV, JSONL, Parquet; a file, a folder or a glob."""

    config: TextFilesConfig

    def files(self) -> dict[str, list[Path]]:
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

    def table(self, files: list[Path]) -> Dataset:
        from datasets import concatenate_datasets

        config = self.config
        plain = [path for path in files if path.suffix not in TABLES]
        parts = [
            _tabular(path, config.text_column, config.cache)
            for path in files
            if path.suffix in TABLES
        ]
        if plain:
            parts.append(_streamed(plain, config.cache, Reader(config.document, config.encoding)))
        return concatenate_datasets(parts)


class TimeMachine(Corpus):
    """The Time Machine, letters only or as it stands."""

    config: TimeMachineConfig
    ADDRESS = "http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
    SHA1 = "090b5e7e70c295757f55df93cb0a180b9691891a"

    def files(self) -> dict[str, list[Path]]:
        if self.config.path is not None:
            return {"train": [existing(self.config.path, "data.path")]}
        place = Path(self.config.cache) / "downloads" / "timemachine.txt"
        if not place.is_file():
            download(self.ADDRESS, self.SHA1, place)
        return {"train": [place]}

    @property
    def reading(self) -> dict[str, Any]:
        config = self.config
        return {
            "name": config.name,
            "cleaning": config.cleaning,
            "characters": config.characters,
        }

    def table(self, files: list[Path]) -> Dataset:
        arguments = {"path": str(files[0])} | self.reading
        return generated(_cleaned_lines, arguments, files, self.config.cache)


def _cleaned_lines(
    path: str, name: str, cleaning: str, characters: int | None
) -> Iterator[dict[str, str]]:
    left = math.inf if characters is None else characters
    for line in Reader("line").documents(Path(path)):
        if cleaning == "letters":
            line = re.sub("[^A-Za-z]+", " ", line)
        text = line.strip().lower()[: int(min(left, len(line)))]
        left -= len(text)
        if text:
            yield {TEXT: text}


class Lyrics(Corpus):
    """Lyrics as one text."""

    config: LyricsConfig

    def files(self) -> dict[str, list[Path]]:
        return {"train": [existing(self.config.path, "data.path")]}

    @property
    def reading(self) -> dict[str, Any]:
        return {"name": self.config.name, "characters": self.config.characters}

    def table(self, files: list[Path]) -> Dataset:
        arguments = {"path": str(files[0])} | self.reading
        return generated(_one_text, arguments, files, self.config.cache)


def _one_text(path: str, name: str, characters: int | None) -> Iterator[dict[str, str]]:
    text = "\n".join(Reader("file").documents(Path(path))).replace("\n", " ")
    require(text, f"data.path={path} holds no text")
    yield {TEXT: text[:characters]}


def download(address: str, sha1: str, place: Path) -> None:
    """Fetch a file once, and keep it only if it is the one that was meant.

    Raises:
        Refused: it cannot be reached, or is another file.
    """
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            content = answer.read()
    except (OSError, ValueError) as error:
        raise Refused(
            f"cannot fetch {address} ({first_line(error)}): set data.path= to a copy of the file"
        ) from error
    found = hashlib.sha1(content).hexdigest()
    require(
        found == sha1,
        f"{address} gave a file of SHA-1 {found}, not {sha1}: set data.path= to a sound copy",
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    writing = place.with_name(f".{place.name}.{os.getpid()}")
    writing.write_bytes(content)
    os.replace(writing, place)


def _rows(paths: list[str], reader: Reader) -> Iterator[dict[str, str]]:
    for path in paths:
        for text in reader.documents(Path(path)):
            yield {TEXT: text}


def _streamed(files: list[Path], cache: str, reader: Reader) -> Dataset:
    """A table on disk of the documents of ``files``, written as they are read."""
    return generated(
        _rows, {"paths": [str(path) for path in files], "reader": reader}, files, cache
    )


def _tabular(path: Path, column: str, cache: str) -> Dataset:
    """The rows of a table that hold text. Only Parquet knows types of its own: CSV and JSONL are
    read as the text they are, so that `007` and `NA` stay what they were."""
    from datasets import load_dataset

    if path.suffix == ".jsonl":
        return generated(_json_rows, {"path": str(path), "column": column}, [path], cache)
    as_text = {"converters": {column: str}, "keep_default_na": False}
    try:
        table = load_dataset(
            TABLES[path.suffix],
            data_files=str(path),
            split="train",
            cache_dir=str(_folder([path], cache, column)),
            **(as_text if path.suffix == ".csv" else {}),
        )
    except Exception as error:  # whatever a damaged table makes the library raise
        cause = error.__cause__ or error
        raise Refused(
            f"{path} cannot be read as {TABLES[path.suffix]}: {first_line(cause)}"
        ) from error
    table = _text_column(table, column, str(path))
    return table.filter(_has_text, load_from_cache_file=False)


def _json_rows(path: str, column: str) -> Iterator[dict[str, str]]:
    with opened(Path(path)) as file:
        for position, line in enumerate(file, start=1):
            try:
                row = json.loads(line) if line.strip() else {column: None}
            except ValueError as error:
                raise Refused(f"{path}: line {position} is not JSON: {error}") from error
            require(isinstance(row, dict), f"{path}: line {position} is no JSON object")
            _require_column(column, list(row), f"{path}: line {position}")
            if row[column] is not None and str(row[column]).strip():
                yield {TEXT: str(row[column])}


def _require_column(column: str, columns: list[str], where: str) -> None:
    require(
        column in columns,
        f"{where} has no column '{column}': it has {', '.join(columns)}; name the column of text "
        "with data.text_column",
    )


def _has_text(row: dict[str, str]) -> bool:
    return bool(row[TEXT] and row[TEXT].strip())


def _text_column(table: Dataset, column: str, where: str) -> Dataset:
    """``table`` with nothing but its column of text, named ``text``."""
    from datasets import Features, Value

    _require_column(column, table.column_names, where)
    table = table.select_columns([column])
    if column != TEXT:
        table = table.rename_column(column, TEXT)
    return table.cast(Features({TEXT: Value("string")}))


def generated(
    rows: Callable[..., Iterator[dict[str, str]]],
    arguments: dict[str, Any],
    files: list[Path],
    cache: str,
) -> Dataset:
    """A table on disk of what ``rows(**arguments)`` yields, made from ``files``."""
    from datasets import Dataset, Features, Value

    folder = _folder(files, cache, repr(arguments))
    try:
        return Dataset.from_generator(
            rows,
            features=Features({TEXT: Value("string")}),
            cache_dir=str(folder),
            gen_kwargs={name: _once(value) for name, value in arguments.items()},
        )
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, Refused):
            cause = cause.__cause__
        if cause is not None:
            raise Refused(str(cause)) from error
        if "no data" in str(error):
            raise Refused(f"{files[0]} holds no text") from error
        raise


def _once(value: Any) -> Any:
    """datasets reads a list argument as shards of work; a tuple is one argument."""
    return tuple(value) if isinstance(value, list) else value


def _folder(files: list[Path], cache: str, how: str) -> Path:
    """A cache folder of these very files: other bytes under the same names get another one."""
    digest = hashlib.blake2b(how.encode(), digest_size=16)
    for path in files:
        digest.update(content_hash(path))
    return Path(cache) / "documents" / digest.hexdigest()
