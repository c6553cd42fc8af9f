"""Config of scoring."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unroll.errors import require, require_one_of
from unroll.registry import register_schema

PROTOCOLS = ("stream", "document", "last", "window", "handout")
RULES = ("rms", "sgd")


@dataclass(frozen=True)
class DynamicConfig:
    """Dynamic evaluation (Krause et al. 2018): after each segment is scored, the weights take a
    step that makes it likelier. The trained weights come back at the end."""

    learning_rate: float | None
    """null: off."""
    rule: str
    """rms: each gradient is divided by its root mean square over the training split; sgd: it is
    not."""
    decay: float
    """Share of the way back to the trained weights at each step; with rms weighted by the root mean
    square, as in the paper."""
    epsilon: float
    """Added to the root mean square."""
    segment: int
    """Tokens that are scored before each step."""

    def __post_init__(self) -> None:
        rate = self.learning_rate
        require(
            rate is None or 0 < rate < math.inf,
            f"evaluation.dynamic.learning_rate={rate}: must be above 0 and finite, or null for off",
        )
        require_one_of("evaluation.dynamic.rule", self.rule, RULES)
        require(
            0 <= self.decay <= 1,
            f"evaluation.dynamic.decay={self.decay}: must be from 0 to 1",
        )
        require(
            0 < self.epsilon < math.inf,
            f"evaluation.dynamic.epsilon={self.epsilon}: must be above 0 and finite",
        )
        require(
            self.segment >= 1,
            f"evaluation.dynamic.segment={self.segment}: must be at least 1",
        )


@dataclass(frozen=True)
class CacheConfig:
    """A neural cache (Grave et al. 2017): a token is likelier if it followed hidden vectors like
    the present one."""

    size: int | None
    """Tokens that are remembered; null: off."""
    theta: float
    """Factor of the products of hidden vectors; 0: all that is remembered counts the same, as an
    n-gram model needs it."""
    weight: float
    """Share of the cache in the probability (lambda of the paper)."""

    def __post_init__(self) -> None:
        require(
            self.size is None or self.size >= 1,
            f"evaluation.cache.size={self.size}: must be at least 1, or null for off",
        )
        require(
            0 <= self.theta < math.inf,
            f"evaluation.cache.theta={self.theta}: must be at least 0 and finite",
        )
        require(
            0 < self.weight < 1,
            f"evaluation.cache.weight={self.weight}: must be above 0 and below 1 (for no cache, "
            "set evaluation.cache.size=null)",
        )


@dataclass(frozen=True)
class EvaluationConfig:
    protocol: str
    """stream: the state is carried through the split; document: the state starts fresh at each
    document; last: the same, but only the last token of a document is scored; window: at most
    `context` tokens before each scored token; handout: the lab's own loop."""
    context: int
    """Tokens before the scored one, in window and handout."""
    contexts: list[int] | None
    """In `task=evaluate`: numbers of tokens, ascending. The same tokens are scored with their
    context cut to each of them, then with all of it; null: not."""
    context_tokens: int
    """How many tokens are scored so, at most."""
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

    dynamic: DynamicConfig
    cache: CacheConfig
    mixture: list[str]
    """Runs whose probabilities are mixed with those of the model: run ids, names, or paths."""
    mixture_weights: list[float] | None
    """Share of the model, then of each run in `mixture`; null: those that give the validation split
    the highest probability."""

    free_text = ("text",)

    @property
    def adaptation(self) -> str:
        """What changes the probabilities of a model when a test score is taken, such as
        ``cache_and_mixture``; empty where nothing does."""
        parts = {
            "dynamic": self.dynamic.learning_rate is not None,
            "cache": self.cache.size is not None,
            "mixture": self.mixes,
        }
        return "_and_".join(name for name, wanted in parts.items() if wanted)

    @property
    def mixes(self) -> bool:
        return len(self.mixture) > 0

    def __post_init__(self) -> None:
        require_one_of("evaluation.protocol", self.protocol, PROTOCOLS)
        require_one_of("evaluation.split", self.split, ("train", "valid", "test"))
        for key in ("context", "context_tokens", "rows"):
            value = getattr(self, key)
            require(value >= 1, f"evaluation.{key}={value}: must be at least 1")
        contexts = self.contexts
        require(
            contexts is None
            or (len(contexts) > 0 and contexts[0] >= 1 and sorted(set(contexts)) == contexts),
            f"evaluation.contexts={contexts}: must be integers of at least 1, each larger than the "
            "one before, or null for none",
        )
        require(
            contexts is None or (self.protocol == "stream" and not self.adaptation),
            f"evaluation.contexts={contexts} needs evaluation.protocol=stream and a model that "
            "does not adapt: leave out evaluation.dynamic, evaluation.cache and "
            "evaluation.mixture, or set evaluation.contexts=null",
        )
        require(
            self.gradient_steps is None or self.gradient_steps >= 1,
            f"evaluation.gradient_steps={self.gradient_steps}: must be at least 1 (or null for "
            "none)",
        )
        require(
            self.protocol == "stream" or not self.adaptation,
            f"evaluation.protocol={self.protocol} does not carry what was read through the split, "
            "as evaluation.dynamic, evaluation.cache and evaluation.mixture need it: set "
            "evaluation.protocol=stream",
        )
        require(
            len(set(self.mixture)) == len(self.mixture),
            f"evaluation.mixture={self.mixture} has a duplicate: remove it",
        )
        shares = self.mixture_weights
        require(
            shares is None
            or (
                (self.mixes and len(shares) == len(self.mixture) + 1)
                and min(shares) >= 0
                and math.isclose(sum(shares), 1, abs_tol=1e-6)
            ),
            f"evaluation.mixture_weights={shares}: expected a share of the model and one of each "
            f"run in evaluation.mixture ({len(self.mixture)}), which add up to 1, or null",
        )


register_schema("evaluation", "default", EvaluationConfig)
register_schema("evaluation/dynamic", "default", DynamicConfig)
register_schema("evaluation/cache", "default", CacheConfig)
