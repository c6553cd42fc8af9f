"""Config of tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import unroll.forecasting.config  # noqa: F401  registers the forecasters
from unroll.errors import require, require_one_of
from unroll.registry import names, register


@register("task", "train", builds="unroll.tasks.train:train")
@dataclass(frozen=True)
class TaskConfig:
    """What every task has. The two class attributes are not keys: they are the same for every
    run of a task."""

    name: str

    reads_run = False
    """Whether the task reads the trained run that ``run=`` names."""
    takes_run = False
    """Whether the task can do without ``run=``, which it understands."""
    makes_run = True
    """Whether the task makes a run of its own in the tracking store."""


@register("task", "sample", builds="unroll.tasks.sample:sample")
@register("task", "evaluate", builds="unroll.tasks.evaluate:evaluate")
@dataclass(frozen=True)
class ReadingConfig(TaskConfig):
    """A task that adds its result to the trained run that it reads."""

    reads_run = True
    makes_run = False


@register("task", "forecast", builds="unroll.tasks.forecast:forecast")
@dataclass(frozen=True)
class ForecastConfig(TaskConfig):
    """A noisy sine, forecast from its last values (d2l 9.1). It reads no text and builds no
    language model: of the other groups it uses only tracking."""

    forecaster: str
    hidden_size: int
    tau: int
    """Number of past values that a forecast reads."""
    points: int
    noise: float
    """Standard deviation of the noise on the sine."""
    train_points: int
    """Labels in the training split, the first of them after `tau` values; the rest is held out."""
    horizons: list[int]
    """Steps ahead, k, of the forecasts that are scored."""
    batch_size: int
    epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        require_one_of("task.forecaster", self.forecaster, names("forecaster"))
        for key in ("hidden_size", "tau", "batch_size", "epochs"):
            value = getattr(self, key)
            require(value >= 1, f"task.{key}={value}: must be at least 1")
        for key in ("noise", "learning_rate"):
            value = getattr(self, key)
            least = "at least 0" if key == "noise" else "above 0"
            fits = value >= 0 if key == "noise" else value > 0
            require(
                fits and math.isfinite(value), f"task.{key}={value}: must be {least} and finite"
            )
        require(
            self.tau < self.train_points,
            f"task.tau={self.tau}: must be below task.train_points={self.train_points}, or the "
            "training split is empty",
        )
        require(
            self.train_points + self.tau < self.points,
            f"task.train_points={self.train_points}: plus task.tau={self.tau} it must be below "
            f"task.points={self.points}, or nothing is held out",
        )
        require(
            self.horizons and all(1 <= steps <= self.train_points for steps in self.horizons),
            f"task.horizons={self.horizons}: expected one or more integers from 1 to "
            f"task.train_points={self.train_points}",
        )


@register("task", "describe", builds="unroll.tasks.describe:describe")
@dataclass(frozen=True)
class DescribeConfig(TaskConfig):
    """Statistics of the text and the parameters of the model."""

    window: int
    """Tokens before the predicted one in the lab's windows, whatever `data/batching` is."""

    def __post_init__(self) -> None:
        require(self.window >= 1, f"task.window={self.window}: must be at least 1 token")


@register("task", "compare", builds="unroll.tasks.compare:compare")
@dataclass(frozen=True)
class CompareConfig(TaskConfig):
    """Every run scores the text that every run generates."""

    runs: list[str]
    """Run ids, run names or paths of checkpoints."""
    greedy: bool
    """Whether each run also generates greedily: the most likely token at each step."""
    temperatures: list[float]
    """Each run generates once at each of them."""

    def __post_init__(self) -> None:
        require(
            self.runs,
            "task.runs=[] names no run: give run ids, run names or paths of checkpoints, as in "
            "task.runs=[latest]",
        )
        require(
            self.greedy or self.temperatures,
            "task.temperatures=[] with task.greedy=false generates nothing: add a temperature, or "
            "set task.greedy=true",
        )
        for key in ("runs", "temperatures"):
            given = getattr(self, key)
            require(len(set(given)) == len(given), f"task.{key}={given} has a duplicate: remove it")
        for temperature in self.temperatures:
            require(
                temperature > 0 and math.isfinite(temperature),
                f"task.temperatures={self.temperatures}: each must be above 0 and finite; for the "
                "most likely token set task.greedy=true",
            )


@register("task", "deploy", builds="unroll.tasks.deploy:deploy")
@dataclass(frozen=True)
class DeployConfig(TaskConfig):
    """The cost of a run on a small device, in float32 and in int8."""

    tokens: int
    """Upper bound on the tokens of the test split that are scored."""
    warm_up: int
    """Tokens generated before the timing starts."""
    timed: int
    """Tokens whose generation is timed."""

    reads_run = True

    def __post_init__(self) -> None:
        for key, least in (("tokens", 2), ("warm_up", 0), ("timed", 1)):
            value = getattr(self, key)
            require(value >= least, f"task.{key}={value}: must be at least {least}")


@register("task", "sync", builds="unroll.tasks.sync:sync")
@dataclass(frozen=True)
class SyncConfig(TaskConfig):
    """Deliver to the tracking store what it lacks: of the run that ``run=`` names, or of all."""

    takes_run = True
    makes_run = False
