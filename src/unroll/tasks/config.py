"""What a person may say of tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unroll.registry import register, require


@register("task", "train", builds="unroll.tasks.train:train")
@register("task", "sample", builds="unroll.tasks.sample:sample")
@register("task", "evaluate", builds="unroll.tasks.evaluate:evaluate")
@dataclass(frozen=True)
class TaskConfig:
    name: str


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
