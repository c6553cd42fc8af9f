"""Config of tracking: where runs are kept, and under which name."""

from __future__ import annotations

from dataclasses import dataclass

from unroll.errors import require
from unroll.registry import register

LONGEST_WAIT = 3600


@dataclass(frozen=True)
class TrackingConfig:
    name: str
    directory: str
    """Folder of the embedded store and of the ledger in which `run=` finds runs."""
    run_name: str | None
    """null: made of the model and the overrides."""
    study: str | None
    """Tag to group runs by; set by studies."""
    label: str | None
    """Tag to group runs by: the same for runs that differ only in the seed; set by studies."""
    every: int
    """Optimizer steps between two points of a curve."""

    free_text = ("directory", "run_name", "study", "label", "experiment", "parent")

    def __post_init__(self) -> None:
        require(self.every >= 1, f"tracking.every={self.every}: must be at least 1 step")


@register("tracking", "mlflow", builds="unroll.tracking.tracker:MLflowTracker")
@dataclass(frozen=True)
class MLflowConfig(TrackingConfig):
    """Keep runs in MLflow: in the server or database of MLFLOW_TRACKING_URI if that is set, else
    in the embedded store."""

    experiment: str
    parent: str | None
    """Run id of the parent run; set by multiruns and studies."""
    wait_seconds: float
    """How long the end of a run waits while nothing arrives in the store. What the store lacks then
    stays in the run directory, for `task=sync`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.wait_seconds <= LONGEST_WAIT,
            f"tracking.wait_seconds={self.wait_seconds}: must be from 0 to {LONGEST_WAIT}",
        )


@register("tracking", "disabled", builds="unroll.tracking.tracker:DisabledTracker")
@dataclass(frozen=True)
class DisabledConfig(TrackingConfig):
    """Keep runs in their run directories only; mlflow is not imported."""
