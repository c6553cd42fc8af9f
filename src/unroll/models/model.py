"""The interface of a model that scoring and sampling use: recurrent or counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Softmax(Protocol):
    """Hidden vectors to probabilities of the next token."""

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[float, float]:
        """Sum of ``-log p(target)`` in nats of ``targets (n,)`` given ``hidden (n, width)``, and
        the number of targets that are top-1 correct; NaN where that is not known."""

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to log p in nats, ``(..., vocabulary)``."""

    def logits(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to ``(..., vocabulary)``: numbers whose softmax is the distribution.
        A softmax that is not computed from one set of logits gives its log-probabilities."""

    def draw(
        self, hidden: Tensor, temperature: float, never: int, generator: torch.Generator
    ) -> Tensor:
        """One token for each row of ``hidden (n, width)``, ``(n,)``, drawn with probability
        proportional to p^(1/temperature) among the ids from ``never`` on; ``never`` itself where
        none of them has any. The generator is on the device of ``hidden``."""

    def drawing(self) -> AbstractContextManager[None]:
        """A context within which ``draw`` is called many times and the weights stay as they are."""


class TrainableSoftmax(Softmax, Protocol):
    """What the group ``model/softmax`` builds: an ``nn.Module``, made with ``(config, width,
    vocabulary_size, precision, tied)``. Its weights are known by name only in its own module, and
    in checkpoints."""

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats, float32, of ``targets (n,)`` given ``hidden (n, width)``."""

    def replace_linear(self, replacement: Callable[[str], nn.Module]) -> None:
        """Replace each linear layer by ``replacement(name)``, which has the same inputs and
        outputs; ``name`` is its name within this module."""


class Model(Protocol):
    """Reads ids with a state and gives a hidden vector for each. Hidden vectors and states have a
    meaning only for the model itself."""

    training: bool

    @property
    def softmax(self) -> Softmax: ...

    @property
    def bidirectional(self) -> bool: ...

    @property
    def parameter_count(self) -> int:
        """Numbers that training sets: weights, or the entries of the tables of counts."""

    @property
    def device(self) -> torch.device: ...

    def __call__(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Ids ``(batch, time)`` and a state to hidden ``(batch, time, width)`` and the next."""

    def initial_state(self, batch: int) -> Any:
        """The state before the first token, for ``batch`` rows."""

    def select(self, state: Any, rows: Tensor) -> Any:
        """The state of these rows."""

    def join(self, states: Sequence[Any]) -> Any:
        """The state of the rows of all these states, one state after the other."""

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...
