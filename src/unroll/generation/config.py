"""Config of sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from unroll.errors import require
from unroll.registry import register_schema


@dataclass(frozen=True)
class SamplingConfig:
    prefix: Any
    """A text or a list of texts to continue; null: the first words of test documents."""
    prefix_length: int
    """Tokens in a default prefix."""
    prefix_documents: int
    """Number of default prefixes, each from another test document."""
    samples: int
    """Continuations of each prefix, drawn in one batch."""
    length: int
    """Tokens in a continuation."""
    temperature: float
    """Logits are divided by it."""
    greedy: bool
    """Take the most likely token instead of drawing one."""
    top_k: int | None
    """Draw among the k most likely tokens (Fan et al. 2018)."""
    top_p: float | None
    """Draw among the most likely tokens that together have this probability (Holtzman et al.
    2020)."""
    stop: str | None
    """A token that ends a continuation."""
    allow_special: bool
    """Whether `<unk>`, `<pad>` and `<bos>` may be drawn. If not, the probabilities of the other
    tokens are renormalised, before `top_k` and `top_p`. `<eos>` may always be drawn."""
    seed: int

    free_text = ("prefix", "stop")

    def __post_init__(self) -> None:
        for key in ("prefix_length", "prefix_documents", "samples", "length"):
            value = getattr(self, key)
            require(value >= 1, f"sampling.{key}={value} must be at least 1")
        require(self.seed >= 0, f"sampling.seed={self.seed} must be at least 0")
        require(
            self.temperature > 0 and math.isfinite(self.temperature),
            f"sampling.temperature={self.temperature} must be above 0 and finite; for the most "
            "likely token use sampling.greedy=true",
        )
        require(
            self.top_k is None or self.top_k >= 1, f"sampling.top_k={self.top_k} must be at least 1"
        )
        require(
            self.top_p is None or 0 < self.top_p <= 1,
            f"sampling.top_p={self.top_p} must be above 0 and at most 1",
        )
        listed = self.prefix if isinstance(self.prefix, list) else [self.prefix]
        for prefix in listed if self.prefix is not None else []:
            require(
                str(prefix).strip(),
                f"sampling.prefix={str(prefix)!r} is empty: give at least one word, or leave it "
                "out to use the first words of the test documents",
            )

    @property
    def prefixes(self) -> list[str] | None:
        """The given prefixes, or None for the default ones."""
        if self.prefix is None:
            return None
        return [
            str(text) for text in (self.prefix if isinstance(self.prefix, list) else [self.prefix])
        ]


register_schema("sampling", "default", SamplingConfig)
