"""A tracking store to start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def home(empty_store: Path, tmp_path: Path) -> Path:
    """A folder with an empty store."""
    shutil.copy(empty_store, tmp_path)
    return tmp_path
