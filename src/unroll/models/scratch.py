"""The cells written out, equation by equation, as a reader would write them from a paper.

They hold their weights under the names of PyTorch's modules, so that either can load the other's,
and they are the oracle of the fast ones: equal in outputs, states and gradients.
"""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.models.config import GRUConfig, LSTMConfig, RecurrentConfig, RNNConfig
from unroll.models.recurrent import GRU, LSTM, RNN, State

Config = TypeVar("Config", bound=RecurrentConfig)


class Layers(nn.Module, Generic[Config]):
    """Recurrent layers one above the other, unrolled step by step.

    A subclass says how many ``gates`` its matrices stack and gives the ``step``.
    """

    gates: int

    def __init__(self, config: Config, input_size: int) -> None:
        super().__init__()
        self.config, self.hidden_size = config, config.hidden_size
        self.directions = ("", "_reverse") if config.bidirectional else ("",)
        bound = 1 / math.sqrt(config.hidden_size)  # PyTorch's own initialisation
        for layer in range(config.layers):
            width = input_size if layer == 0 else config.hidden_size * len(self.directions)
            rows = self.gates * config.hidden_size
            for end in self.directions:
                for name, shape in (
                    ("weight_ih", (rows, width)),
                    ("weight_hh", (rows, config.hidden_size)),
                    ("bias_ih", (rows,)),
                    ("bias_hh", (rows,)),
                ):
                    values = torch.empty(shape).uniform_(-bound, bound)
                    self.register_parameter(f"{name}_l{layer}{end}", nn.Parameter(values))

    def step(self, inputs: Tensor, state: Any, recurrent: nn.Parameter, bias: nn.Parameter) -> Any:
        """The next state of one layer.

        ``inputs (batch, gates * hidden)`` is W_ih x_t + b_ih, ``recurrent`` is W_hh, ``bias`` b_hh.
        """
        raise NotImplementedError

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """``(batch, time, input)`` to ``(batch, time, width)`` and the state after it."""
        parts = state if isinstance(state, tuple) else (state,)
        ends = []
        for layer in range(self.config.layers):
            sides = []
            for side, end in enumerate(self.directions):
                weights = [
                    getattr(self, f"{name}_l{layer}{end}")
                    for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
                ]
                now = [part[layer * len(self.directions) + side] for part in parts]
                outputs, now = self._unroll(inputs, now, *weights, backwards=bool(end))
                sides.append(outputs)
                ends.append(now)
            inputs = torch.cat(sides, dim=-1)
            if layer + 1 < self.config.layers:
                inputs = F.dropout(inputs, self.config.dropout, self.training)
        after = tuple(torch.stack(part) for part in zip(*ends, strict=True))
        return inputs, after if isinstance(state, tuple) else after[0]

    def _unroll(
        self,
        inputs: Tensor,
        state: list[Tensor],
        input_weight: nn.Parameter,
        input_bias: nn.Parameter,
        recurrent: nn.Parameter,
        bias: nn.Parameter,
        *,
        backwards: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        projected = inputs @ input_weight.T + input_bias
        times = range(inputs.shape[1])
        outputs: dict[int, Tensor] = {}
        for time in reversed(times) if backwards else times:
            state = self.step(projected[:, time], state, recurrent, bias)
            outputs[time] = state[0]
        return torch.stack([outputs[time] for time in times], dim=1), state


class RNNLayers(Layers[RNNConfig]):
    gates = 1

    def step(
        self, inputs: Tensor, state: list[Tensor], recurrent: nn.Parameter, bias: nn.Parameter
    ) -> list[Tensor]:
        (hidden,) = state
        bend = torch.tanh if self.config.nonlinearity == "tanh" else torch.relu
        return [bend(inputs + hidden @ recurrent.T + bias)]


class LSTMLayers(Layers[LSTMConfig]):
    gates = 4

    def step(
        self, inputs: Tensor, state: list[Tensor], recurrent: nn.Parameter, bias: nn.Parameter
    ) -> list[Tensor]:
        hidden, memory = state
        sums = inputs + hidden @ recurrent.T + bias
        write, keep, new, show = sums.chunk(4, dim=-1)  # i, f, g, o in the paper's letters
        memory = torch.sigmoid(keep) * memory + torch.sigmoid(write) * torch.tanh(new)
        return [torch.sigmoid(show) * torch.tanh(memory), memory]


class GRULayers(Layers[GRUConfig]):
    gates = 3

    def step(
        self, inputs: Tensor, state: list[Tensor], recurrent: nn.Parameter, bias: nn.Parameter
    ) -> list[Tensor]:
        (hidden,) = state
        reset_in, update_in, new_in = inputs.chunk(3, dim=-1)
        reset_by, update_by, new_by = (hidden @ recurrent.T + bias).chunk(3, dim=-1)
        reset = torch.sigmoid(reset_in + reset_by)
        update = torch.sigmoid(update_in + update_by)
        new = torch.tanh(new_in + reset * new_by)
        return [(1 - update) * new + update * hidden]


class ScratchRNN(RNN):
    """The simple recurrent network, written out."""

    def make(self, config: RNNConfig, input_size: int) -> nn.Module:
        return RNNLayers(config, input_size)


class ScratchLSTM(LSTM):
    """Long short-term memory, written out."""

    def make(self, config: LSTMConfig, input_size: int) -> nn.Module:
        return LSTMLayers(config, input_size)


class ScratchGRU(GRU):
    """The gated recurrent unit, written out."""

    def make(self, config: GRUConfig, input_size: int) -> nn.Module:
        return GRULayers(config, input_size)
