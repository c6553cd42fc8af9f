"""Truncation of back-propagation through time: how far a gradient goes back in a sequence.

    full     1 2 3 4 5 6        the gradient at 6 reaches every step before it
    fixed    1 2 3|4 5 6        cut every 3 steps: it reaches back to 4
    random   1 2|3 4 5 6        cut at random; a gradient that passes is scaled up

A sequence is read in pieces that end where it may be cut, each piece by the cell's own fast
kernel. The forward pass is the same for every truncation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unroll.data.batching import ALL_ROWS, Share, moved
from unroll.models.language_model import LanguageModel
from unroll.models.recurrent import State
from unroll.training.config import FixedConfig, FullConfig, RandomConfig


class Truncation(Protocol):
    """Reads a sequence and limits how far the gradient goes back."""

    def unroll(
        self, model: LanguageModel, inputs: Tensor, state: State, share: Share = ALL_ROWS
    ) -> tuple[Tensor, State]:
        """Ids ``(batch, time)`` to hidden ``(batch, time, width)`` and the state after them.
        ``inputs`` are the rows ``share`` of a batch."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be restored to continue exactly."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Full:
    """Back through the whole sequence."""

    def __init__(self, config: FullConfig, seed: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def unroll(
        self, model: LanguageModel, inputs: Tensor, state: State, share: Share = ALL_ROWS
    ) -> tuple[Tensor, State]:
        hidden: Tensor
        hidden, state = model(inputs, state)
        return hidden, state


class Fixed(Full):
    """The state is detached every ``steps`` steps (Williams and Peng 1990)."""

    def __init__(self, config: FixedConfig, seed: int) -> None:
        self.steps = config.steps

    def unroll(
        self, model: LanguageModel, inputs: Tensor, state: State, share: Share = ALL_ROWS
    ) -> tuple[Tensor, State]:
        pieces = []
        for piece in torch.split(inputs, self.steps, dim=1):
            hidden, state = model(piece, model.detach(state))
            pieces.append(hidden)
        return torch.cat(pieces, dim=1), state


class Random:
    """Between two pieces the gradient of each row is multiplied by its own xi: 0 with
    probability 1 - keep, else 1 / keep. Its expectation is the full gradient
    (Tallec and Ollivier 2017; d2l, section 8.7.1.3)."""

    def __init__(self, config: RandomConfig, seed: int) -> None:
        self.every, self.keep = config.every, config.keep
        self.generator = np.random.default_rng([seed, 0xB077])

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.bit_generator.state = state["generator"]

    def unroll(
        self, model: LanguageModel, inputs: Tensor, state: State, share: Share = ALL_ROWS
    ) -> tuple[Tensor, State]:
        first, *others = torch.split(inputs, self.every, dim=1)
        hidden, state = model(first, state)
        pieces = [hidden]
        for piece in others:
            drawn = self.draw(share.of or len(inputs))[share.rows]  # the same in each process
            factors = moved(drawn.to(hidden.dtype), hidden.device)
            hidden, state = model(piece, model.scale_gradient(state, factors))
            pieces.append(hidden)
        return torch.cat(pieces, dim=1), state

    def draw(self, rows: int) -> Tensor:
        """xi of every row, ``(rows,)``."""
        return torch.from_numpy((self.generator.random(rows) < self.keep) / self.keep)
