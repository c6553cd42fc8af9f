"""The cells: PyTorch's recurrent modules, with faster kernels, behind one interface.

State is opaque outside this package: a caller passes it back, or asks a cell to ``detach`` it, to
``select`` rows of it, or to ``scale_gradient``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from unroll.models.config import GRUConfig, LSTMConfig, RecurrentConfig, RNNConfig
from unroll.models.mogrifier import Mogrifier
from unroll.models.stacks import GRULayers, LSTMLayers, RNNLayers

State = Any
"""A tensor ``(layers * directions, batch, hidden)``, or for the LSTM a pair of them; a layer that
is narrower than others uses the first numbers of its rows. For the Transformer see
``unroll.models.transformer``. The second dimension of each tensor is the batch."""

Config = TypeVar("Config", bound=RecurrentConfig)


class Layers(nn.Module):
    """What reads vectors with a state: ``(batch, time, input)`` and a state to ``(batch, time,
    width)`` and the next state."""

    width: int
    bidirectional = False

    def initialize(self, model: nn.Module, tied: nn.Parameter | None) -> None:
        """Give the weights of the whole model, of which this is a part, their start values, where
        these are not what each part has drawn; ``tied`` is the matrix of embedding and softmax."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights that are not quantized."""
        return next(self.parameters()).dtype

    def initial_state(self, batch: int) -> State:
        """The state before the first token, for ``batch`` rows."""
        raise NotImplementedError

    def state_parts(self, state: State) -> tuple[Tensor, ...]:
        """The tensors that a state consists of."""
        return state if isinstance(state, tuple) else (state,)

    def map_state(self, state: State, change: Callable[[Tensor], Tensor]) -> State:
        """The state with every tensor of it replaced by ``change(tensor)``."""
        return tuple(map(change, state)) if isinstance(state, tuple) else change(state)

    def detach(self, state: State) -> State:
        """The state as a constant: back-propagation through time stops here."""
        return self.map_state(state, Tensor.detach)

    def scale_gradient(self, state: State, factors: Tensor) -> State:
        """The same state; in the backward pass its gradient is multiplied by
        ``factors (batch,)``."""

        def scaled(part: Tensor) -> Tensor:
            if not part.is_floating_point():
                return part
            constant = part.detach()
            each = factors.view(-1, *[1] * (part.dim() - 2))
            return constant + each * (part - constant)  # its value is exactly part

        return self.map_state(state, scaled)

    def select(self, state: State, rows: Tensor) -> State:
        """The state of these rows, in this order; a row may be given more than once."""
        return self.map_state(state, lambda part: part.index_select(1, rows))

    def join(self, states: Sequence[State]) -> State:
        """The state of the rows of all these states, one state after the other."""
        parts = tuple(
            torch.cat(part, dim=1) for part in zip(*map(self.state_parts, states), strict=True)
        )
        return parts if isinstance(states[0], tuple) else parts[0]


class Cell(Layers, Generic[Config]):
    """A stack of recurrent layers: ``(batch, time, input)`` to ``(batch, time, width)``.

    ``width`` is the size of the last layer, or twice that in a bidirectional cell.
    """

    def __init__(self, config: Config, input_size: int) -> None:
        super().__init__()
        self.config, self.bidirectional = config, config.bidirectional
        self.width = config.output_size
        self.state_size = max(config.sizes)
        self._states = config.layers * (2 if config.bidirectional else 1)
        self.module = self.make(config, input_size)
        if config.mogrifier_rounds:
            self.module.mogrifier = Mogrifier(config, input_size)
        if config.bias == "single":
            self._fix_second_bias()
        if config.initialization == "orthogonal":
            for matrix in self.recurrent_matrices():
                nn.init.orthogonal_(matrix)
        self.set_biases()

    def make(self, config: Config, input_size: int) -> nn.Module:
        """The module that computes the cell, with PyTorch's names and shapes of weights."""
        raise NotImplementedError

    def set_biases(self) -> None:
        """Set the biases that the config gives a start value, after the others are drawn."""

    def _fix_second_bias(self) -> None:
        """Make b_hh a constant zero: not trained, not counted, not saved. PyTorch's kernels need
        it as an operand."""
        for name, parameter in list(self.module.named_parameters()):
            if name.startswith("bias_hh"):
                delattr(self.module, name)
                zeros = torch.zeros_like(parameter, requires_grad=False)
                setattr(self.module, name, nn.Buffer(zeros, persistent=False))

    @staticmethod
    def arguments(config: RecurrentConfig, input_size: int) -> dict[str, Any]:
        return {
            "input_size": input_size,
            "hidden_size": config.hidden_size,
            "num_layers": config.layers,
            "dropout": config.dropout if config.layers > 1 else 0.0,
            "bidirectional": config.bidirectional,
            "batch_first": True,
            "one_mask": config.one_mask,
            "weight_dropout": config.weight_dropout,
            "last_size": config.last_size,
            "layer_norm": config.layer_norm,
            "residual": config.residual,
        }

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, state = self.module(inputs, state)
        return hidden, state

    def initialize(self, model: nn.Module, tied: nn.Parameter | None) -> None:
        """As ``model.initialization`` and ``model.spectral_radius`` say."""
        if self.config.initialization == "normal":
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.01)
                else:
                    nn.init.zeros_(parameter)
            self.set_biases()
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.reset_parameters()
        elif tied is not None:  # the embedding's unit variance would make the first logits huge
            nn.init.normal_(tied, std=self.width**-0.5)
        if self.config.spectral_radius is not None:
            self.set_spectral_radius(self.config.spectral_radius)

    def recurrent_matrices(self) -> Iterator[Tensor]:
        """The matrix ``(hidden, hidden)`` of every gate of every layer, as a view that can be
        changed in place."""
        for name, parameter in self.module.named_parameters():
            if name.startswith("weight_hh"):
                yield from torch.split(parameter.detach(), parameter.shape[1])

    def set_spectral_radius(self, radius: float) -> None:
        """Scale every recurrent matrix so that the largest absolute eigenvalue is ``radius``."""
        for matrix in self.recurrent_matrices():
            matrix *= radius / torch.linalg.eigvals(matrix).abs().max()

    def initial_state(self, batch: int) -> State:
        """Zeros for ``batch`` rows."""
        weight = next(self.parameters())
        return weight.new_zeros(self._states, batch, self.state_size)


class RNN(Cell[RNNConfig]):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or relu instead of tanh."""

    def make(self, config: RNNConfig, input_size: int) -> nn.Module:
        return RNNLayers(nonlinearity=config.nonlinearity, **self.arguments(config, input_size))


class GRU(Cell[GRUConfig]):
    """The gated recurrent unit, with the reset gate applied after the product as in cuDNN."""

    def make(self, config: GRUConfig, input_size: int) -> nn.Module:
        return GRULayers(**self.arguments(config, input_size))


class LSTM(Cell[LSTMConfig]):
    """Input, forget and output gates around a memory cell; no peepholes, no projection."""

    def make(self, config: LSTMConfig, input_size: int) -> nn.Module:
        return LSTMLayers(**self.arguments(config, input_size))

    def set_biases(self) -> None:
        """Set the forget gate's bias, which is b_ih + b_hh: with two vectors each takes half."""
        if self.config.forget_gate_bias is None:
            return
        vectors = 1 if self.config.bias == "single" else 2
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if name.startswith("bias"):
                    parameter.chunk(4)[1][:] = self.config.forget_gate_bias / vectors

    def initial_state(self, batch: int) -> State:
        return super().initial_state(batch), super().initial_state(batch)
