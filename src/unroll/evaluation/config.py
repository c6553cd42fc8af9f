"""Config of scoring."""

from __future__ import annotations

from dataclasses import dataclass

from unroll.errors import require, require_one_of
from unroll.registry import register_schema

PROTOCOLS = ("stream", "document", "last", "window", "handout")


@dataclass(frozen=True)
class EvaluationConfig:
    protocol: str
    """stream: the state is carried through the split; document: the state starts fresh at each
    document; last: the same, but only the last token of a document is scored; window: at most
    `context` tokens before each scored token; handout: the lab's own loop."""
    context: int
    """Tokens before the scored one, in window and handout."""
    split: str
    """The split that `task=evaluate` scores."""
    text: str | None
    """A text file to score instead of a split."""
    rows: int
    """Rows read side by side, at most. In stream they are columns of the split, whose states are
    warmed up on the text before them: within 1e-4 nats per token of one row, which is exact.
    Elsewhere it changes memory, not results."""
    gradient_steps: int | None
    """Steps back over which gradient norms are measured before and after training; null: not
    measured."""

    free_text = ("text",)

    def __post_init__(self) -> None:
        require_one_of("evaluation.protocol", self.protocol, PROTOCOLS)
        require_one_of("evaluation.split", self.split, ("train", "valid", "test"))
        for key in ("context", "rows"):
            value = getattr(self, key)
            require(value >= 1, f"evaluation.{key}={value}: must be at least 1")
        require(
            self.gradient_steps is None or self.gradient_steps >= 1,
            f"evaluation.gradient_steps={self.gradient_steps}: must be at least 1 (or null for "
            "none)",
        )


register_schema("evaluation", "default", EvaluationConfig)
