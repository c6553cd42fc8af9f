"""What scoring and sampling ask of a model, however it came by its probabilities."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Softmax(Protocol):
    """Hidden vectors to probabilities of the next token."""

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[float, float]:
        """Sum of ``-log p(target)`` in nats of ``targets (n,)`` given ``hidden (n, width)``, and
        how many of them were the likeliest token; nan where that is not known."""

    def logits(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to ``(..., vocabulary)``."""


class Model(Protocol):
    """Reads ids with a state, and gives a hidden vector for each; both mean something only to
    the model itself."""

    training: bool

    @property
    def softmax(self) -> Softmax: ...

    @property
    def bidirectional(self) -> bool: ...

    @property
    def parameter_count(self) -> int:
        """Numbers that training sets: weights, or what counting has filled in."""

    @property
    def device(self) -> torch.device: ...

    def __call__(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Ids ``(batch, time)`` and a state to hidden ``(batch, time, width)`` and the next."""

    def initial_state(self, batch: int) -> Any:
        """The state before the first token, for ``batch`` rows."""

    def select(self, state: Any, rows: Tensor) -> Any:
        """The state of these rows."""

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...
