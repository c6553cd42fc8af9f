"""What a person may say of where runs are kept."""

from __future__ import annotations

from dataclasses import dataclass

from unroll.errors import require
from unroll.registry import register


@dataclass(frozen=True)
class TrackingConfig:
    name: str
    directory: str
    """Folder of the embedded store and of the ledger that `run=` looks runs up in."""


@register("tracking", "mlflow", builds="unroll.tracking.store:MLflowTracker")
@dataclass(frozen=True)
class MLflowConfig(TrackingConfig):
    """Keep runs in MLflow: the embedded store, or MLFLOW_TRACKING_URI where that is set."""

    experiment: str
    run_name: str | None
    """null: made of data, model and the overrides."""
    parent: str | None
    """Run id of the parent run, set by multiruns and studies."""
    every: int
    """Optimizer steps between logged training points."""

    free_text = ("run_name",)

    def __post_init__(self) -> None:
        require(self.every >= 1, f"tracking.every={self.every}: at least 1 step")


@register("tracking", "disabled", builds="unroll.tracking.store:DisabledTracker")
@dataclass(frozen=True)
class DisabledConfig(TrackingConfig):
    """Keep nothing but the run directory; mlflow is not imported."""

    every: int
