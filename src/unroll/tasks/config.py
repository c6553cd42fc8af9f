"""What a person may say of tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import unroll.forecasting.config  # noqa: F401  registers the forecasters
from unroll.registry import names, register, require, require_one_of


@register("task", "train", builds="unroll.tasks.train:train")
@register("task", "sample", builds="unroll.tasks.sample:sample")
@register("task", "evaluate", builds="unroll.tasks.evaluate:evaluate")
@dataclass(frozen=True)
class TaskConfig:
    name: str


@register("task", "forecast", builds="unroll.tasks.forecast:forecast")
@dataclass(frozen=True)
class ForecastConfig(TaskConfig):
    """A noisy sine, forecast from its last values (d2l 9.1). It reads no text and builds no
    language model: of the other groups only tracking has a meaning for it."""

    forecaster: str
    hidden_size: int
    tau: int
    """Values that a forecast is made from."""
    points: int
    noise: float
    """Standard deviation of the noise on the sine."""
    train_points: int
    """Labels to learn from, the first of them after `tau` values; what comes after is held out."""
    horizons: list[int]
    """Steps ahead, k, of the forecasts that are kept and scored."""
    batch_size: int
    epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        require_one_of("task.forecaster", self.forecaster, names("forecaster"))
        for key in ("hidden_size", "tau", "batch_size", "epochs"):
            value = getattr(self, key)
            require(value >= 1, f"task.{key}={value}: at least 1")
        for key in ("noise", "learning_rate"):
            value = getattr(self, key)
            least = "at least 0" if key == "noise" else "above 0"
            fits = value >= 0 if key == "noise" else value > 0
            require(fits and math.isfinite(value), f"task.{key}={value}: {least} and finite")
        require(
            self.tau < self.train_points,
            f"task.tau={self.tau}: below task.train_points={self.train_points}, or there is "
            "nothing to learn from",
        )
        require(
            self.train_points + self.tau < self.points,
            f"task.train_points={self.train_points}: with task.tau={self.tau} below "
            f"task.points={self.points}, or nothing is held out",
        )
        require(
            self.horizons and all(1 <= steps <= self.train_points for steps in self.horizons),
            f"task.horizons={self.horizons}: one or more numbers of steps, from 1 to "
            f"task.train_points={self.train_points}",
        )


@register("task", "describe", builds="unroll.tasks.describe:describe")
@dataclass(frozen=True)
class DescribeConfig(TaskConfig):
    """Statistics of the text and the parameters of the model."""

    window: int
    """Tokens that the lab's task reads before it predicts one, whatever `data/batching` is."""

    def __post_init__(self) -> None:
        require(self.window >= 1, f"task.window={self.window}: at least one token")
