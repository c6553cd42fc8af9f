"""Config of a search: the keys of ``hydra.sweeper`` with ``hydra/sweeper=optuna``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore

from unroll.errors import require, require_one_of
from unroll.folders import CHECKOUT, CONF, OVERLAYS

SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "none")
OVERLAY = re.compile(r"(?!_)\w[\w.-]*(/(?!_)\w[\w.-]*)*")
FOUND = "# Found by a search"
"""Start of the second line of each overlay that a search writes."""


@dataclass
class SearchConfig:
    """Not frozen, because Hydra composes onto it; call ``check`` before it is used."""

    _target_: str = "hydra_plugins.unroll_search.OptunaSweeper"
    n_trials: int = 20
    """Trials in all, with those of earlier commands of the same search."""
    sampler: str = "tpe"
    """How values are proposed. tpe: from what the trials so far reached (Bergstra et al. 2011);
    random."""
    pruner: str = "median"
    """Which trials are stopped early. median: one whose best validation loss so far is above the
    median of the others at the same validation; none."""
    startup_trials: int = 5
    """Finished trials before tpe and the pruner begin to use them."""
    seed: int = 1
    """Of the sampler. A trial depends on it, its number, and the trials that finished before."""
    study_name: str | None = None
    """Name of the search; null: a hash of the overrides, so that the same command goes on."""
    storage: str | None = None
    """Where trials are kept, as an address for SQLAlchemy; null: an SQLite file in the folder of
    the search, ``search/NAME`` in ``tracking.directory``."""
    overlay: str | None = None
    """Name of the overlay that is written to ``conf/experiment/`` for the best trial; null:
    ``experiment/best.yaml`` in the folder of the search."""
    trial: int | None = None
    """Set by the search in each job: the number of its trial."""

    def check(self) -> None:
        """Raise ``Refused`` if a value is out of its range."""
        require_one_of("hydra.sweeper.sampler", self.sampler, SAMPLERS)
        require_one_of("hydra.sweeper.pruner", self.pruner, PRUNERS)
        for key, least in {"n_trials": 1, "startup_trials": 1, "seed": 0}.items():
            value = getattr(self, key)
            require(value >= least, f"hydra.sweeper.{key}={value}: must be at least {least}")
        require(
            self.study_name is None or re.fullmatch(r"\w[\w.-]*", self.study_name),
            f"hydra.sweeper.study_name={self.study_name}: expected letters, digits, . _ and -",
        )
        if self.overlay is not None:
            self._check_overlay(self.overlay)

    def _check_overlay(self, name: str) -> None:
        given = f"hydra.sweeper.overlay={name}"
        require(
            OVERLAY.fullmatch(name),
            f"{given}: expected a name such as search/lstm, for conf/experiment/search/lstm.yaml",
        )
        require(
            CONF == CHECKOUT / "conf",
            f"{given} is written to conf/ of a checkout, and there is none: leave it out",
        )
        path = overlay_path(name)
        require(
            not path.exists() or f"\n{FOUND}" in path.read_text(encoding="utf-8"),
            f"{given}: {path} exists, and no search wrote it: give another name",
        )


def overlay_path(name: str) -> Path:
    """The file of an overlay of the checkout."""
    return CONF / OVERLAYS / f"{name}.yaml"


ConfigStore.instance().store(
    group="hydra/sweeper", name="optuna", node=SearchConfig, provider="unroll"
)
