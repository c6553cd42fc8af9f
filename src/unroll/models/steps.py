"""A step of each cell, from its two products; gates have the letters of PyTorch's documentation."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from unroll.models.config import RecurrentConfig, RNNConfig

Step = Callable[[Tensor, Tensor, list[Tensor]], list[Tensor]]
"""W_ih x + b_ih, W_hh h + b_hh ``(batch, gates * hidden)`` and the parts of the state ``(batch,
hidden)``, h first, to those of the next state."""


def lstm(inputs: Tensor, recurrent: Tensor, state: list[Tensor]) -> list[Tensor]:
    i, f, g, o = (inputs + recurrent).chunk(4, dim=-1)
    memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return [o.sigmoid() * memory.tanh(), memory]


def gru(inputs: Tensor, recurrent: Tensor, state: list[Tensor]) -> list[Tensor]:
    (r_in, z_in, n_in), (r, z, n) = inputs.chunk(3, dim=-1), recurrent.chunk(3, dim=-1)
    new = (n_in + (r_in + r).sigmoid() * n).tanh()
    return [new + (z_in + z).sigmoid() * (state[0] - new)]


STEPS: dict[str, Step] = {
    "tanh": lambda inputs, recurrent, _: [(inputs + recurrent).tanh()],
    "relu": lambda inputs, recurrent, _: [(inputs + recurrent).relu()],
    "lstm": lstm,
    "gru": gru,
}
"""By cell; the RNN's by its nonlinearity."""


def step_of(config: RecurrentConfig) -> Step:
    """The step of the cell of a config."""
    return STEPS[config.nonlinearity if isinstance(config, RNNConfig) else config.name]
