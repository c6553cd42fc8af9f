"""Stacks of recurrent layers: PyTorch's modules with faster kernels, and what lies between layers.

PyTorch's modules keep names, shapes and start values of the weights. Beyond them are dropout masks
of whole sequences, dropout of recurrent matrices, layer norm, residual connections, rounds of the
Mogrifier, and a last layer of a size of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.models.dropout import dropout
from unroll.models.mogrifier import Mogrifier
from unroll.models.time_loops import GRULoop, LSTMLoop, RNNLoop, products_dtype


class TimeMajor(nn.RNNBase):
    """A stack of layers, each computed by ``layer``. A single step without a graph is one call of
    ``step``, all layers together; on other devices PyTorch's own module runs, or its kernel layer
    by layer where the module lacks what is asked for.

    Args:
        one_mask: draw the dropout between layers once for all steps of a row.
        weight_dropout: share of each recurrent matrix that is dropped in a forward pass.
        last_size: hidden size of the last layer; None: that of the others.
        layer_norm: normalise the inputs of each layer but the first, before dropout.
        residual: add the inputs of each layer but the first, before both, to its outputs.
    """

    last_size: int | None = None  # known before PyTorch's constructor asks for it

    def __init__(
        self,
        *sizes: Any,
        one_mask: bool = False,
        weight_dropout: float = 0.0,
        last_size: int | None = None,
        layer_norm: bool = False,
        residual: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*sizes, **options)
        self.one_mask, self.weight_dropout, self.residual = one_mask, weight_dropout, residual
        self.norms = norms_between(self.num_layers, self.hidden_size * self.directions, layer_norm)
        self.mogrifier: Mogrifier | None = None
        if last_size is not None:
            self._resize_last(last_size)

    def _resize_last(self, size: int) -> None:
        """Replace the weights of the last layer by those of a layer of ``size`` units."""
        self.last_size, bound = size, size**-0.5
        for name, weight in list(self.named_parameters()):
            if name.startswith(("weight", "bias")) and f"_l{self.num_layers - 1}" in name:
                shape = [len(weight) // self.hidden_size * size, *weight.shape[1:]]
                if name.startswith("weight_hh"):
                    shape[1] = size
                setattr(self, name, nn.Parameter(weight.new_empty(shape).uniform_(-bound, bound)))

    def flatten_parameters(self) -> None:
        """Lay out the weights for cuDNN, which runs layers of one size at once."""
        if self.last_size is None:
            super().flatten_parameters()

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def beyond_pytorch(self) -> bool:
        """Whether the forward pass now does what PyTorch's module does not."""
        drops = self.training and (self.one_mask or self.weight_dropout > 0)
        parts = self.residual, self.norms, self.last_size, self.mogrifier
        return drops or any(parts)

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """A token of each row, ``(batch, 1, input)``, to ``(batch, 1, width)`` and the state after
        it, in float32: reading the weights takes most of the time, so rounding them would not
        pay."""
        arguments = (self._flat_weights, True, self.num_layers, 0.0, False, self.bidirectional)
        with torch.autocast("cpu", enabled=False):
            hidden, *after = self.kernel(inputs, state, *arguments, True)
        return hidden, tuple(after) if isinstance(state, tuple) else after[0]

    def kernel(self, *arguments: Any) -> tuple[Tensor, ...]:
        """PyTorch's function that computes all layers."""
        raise NotImplementedError

    def layer(
        self, inputs: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """One layer in one direction: hidden states ``(time, batch, hidden)``, and the parts of the
        last state ``(batch, hidden)``."""
        raise NotImplementedError

    def on_device(
        self, inputs: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """``layer`` by PyTorch's kernel of the device: cuDNN, in the precision throughout."""
        return self.one_layer(self.kernel, inputs, state, weights)

    def one_layer(
        self,
        kernel: Callable[..., tuple[Tensor, ...]],
        inputs: Tensor,
        state: tuple[Tensor, ...],
        weights: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """``layer`` by one of PyTorch's functions that compute all layers."""
        first = tuple(part.unsqueeze(0) for part in state)
        given = first if len(first) > 1 else first[0]
        options = (True, 1, 0.0, self.training, False, False)
        outputs, *last = kernel(inputs, given, list(weights), *options)
        return outputs.to(inputs.dtype), *(part[0].to(inputs.dtype) for part in last)

    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """``(batch, time, input)`` to ``(batch, time, width)`` and the state after it."""
        many = isinstance(state, tuple)
        on_cpu = inputs.device.type == "cpu"
        if not (on_cpu or self.beyond_pytorch):
            hidden, after = super().forward(inputs, state)  # cuDNN: in the precision throughout
            ends = [part.to(inputs.dtype) for part in (after if many else (after,))]
            return hidden.to(inputs.dtype), tuple(ends) if many else ends[0]
        if inputs.shape[1] == 1 and not (torch.is_grad_enabled() or self.beyond_pytorch):
            return self.step(inputs, state)
        parts = state if many else (state,)
        directions = self.directions
        layer, over = self.layer if on_cpu else self.on_device, 0 if self.one_mask else None
        hidden, ends = inputs.transpose(0, 1), []
        for index in range(self.num_layers):
            below = hidden
            if index:
                hidden = self.norms[index - 1](hidden) if self.norms else hidden
                hidden = dropout(hidden, self.dropout, self.training, over)
            sides = []
            for number in range(index * directions, (index + 1) * directions):
                backwards = number % directions == 1
                weights: list[Tensor] = list(self.all_weights[number])
                weights[1] = dropout(weights[1], self.weight_dropout, self.training)
                reads = layer if self.mogrifier is None else partial(self.mogrifier.layer, number)
                outputs, *end = reads(
                    hidden.flip(0) if backwards else hidden,
                    tuple(narrowed(part[number], weights[1].shape[1]) for part in parts),
                    weights,
                )
                sides.append(outputs.flip(0) if backwards else outputs)
                ends.append([widened(part, parts[0].shape[-1]) for part in end])
            hidden = torch.cat(sides, dim=-1) if len(sides) > 1 else sides[0]
            if index and self.residual:
                hidden = hidden + below
        after = tuple(torch.stack(part) for part in zip(*ends, strict=True))
        return hidden.transpose(0, 1), after if many else after[0]


def narrowed(part: Tensor, size: int) -> Tensor:
    """The state ``(batch, size)`` of a layer, which is kept in rows that may be longer."""
    return part if part.shape[-1] == size else part[:, :size].contiguous()


def widened(part: Tensor, size: int) -> Tensor:
    """The state of a layer in rows of ``size``, with zeros behind it."""
    return part if part.shape[-1] == size else F.pad(part, (0, size - part.shape[-1]))


def norms_between(layers: int, width: int, wanted: bool) -> nn.ModuleList:
    """The layer norm of each layer but the first; empty if none is wanted."""
    return nn.ModuleList(nn.LayerNorm(width) for _ in range(layers - 1) if wanted)


class RNNLayers(TimeMajor, nn.RNN):  # type: ignore[misc]  # its forward is overloaded
    def kernel(self, *arguments: Any) -> tuple[Tensor, ...]:
        return (torch.rnn_relu if self.mode == "RNN_RELU" else torch.rnn_tanh)(*arguments)

    def layer(
        self, inputs: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        relu = self.mode == "RNN_RELU"
        found: tuple[Tensor, ...] = RNNLoop.apply(  # type: ignore[no-untyped-call]
            inputs, products_dtype(inputs), *weights, *state, relu
        )
        return found


class GRULayers(TimeMajor, nn.GRU):  # type: ignore[misc]  # its forward is overloaded
    def kernel(self, *arguments: Any) -> tuple[Tensor, ...]:
        return torch.gru(*arguments)

    def layer(
        self, inputs: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = GRULoop.apply(  # type: ignore[no-untyped-call]
            inputs, products_dtype(inputs), *weights, *state
        )
        return found


class LSTMLayers(TimeMajor, nn.LSTM):  # type: ignore[misc]  # its forward is overloaded
    """In float32, oneDNN computes sequences: it is faster than the loop by a tenth to a third. A
    single step is faster without it, because it lays out the weights anew at every call."""

    def kernel(self, *arguments: Any) -> tuple[Tensor, ...]:
        with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
            return torch.lstm(*arguments)

    def layer(
        self, inputs: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        dtype = products_dtype(inputs)
        if dtype != torch.float32 or len(inputs) == 1:
            found: tuple[Tensor, ...] = LSTMLoop.apply(  # type: ignore[no-untyped-call]
                inputs, dtype, *weights, *state
            )
            return found
        return self.one_layer(torch.lstm, inputs, state, weights)
