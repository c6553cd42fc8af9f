"""A data set of the Hugging Face hub, whose documents are read while they stream by.

What is kept on disk is a table of the texts, at most ``data.limit`` of each split.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.data.address import CONNECT_SECONDS
from unroll.data.config import HubConfig
from unroll.data.corpus import TEXT, Corpus, generated
from unroll.data.tables import NAME_THE_COLUMN, require_column
from unroll.errors import QUOTED, Refused, first_line, require

if TYPE_CHECKING:
    from datasets import Dataset

NAMES = {"train": "train", "validation": "valid", "valid": "valid", "test": "test"}
"""Splits on the hub that are read, and our names of them."""
COMMIT = 40
"""Digits of a commit."""


class Hub(Corpus):
    """Documents of a data set on the hub, at one commit."""

    config: HubConfig

    def files(self) -> Mapping[str, list[Path]]:
        return {}

    @property
    def reading(self) -> dict[str, Any]:
        keys = ("dataset", "subset", "text_column")
        return {key: getattr(self.config, key) for key in keys} | {"commit": self.commit}

    @cached_property
    def commit(self) -> str:
        """The commit that is read, which identifies the content.

        Raises:
            Refused: the hub does not answer, or has no such data set.
        """
        revision = self.config.revision
        if revision is not None and len(revision) == COMMIT:
            return revision
        from huggingface_hub import HfApi

        with answering(self.config.dataset):
            found = HfApi().dataset_info(
                self.config.dataset, revision=revision, timeout=CONNECT_SECONDS
            )
        return str(found.sha)

    def pinned(self) -> HubConfig:
        """The config with the commit that is read in place of a branch, a tag or none."""
        return replace(self.config, revision=self.commit)

    def tables(self) -> dict[str, Dataset]:
        config, given = self.config, self.reading
        with answering(config.dataset):
            from datasets import get_dataset_split_names

            found = get_dataset_split_names(config.dataset, config.subset, revision=self.commit)
        splits = {NAMES[split]: split for split in found if split in NAMES}
        require(
            "train" in splits,
            f"data.dataset={config.dataset} has no split train, only {', '.join(found)}",
        )
        return {
            split: generated(
                _documents, given | {"split": name, "limit": config.limit}, [], config.cache
            )
            for split, name in splits.items()
        }


def _documents(
    dataset: str, subset: str | None, text_column: str, commit: str, split: str, limit: int | None
) -> Iterator[dict[str, str]]:
    from datasets import load_dataset

    with answering(dataset):
        rows = load_dataset(dataset, subset, revision=commit, split=split, streaming=True)
        for text in islice(_texts(rows, text_column, dataset), limit):
            yield {TEXT: text}


def _texts(rows: Any, column: str, dataset: str) -> Iterator[str]:
    for row in rows:
        require_column(column, list(row), f"data.dataset={dataset}", NAME_THE_COLUMN)
        if row[column] is not None and (text := str(row[column])).strip():
            yield text


@contextmanager
def answering(dataset: str) -> Iterator[None]:
    """Raise ``Refused`` for whatever the library or the hub raises."""
    for name in ("datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the error below says it
    try:
        yield
    except Refused:
        raise
    except Exception as error:  # offline, refused, timed out, absent or damaged
        raise Refused(
            f"data.dataset={dataset} cannot be read from the Hugging Face hub "
            f"({type(error).__name__}: {first_line(error, QUOTED)}): correct it, or try again when "
            "the hub answers"
        ) from error
