"""AG News (Zhang et al. 2015): news articles, a title and a description each.

A folder may hold the data set in any of three forms:

    train.csv, test.csv                                    as published: label, title, description
    train*.parquet, test*.parquet, also in a folder data/  as on the Hugging Face hub
    train/*.arrow, test/*.arrow                            as datasets' save_to_disk writes it

All give the same documents: title and description, joined by a space.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.data.config import AGNewsConfig
from unroll.data.corpus import TEXT, Corpus, generated
from unroll.data.tables import csv_rows, parquet_texts, require_column
from unroll.data.text_reader import existing
from unroll.errors import QUOTED, Refused, bounded, first_line, require

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "test")
FORMS = ("{}/*.arrow", "{}.csv", "{}*.parquet", "data/{}*.parquet")
"""Where the files of a split are, in each form."""
REMEDY = "AG News has its texts in the column 'text'"


class AGNews(Corpus):
    """AG News from a folder, or from the Hugging Face hub."""

    config: AGNewsConfig
    HUB = "fancyzhx/ag_news"
    REVISION = "eb185aade064a813bc0b7f42de02595523103ca4"
    LARGEST = 1 << 28
    """Bytes of the download; the two files have 20 million."""

    def files(self) -> dict[str, list[Path]]:
        if self.config.path is None:
            return {}
        folder = existing(self.config.path, "data.path")
        require(folder.is_dir(), f"data.path={folder} is a file: give the folder of AG News")
        for form in FORMS:
            found = {split: sorted(folder.glob(form.format(split))) for split in SPLITS}
            if any(found.values()):
                for split in SPLITS:
                    require(found[split], f"data.path={folder} has no {form.format(split)}")
                return found
        raise Refused(
            f"data.path={folder} does not contain AG News: give a folder with train.csv and "
            "test.csv, with train*.parquet and test*.parquet, or one that datasets' save_to_disk "
            "wrote"
        )

    @property
    def reading(self) -> dict[str, Any]:
        return {"name": self.config.name, "hub": self.config.path is None}

    def table(self, files: list[Path]) -> Dataset:
        if files[0].suffix == ".arrow":
            return saved(files[0].parent)
        paths = [str(path) for path in files]
        return generated(_articles, {"paths": paths}, files, self.config.cache)

    def tables(self) -> dict[str, Dataset]:
        if self.config.path is not None:
            return super().tables()
        from datasets import load_dataset_builder

        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # the error below says it
        try:
            builder = load_dataset_builder(self.HUB, revision=self.REVISION)
            require(
                (builder.info.download_size or 0) <= self.LARGEST,
                f"{self.HUB} has more than {self.LARGEST:,} bytes: set data.path=",
            )
            builder.download_and_prepare()
            tables = {split: builder.as_dataset(split) for split in SPLITS}
        except Refused:
            raise
        except Exception as error:  # offline, refused or timed out: the remedy is the same
            raise Refused(
                f"cannot reach {self.HUB} on the Hugging Face hub ({type(error).__name__}): set "
                "data.path= to a folder of AG News, or use data=lee_news, which needs no download"
            ) from error
        return {split: _text_column(table, self.HUB) for split, table in tables.items()}


def _articles(paths: list[str]) -> Iterator[dict[str, str]]:
    for path in map(Path, paths):
        if path.suffix == ".csv":
            texts: Iterator[str | None] = published(path)
        else:
            texts = parquet_texts(path, TEXT, "utf-8", REMEDY)
        yield from ({TEXT: text} for text in texts if text)


def published(path: Path) -> Iterator[str]:
    """The articles of a CSV file as it was published: label, title, description, no header.

    Raises:
        Refused: the file is not valid CSV, or has other columns.
    """
    for line, row in csv_rows(path, "utf-8"):
        require(
            len(row) == 3 and row[0].strip().isdigit(),
            f"{path}: line {line}: expected a label (1 to 4), a title and a description, and no "
            f"header, found: {bounded(', '.join(row), QUOTED)}",
        )
        yield f"{row[1]} {row[2]}"


def saved(folder: Path) -> Dataset:
    """The table of one split that ``save_to_disk`` wrote.

    Raises:
        Refused: it is damaged, or has no column ``text``.
    """
    from datasets import load_from_disk

    try:
        table = load_from_disk(str(folder))
    except Exception as error:  # whatever a damaged folder makes the library raise
        raise Refused(f"data.path={folder} cannot be read: {first_line(error, QUOTED)}") from error
    return _text_column(table, str(folder))


def _text_column(table: Dataset, where: str) -> Dataset:
    from datasets import Features, Value

    require_column(TEXT, table.column_names, where, REMEDY)
    return table.select_columns([TEXT]).cast(Features({TEXT: Value("string")}))
