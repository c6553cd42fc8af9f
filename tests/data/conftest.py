"""Corpora that the tests of reading share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from unroll.config import Config
from unroll.data.corpus import Corpus
from unroll.registry import build


@pytest.fixture
def text_files(composed: Callable[..., Config], tmp_path: Path) -> Callable[..., Corpus]:
    """A corpus of text files, a document per line, that holds nothing out by default."""
    base = composed("data=text_files", "data.path=x", "data.document=line").data
    base = replace(base, cache=str(tmp_path / "cache"), valid_fraction=0.0, test_fraction=0.0)
    return lambda path, **changes: build("data", replace(base, path=str(path), **changes))


@pytest.fixture
def ag_news(composed: Callable[..., Config], tmp_path: Path) -> Callable[..., Corpus]:
    """AG News from a folder, without a validation split."""
    base = composed("data=ag_news").data
    base = replace(base, cache=str(tmp_path / "cache"), valid_fraction=0.0)
    return lambda path, **changes: build("data", replace(base, path=str(path), **changes))
