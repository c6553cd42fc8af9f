"""What a person may say of scoring."""

from __future__ import annotations

from dataclasses import dataclass

from unroll.errors import require, require_one_of
from unroll.registry import register_schema

PROTOCOLS = ("stream", "document", "last", "window", "handout")


@dataclass(frozen=True)
class EvaluationConfig:
    protocol: str
    """stream: state carried through the split; document: fresh at each document; last: the
    same, scoring only its last token; window: at most `context` tokens before each; handout: the
    lab's own loop."""
    context: int
    """Tokens before the scored one, for window and handout."""
    split: str
    """The split that `task=evaluate` scores."""
    text: str | None
    """A text file to score instead of a split."""
    batch_size: int
    """Rows read at once, where rows are independent. Memory, not results, depends on it."""
    gradient_steps: int | None
    """Steps back over which a training measures the gradient's flow, before it and after; null:
    not at all."""

    def __post_init__(self) -> None:
        require_one_of("evaluation.protocol", self.protocol, PROTOCOLS)
        require_one_of("evaluation.split", self.split, ("train", "valid", "test"))
        for key in ("context", "batch_size"):
            value = getattr(self, key)
            require(value >= 1, f"evaluation.{key}={value}: at least 1")
        require(
            self.gradient_steps is None or self.gradient_steps >= 1,
            f"evaluation.gradient_steps={self.gradient_steps}: at least 1 (or null for none)",
        )


register_schema("evaluation", "default", EvaluationConfig)
