"""What a person may say of tasks."""

from __future__ import annotations

from dataclasses import dataclass

from unroll.registry import register, require


@register("task", "train", builds="unroll.tasks.train:train")
@register("task", "sample", builds="unroll.tasks.sample:sample")
@register("task", "evaluate", builds="unroll.tasks.evaluate:evaluate")
@dataclass(frozen=True)
class TaskConfig:
    name: str


@register("task", "describe", builds="unroll.tasks.describe:describe")
@dataclass(frozen=True)
class DescribeConfig(TaskConfig):
    """Statistics of the text and the parameters of the model."""

    window: int
    """Tokens that the lab's task reads before it predicts one, whatever `data/batching` is."""

    def __post_init__(self) -> None:
        require(self.window >= 1, f"task.window={self.window}: at least one token")
