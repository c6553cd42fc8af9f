"""The cells in plain PyTorch, equation by equation.

Their weights have the names of PyTorch's modules, so that each implementation can load the
other's weights. The tests check that both give equal outputs, states and gradients. Gates have the
letters of PyTorch's documentation: i, f, g, o in the LSTM; r, z, n in the GRU.
"""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from unroll.models.config import GRUConfig, LSTMConfig, RecurrentConfig, RNNConfig
from unroll.models.dropout import dropout
from unroll.models.mogrifier import Mogrifier, Product, mogrified
from unroll.models.recurrent import GRU, LSTM, RNN, State
from unroll.models.stacks import narrowed, norms_between, widened

Config = TypeVar("Config", bound=RecurrentConfig)


class Layers(nn.Module, Generic[Config]):
    """A stack of recurrent layers, unrolled step by step. A subclass defines ``step``."""

    gates: int
    """Number of matrices ``(hidden, hidden)`` that W_hh stacks."""

    def __init__(self, config: Config, input_size: int) -> None:
        super().__init__()
        self.config, self.hidden_size = config, config.hidden_size
        self.directions = ("", "_reverse") if config.bidirectional else ("",)
        for layer, size in enumerate(config.sizes):
            bound = 1 / math.sqrt(size)  # PyTorch's own initialisation
            width = input_size if layer == 0 else config.hidden_size * len(self.directions)
            rows = self.gates * size
            for end in self.directions:
                for name, shape in (
                    ("weight_ih", (rows, width)),
                    ("weight_hh", (rows, size)),
                    ("bias_ih", (rows,)),
                    ("bias_hh", (rows,)),
                ):
                    values = torch.empty(shape).uniform_(-bound, bound)
                    self.register_parameter(f"{name}_l{layer}{end}", nn.Parameter(values))

        width = config.hidden_size * len(self.directions)
        self.norms = norms_between(config.layers, width, config.layer_norm)
        self.mogrifier: Mogrifier | None = None

    def step(self, inputs: Tensor, state: Any, recurrent: Tensor, bias: Tensor) -> Any:
        """The next state of one layer.

        ``inputs (batch, gates * hidden)`` is W_ih x_t + b_ih, ``recurrent`` is W_hh, ``bias`` b_hh,
        which is zero with model.bias=single.
        """
        raise NotImplementedError

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """``(batch, time, input)`` to ``(batch, time, width)`` and the state after it."""
        parts = state if isinstance(state, tuple) else (state,)
        ends = []
        for layer in range(self.config.layers):
            below, sides = inputs, []
            if layer:
                inputs = self.norms[layer - 1](inputs) if self.norms else inputs
                over = 1 if self.config.one_mask else None
                inputs = dropout(inputs, self.config.dropout, self.training, over)
            for side, end in enumerate(self.directions):
                weights = [
                    getattr(self, f"{name}_l{layer}{end}")
                    for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
                ]
                place, size = layer * len(self.directions) + side, self.config.sizes[layer]
                now = [narrowed(part[place], size) for part in parts]
                rounds = self.mogrifier.rounds(place, product_with) if self.mogrifier else []
                outputs, now = self._unroll(inputs, now, rounds, *weights, backwards=bool(end))
                sides.append(outputs)
                ends.append([widened(part, parts[0].shape[-1]) for part in now])
            inputs = torch.cat(sides, dim=-1)
            if layer and self.config.residual:
                inputs = inputs + below
        after = tuple(torch.stack(part) for part in zip(*ends, strict=True))
        return inputs, after if isinstance(state, tuple) else after[0]

    def _unroll(
        self,
        inputs: Tensor,
        state: list[Tensor],
        rounds: list[list[Product]],
        input_weight: Tensor,
        input_bias: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        *,
        backwards: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        projected = inputs if rounds else inputs @ input_weight.T + input_bias
        recurrent = dropout(recurrent, self.config.weight_dropout, self.training)
        times = range(inputs.shape[1])
        outputs: dict[int, Tensor] = {}
        for time in reversed(times) if backwards else times:
            given = projected[:, time]
            if rounds:
                x, hidden = mogrified(given, state[0], rounds)
                given, state = x @ input_weight.T + input_bias, [hidden, *state[1:]]
            state = self.step(given, state, recurrent, bias)
            outputs[time] = state[0]
        return torch.stack([outputs[time] for time in times], dim=1), state


def product_with(matrix: Tensor) -> Product:
    """The product of rows with a matrix."""
    return lambda rows: rows @ matrix.T


class RNNLayers(Layers[RNNConfig]):
    gates = 1

    def step(
        self, inputs: Tensor, state: list[Tensor], recurrent: Tensor, bias: Tensor
    ) -> list[Tensor]:
        (hidden,) = state
        activation = torch.tanh if self.config.nonlinearity == "tanh" else torch.relu
        return [activation(inputs + hidden @ recurrent.T + bias)]


class LSTMLayers(Layers[LSTMConfig]):
    gates = 4

    def step(
        self, inputs: Tensor, state: list[Tensor], recurrent: Tensor, bias: Tensor
    ) -> list[Tensor]:
        hidden, memory = state
        i, f, g, o = (inputs + hidden @ recurrent.T + bias).chunk(4, dim=-1)
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        return [torch.sigmoid(o) * torch.tanh(memory), memory]


class GRULayers(Layers[GRUConfig]):
    gates = 3

    def step(
        self, inputs: Tensor, state: list[Tensor], recurrent: Tensor, bias: Tensor
    ) -> list[Tensor]:
        (hidden,) = state
        r_in, z_in, n_in = inputs.chunk(3, dim=-1)
        r_hidden, z_hidden, n_hidden = (hidden @ recurrent.T + bias).chunk(3, dim=-1)
        r = torch.sigmoid(r_in + r_hidden)
        z = torch.sigmoid(z_in + z_hidden)
        n = torch.tanh(n_in + r * n_hidden)
        return [(1 - z) * n + z * hidden]


class ScratchRNN(RNN):
    """The simple recurrent network in plain PyTorch."""

    def make(self, config: RNNConfig, input_size: int) -> nn.Module:
        return RNNLayers(config, input_size)


class ScratchLSTM(LSTM):
    """Long short-term memory in plain PyTorch."""

    def make(self, config: LSTMConfig, input_size: int) -> nn.Module:
        return LSTMLayers(config, input_size)


class ScratchGRU(GRU):
    """The gated recurrent unit in plain PyTorch."""

    def make(self, config: GRUConfig, input_size: int) -> nn.Module:
        return GRULayers(config, input_size)
