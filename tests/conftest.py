"""What the tests share: configs as a command line composes them, and the real text at hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network
# where it is set, each process that a test starts compiles PyTorch and MLflow anew: 4 seconds
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from unroll.app import compose
from unroll.config import Config
from unroll.models.language_model import LanguageModel
from unroll.tracking.store import connect

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models as small as these only wait for each other on more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """The config of a command line of these overrides, which leaves nothing outside a test. Without
    overrides: words, no dropout, a constant learning rate, and weights that are not tied."""
    folder = tmp_path_factory.mktemp("composed")
    places = ["tracking=disabled", f"tracking.directory={folder}", f"data.cache={folder}"]
    places += ["training.dropout=0", "optimizer/schedule=constant", "data=lee_news"]

    @cache
    def composed_(*overrides: str) -> Config:
        untied = [] if "model=ngram" in overrides else ["model.tie_weights=false"]
        return compose([*places, *untied, *overrides])

    return composed_


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the runs of a module, with a text of 150 documents in ``text.txt``."""
    folder = tmp_path_factory.mktemp("home")
    text = "\n\n".join(f"one two three {i % 3} four {i % 7} six ." for i in range(150))
    (folder / "text.txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a store without runs: MLflow takes seconds to create one."""
    folder = tmp_path_factory.mktemp("empty_store")
    connect(folder)
    return folder / "mlflow.db"


@pytest.fixture
def mlruns(empty_store: Path, tmp_path: Path) -> Path:
    """The folder ``mlruns`` in that of a test, with an empty store."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    return tmp_path / "mlruns"


@pytest.fixture
def leaning(composed: Callable[..., Config]) -> Callable[..., LanguageModel]:
    """Small models whose predictions lean strongly on what they have read: every weight as it is
    drawn, times ``factor``."""

    def leaning_(vocabulary: int, factor: int, name: str = "lstm", **changes: Any) -> LanguageModel:
        torch.manual_seed(11)
        sizes = {"embedding_size": 5, "hidden_size": 6, "layers": 2}
        config: Any = replace(composed(f"model={name}").model, **(sizes | changes))
        made = LanguageModel(config, vocabulary)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter *= factor
        return made

    return leaning_


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """A corpus that stands beside the checkout; the test is skipped where it does not."""

    def found(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"needs {SHARED / name}, which is not here")
        return SHARED / name

    return found
