"""What a person may say of tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import unroll.forecasting.config  # noqa: F401  registers the forecasters
from unroll.errors import require, require_one_of
from unroll.registry import names, register


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


@register("task", "compare", builds="unroll.tasks.compare:compare")
@dataclass(frozen=True)
class CompareConfig(TaskConfig):
    """Every run scores what every run writes."""

    runs: list[str]
    """Run ids, run names or checkpoints' paths."""
    greedy: bool
    """Whether each run also writes the likeliest token every time."""
    temperatures: list[float]
    """Each run writes once at each of them."""

    def __post_init__(self) -> None:
        require(
            self.runs,
            "task.runs=[] names no run: give run ids, run names or checkpoints' paths, as in "
            "task.runs=[latest]",
        )
        require(
            self.greedy or self.temperatures,
            "task.temperatures=[] with task.greedy=false leaves nothing to write: give one",
        )
        for key in ("runs", "temperatures"):
            given = getattr(self, key)
            require(len(set(given)) == len(given), f"task.{key}={given} names one of them twice")
        for temperature in self.temperatures:
            require(
                temperature > 0 and math.isfinite(temperature),
                f"task.temperatures={self.temperatures}: each above 0; for the likeliest token "
                "take task.greedy=true",
            )


@register("task", "deploy", builds="unroll.tasks.deploy:deploy")
@dataclass(frozen=True)
class DeployConfig(TaskConfig):
    """What a run costs on a small device, in float32 and in int8."""

    tokens: int
    """At most so many tokens of the test split are scored."""
    warm_up: int
    """Tokens written before the clock counts."""
    timed: int
    """Tokens whose time is taken."""

    def __post_init__(self) -> None:
        for key, least in (("tokens", 2), ("warm_up", 0), ("timed", 1)):
            value = getattr(self, key)
            require(value >= least, f"task.{key}={value}: at least {least}")
