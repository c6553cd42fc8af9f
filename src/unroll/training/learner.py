"""What every way of training has in common: its callbacks and its outcome."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from unroll.evaluation.perplexity import Score

WARM_UP_STEPS = 10
"""First optimizer steps that do not count for the speed: kernels, caches and memory settle."""

History = dict[str, list[tuple[int, float]]]
"""Curves by name: points of optimizer step and value."""


class Callbacks(Protocol):
    """What a learner calls while it trains."""

    @property
    def log_every(self) -> int:
        """Optimizer steps between two points of the training curves."""

    def validate(self) -> Score | None:
        """The score of the validation split; None if the corpus has none."""

    def save(self, name: str, step: int) -> None:
        """Write the model as checkpoint ``name``, which is "best" or "last"."""

    def keep_state(self, state: Mapping[str, Any], step: int) -> None:
        """Copy the state of the training and write it in the background, so that it can go on
        from here."""

    def state_kept(self) -> None:
        """Wait until the last state is on disk."""

    def log(self, figures: dict[str, float], step: int) -> None:
        """Add a point to each of these curves."""

    def should_stop(self, loss: float, validation: int) -> bool:
        """Whether the training is to stop, because others were better at this validation.

        Args:
            loss: of the validation split, in nats per token.
            validation: its number, from 1.
        """


class Silent:
    """Callbacks that validate nothing, keep nothing and never stop a training: of one that is only
    timed, and the base of others."""

    @property
    def log_every(self) -> int:
        return 10

    def validate(self) -> Score | None:
        return None

    def save(self, name: str, step: int) -> None:
        pass

    def keep_state(self, state: Mapping[str, Any], step: int) -> None:
        pass

    def state_kept(self) -> None:
        pass

    def log(self, figures: dict[str, float], step: int) -> None:
        pass

    def should_stop(self, loss: float, validation: int) -> bool:
        return False


class Learner(Protocol):
    """Trains a model, by gradient descent or by counting."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that was given to ``Callbacks.keep_state``."""

    def fit(self) -> Outcome:
        """Train until the end.

        Raises:
            Diverged: the loss or the gradient is NaN or infinite.
        """


class Speed(NamedTuple):
    """Targets a second over the steps of a training; NaN without a step."""

    median: float
    lower_quartile: float
    upper_quartile: float


@dataclass
class Outcome:
    """The result of a training, or of the part done so far."""

    epochs: float = 0.0
    """Epochs done; the last one may be a fraction."""
    steps: int = 0
    """Optimizer steps."""
    tokens: int = 0
    """Targets trained on."""
    skipped: int = 0
    """Steps that moved nothing, because the loss or the gradient was NaN or infinite."""
    seconds: float = 0.0
    """Time of the training steps, without validation."""
    train_loss: float = math.nan
    """Mean loss in nats per target over the last epoch (or the done part of it)."""
    best_valid: Score | None = None
    best_step: int = 0
    interrupted: bool = False
    pruned: bool = False
    """Stopped before its end by ``Callbacks.should_stop``."""
    history: History = field(default_factory=dict)
    step_seconds: array[float] = field(default_factory=lambda: array("f"))
    """Duration of each step; 4 bytes a step."""
    step_tokens: array[int] = field(default_factory=lambda: array("i"))
    """Targets of each step; 4 bytes a step."""

    def add_step(self, seconds: float, tokens: int) -> None:
        """Count one optimizer step of ``tokens`` targets."""
        self.steps += 1
        self.tokens += tokens
        self.seconds += seconds
        self.step_seconds.append(seconds)
        self.step_tokens.append(tokens)

    def add_wait(self, seconds: float, steps: int) -> None:
        """Add the time that the host waited for the device to end the last ``steps`` steps: what
        it spends on a step alone is only the time to queue it."""
        self.seconds += seconds
        for place in range(-steps, 0):
            self.step_seconds[place] += seconds / steps

    def add_point(self, figures: Mapping[str, float]) -> None:
        """Add a point at the current step to each of these curves."""
        for name, value in figures.items():
            self.history.setdefault(name, []).append((self.steps, value))

    @property
    def tokens_per_second(self) -> float:
        """Targets a second over all steps; 0 without a step."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def speed(self) -> Speed:
        """Median and quartiles over the steps after the first ``WARM_UP_STEPS``, or over the
        second half of a training that is shorter than twice that."""
        if not self.steps:
            return Speed(math.nan, math.nan, math.nan)
        first = min(WARM_UP_STEPS, len(self.step_seconds) // 2)
        seconds = np.array(self.step_seconds[first:], dtype=np.float64)
        rates = np.array(self.step_tokens[first:]) / np.maximum(seconds, 1e-9)
        lower, median, upper = np.quantile(rates, [0.25, 0.5, 0.75]).tolist()
        return Speed(median, lower, upper)

    def state_dict(self) -> dict[str, Any]:
        """All fields as numbers, strings, lists, dicts and tensors."""
        times = {
            "step_seconds": torch.from_numpy(np.array(self.step_seconds)),
            "step_tokens": torch.from_numpy(np.array(self.step_tokens)),
        }
        return asdict(self) | times

    @classmethod
    def from_state_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """The outcome that ``state_dict`` describes."""
        best = values["best_valid"]
        rebuilt = {
            "best_valid": None if best is None else Score(**best),
            "history": {name: list(points) for name, points in values["history"].items()},
            "step_seconds": array("f", values["step_seconds"].tolist()),
            "step_tokens": array("i", values["step_tokens"].tolist()),
        }
        return cls(**{**values, **rebuilt})
