"""A tracking store to start from: creating one takes MLflow seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from unroll.tracking.store import connect


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty_store")
    connect(folder)
    return folder / "mlflow.db"


@pytest.fixture
def home(empty_store: Path, tmp_path: Path) -> Path:
    """A folder with an empty store."""
    shutil.copy(empty_store, tmp_path)
    return tmp_path
