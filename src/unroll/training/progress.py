"""How far a training is: its position in the data and the sums it has not logged yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from unroll.evaluation.perplexity import perplexity
from unroll.models.recurrent import State


@dataclass
class Mean:
    """The mean of losses, each weighted by its number of targets."""

    total: float = 0.0
    count: int = 0

    def add(self, loss: float, count: int) -> None:
        self.total += loss * count
        self.count += count

    @property
    def value(self) -> float:
        """NaN before the first loss."""
        return self.total / self.count if self.count else math.nan


@dataclass(frozen=True)
class Step:
    """An optimizer step as it is queued on the device: to read a number of it is to wait for it."""

    losses: list[Tensor]
    """Mean loss of each of its batches, ``()``."""
    counts: list[int]
    """Targets of each of its batches."""
    grad_norm: Tensor
    """Before clipping, ``()``."""
    learning_rate: float


@dataclass
class Pending:
    """The steps since the last point of the training curves."""

    loss: Mean = field(default_factory=Mean)
    grad_norm: float = math.nan
    """Norm before clipping, of the last step."""
    grad_norm_max: float = 0.0
    """The largest of these norms."""
    learning_rate: float = math.nan
    """Of the last step."""

    def add(self, loss: Mean, grad_norm: float, learning_rate: float) -> None:
        self.loss.add(loss.value, loss.count)
        self.grad_norm, self.learning_rate = grad_norm, learning_rate
        self.grad_norm_max = max(self.grad_norm_max, grad_norm)

    def figures(self) -> dict[str, float]:
        """The point: the loss is the mean over the steps."""
        return {
            "train/loss": self.loss.value,
            "train/perplexity": perplexity(self.loss.value),
            "grad_norm": self.grad_norm,
            "grad_norm_max": self.grad_norm_max,
            "learning_rate": self.learning_rate,
        }


@dataclass
class Progress:
    """Where a training is between two optimizer steps."""

    epoch: int = 0
    """Whole epochs done."""
    steps: int = 0
    """Optimizer steps done in the current epoch."""
    state: State = None
    """Recurrent state after the last batch, detached from the graph; None before the first."""
    epoch_loss: Mean = field(default_factory=Mean)
    """Over the steps of the current epoch."""
    pending: Pending = field(default_factory=Pending)
    validated_at: int = 0
    """Optimizer step of the last validation."""
    reached: float = math.inf
    """Validation loss from which ``training.min_gain`` is counted."""
    waited: int = 0
    """Validations since then."""

    def state_dict(self) -> dict[str, Any]:
        """All fields as numbers, dicts, tuples and tensors; a copy."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The progress that ``state_dict`` describes."""
        pending = values["pending"]
        rebuilt = {
            "epoch_loss": Mean(**values["epoch_loss"]),
            "pending": Pending(**{**pending, "loss": Mean(**pending["loss"])}),
        }
        return cls(**{**values, **rebuilt})
