"""What a person may say of tasks."""

from __future__ import annotations

from dataclasses import dataclass

from unroll.registry import register


@register("task", "train", builds="unroll.tasks.train:train")
@register("task", "sample", builds="unroll.tasks.sample:sample")
@register("task", "evaluate", builds="unroll.tasks.evaluate:evaluate")
@dataclass(frozen=True)
class TaskConfig:
    name: str
