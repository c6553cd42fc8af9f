"""PyTorch's recurrent modules, faster on a CPU: each layer is a loop over time with a backward pass
of its own.

PyTorch runs an LSTM with oneDNN, which stays in use, and an RNN or GRU as dozens of small
operations a step, each with its own node in the graph. Here the inputs of all steps are multiplied
at once; a step costs one product forward and one backward, and a few operations in place; the
gradients of the weights are one product over all steps. All tensors are time-major, so that a step
is contiguous.

Under bfloat16 the products are in bfloat16, except those of a single step with a small matrix,
which are as fast in float32. States, and all sums over steps, are float32: the memory of an LSTM in
bfloat16, as oneDNN keeps it, loses every addend below a 256th of it.

Which path computes a layer follows from the cell, the device and the precision alone, so that a
seed gives the same numbers whatever else the machine does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unroll.models.dropout import dropout

LONG = 8
"""Steps from which it pays to lay out the recurrent matrix anew for a loop."""
SMALL = 1 << 18
"""Elements of a matrix up to which the product of one step is as fast in float32 as in bfloat16."""


def multiply(rows: Tensor, matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """``rows @ matrix`` in the format of the rows; the result is in ``dtype``."""
    return torch.mm(rows, matrix.to(rows.dtype)).to(dtype)


class StepProduct:
    """Products of the rows of one step, ``(batch, n)``, with the same ``(n, m)`` matrix at every
    step, in float32 or, where it is faster, with operands rounded to ``dtype``."""

    def __init__(self, matrix: Tensor, dtype: torch.dtype, steps: int) -> None:
        self.rounded = dtype != matrix.dtype and matrix.numel() > SMALL
        if self.rounded:
            matrix = matrix.to(dtype)
        self.matrix = matrix.contiguous() if steps >= LONG else matrix

    def plus(self, addend: Tensor, rows: Tensor, out: Tensor) -> Tensor:
        """``addend + rows @ matrix``, written into ``out``."""
        if self.rounded:
            return torch.add(addend, rows.to(self.matrix.dtype) @ self.matrix, out=out)
        return torch.addmm(addend, rows, self.matrix, out=out)


class TimeLoop(Function):
    """A layer over all steps: ``apply(inputs, dtype, w_ih, w_hh, b_ih, b_hh, *state)`` gives the
    hidden states ``(time, batch, hidden)`` and the last state.

    ``inputs`` is ``(time, batch, input)``, ``dtype`` that of the products over all steps. A state
    part is ``(batch, hidden)``. A subclass defines ``forward`` and ``backward`` of one cell; in
    ``backward``, a gradient that nothing asks for is None.
    """

    @staticmethod
    def project(inputs: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        """W_ih x_t + bias of all steps, ``(time, batch, gates * hidden)``."""
        rows = inputs.flatten(0, 1)
        if dtype == rows.dtype:
            return torch.addmm(bias, rows, weight.t()).view(*inputs.shape[:2], -1)
        found = multiply(rows.to(dtype), weight.t(), rows.dtype).add_(bias)
        return found.view(*inputs.shape[:2], -1)

    @staticmethod
    def keep(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> None:
        ctx.dtype = dtype
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def add_last(
        outputs: Tensor | None, last: Tensor | None, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient of the hidden states of all steps, and the sum that enters the last."""
        if outputs is None:
            outputs = torch.zeros_like(like)
        return outputs, outputs[-1].clone() if last is None else outputs[-1] + last

    @staticmethod
    def weight_gradients(
        ctx: Any, inputs: Tensor, weight: Tensor, before: Tensor, given: Tensor, kept: Tensor
    ) -> list[Any]:
        """Gradients of inputs, W_ih, W_hh, b_ih, b_hh.

        ``given`` and ``kept`` are those of W_ih x_t + b_ih and of W_hh h_(t-1) + b_hh of all steps,
        ``before`` is h_(t-1).
        """
        bias = given.sum((0, 1))
        biases = [bias, bias if given is kept else kept.sum((0, 1))]
        side = given.flatten(0, 1).to(ctx.dtype)
        sides = [side, side if given is kept else kept.flatten(0, 1).to(ctx.dtype)]
        found: list[Any] = [None]
        if ctx.needs_input_grad[0]:
            found[0] = multiply(side, weight, inputs.dtype).view_as(inputs)
        for side, operand in zip(sides, (inputs, before), strict=True):
            found.append(multiply(side.t(), operand.flatten(0, 1), inputs.dtype))
        return [*found, *biases]


class RNNLoop(TimeLoop):
    """h_t = activation(a_t), with a_t the sum of both products."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        dtype: torch.dtype,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        first: Tensor,
        relu: bool,
    ) -> tuple[Tensor, Tensor]:
        gates = TimeLoop.project(inputs, w_ih, b_ih + b_hh, dtype)
        hidden = torch.cat([first.unsqueeze(0), torch.empty_like(gates)])
        steps, recurrent = hidden.unbind(0), StepProduct(w_hh.t(), dtype, len(gates))
        activate = torch.relu_ if relu else torch.tanh_
        for gate, before, after in zip(gates.unbind(0), steps, steps[1:], strict=False):
            activate(recurrent.plus(gate, before, after))
        ctx.relu = relu
        TimeLoop.keep(ctx, dtype, inputs, w_ih, w_hh, hidden)
        return hidden[1:], steps[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs: Tensor | None, last: Tensor | None) -> Any:
        inputs, w_ih, w_hh, hidden = ctx.saved_tensors
        outputs, arriving = TimeLoop.add_last(outputs, last, hidden[1:])
        # the derivative of the activation; step by step it becomes the gradient of a_t
        gates = (hidden[1:] > 0).to(hidden.dtype) if ctx.relu else 1 - hidden[1:].square()
        steps, sums = gates.unbind(0), outputs.unbind(0)
        recurrent = StepProduct(w_hh, ctx.dtype, len(steps))
        for time in reversed(range(len(steps))):
            steps[time].mul_(arriving)
            if time:
                recurrent.plus(sums[time - 1], steps[time], arriving)
        found = TimeLoop.weight_gradients(ctx, inputs, w_ih, hidden[:-1], gates, gates)
        return found[0], None, *found[1:], steps[0] @ w_hh, None


class GRULoop(TimeLoop):
    """r, z = sigmoid of the sums of both products, n = tanh(W_in x + b_in + r * q) with
    q = W_hn h + b_hn, and h_t = n + z * (h_(t-1) - n)."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        dtype: torch.dtype,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        first: Tensor,
    ) -> tuple[Tensor, Tensor]:
        size = first.shape[1]
        bias = b_ih.clone()
        bias[: 2 * size] += b_hh[: 2 * size]
        gates = TimeLoop.project(inputs, w_ih, bias, dtype)
        q = gates.new_empty(*gates.shape[:2], size)
        hidden = torch.cat([first.unsqueeze(0), torch.empty_like(q)])
        w_rz, w_n = (
            StepProduct(w.t(), dtype, len(gates)) for w in (w_hh[: 2 * size], w_hh[2 * size :])
        )
        b_n = b_hh[2 * size :]
        parts = [gates[..., : 2 * size], *gates.chunk(3, -1), q, hidden, hidden[1:]]
        for rz, r, z, n, product, before, after in zip(*map(torch.unbind, parts), strict=False):
            w_rz.plus(rz, before, rz).sigmoid_()
            w_n.plus(b_n, before, product)
            n.addcmul_(r, product).tanh_()
            torch.lerp(n, before, z, out=after)
        TimeLoop.keep(ctx, dtype, inputs, w_ih, w_hh, hidden, gates, q)
        return hidden[1:], hidden[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs: Tensor | None, last: Tensor | None) -> Any:
        inputs, w_ih, w_hh, hidden, gates, q = ctx.saved_tensors
        outputs, arriving = TimeLoop.add_last(outputs, last, hidden[1:])
        size = hidden.shape[-1]
        r, z, n = gates.chunk(3, -1)
        # derivatives of h_t by q, r, z, n; in this order, those by W_hh h are the first three
        # blocks and those by W_ih x the last three
        slopes = gates.new_empty(*q.shape[:2], 4, size)
        by_q, by_r, by_z, by_n = slopes.unbind(2)
        rest = 1 - z
        torch.addcmul(rest, rest, n.square(), value=-1, out=by_n)
        torch.mul(by_n, r, out=by_q)
        torch.mul(by_q, q, out=by_r).mul_(1 - r)
        torch.mul(hidden[:-1] - n, z, out=by_z).mul_(rest)
        kept, given = slopes.flatten(2)[..., : 3 * size], slopes.flatten(2)[..., size:]
        recurrent = StepProduct(w_hh.roll(size, 0), ctx.dtype, len(slopes))  # q, r, z
        steps, sums, products, keeps = map(torch.unbind, (slopes, outputs, kept, z))
        for time in reversed(range(len(steps))):
            steps[time].mul_(arriving.unsqueeze(1))
            if time:
                torch.addcmul(sums[time - 1], arriving, keeps[time], out=arriving)
            else:
                arriving.mul_(keeps[0])
            recurrent.plus(arriving, products[time], arriving)
        found = TimeLoop.weight_gradients(ctx, inputs, w_ih, hidden[:-1], given, kept)
        found[2], found[4] = (part.roll(-size, 0) for part in (found[2], found[4]))
        return found[0], None, *found[1:], arriving


class LSTMLoop(TimeLoop):
    """i, f, o = sigmoid and g = tanh of the sums of both products, c_t = f * c_(t-1) + i * g, and
    h_t = o * tanh(c_t)."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        dtype: torch.dtype,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        first: Tensor,
        memory: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        size = first.shape[1]
        gates = TimeLoop.project(inputs, w_ih, b_ih + b_hh, dtype)
        read = gates.new_empty(*gates.shape[:2], size)  # tanh(c_t)
        hidden = torch.cat([first.unsqueeze(0), torch.empty_like(read)])
        cells = torch.cat([memory.unsqueeze(0), torch.empty_like(read)])
        recurrent = StepProduct(w_hh.t(), dtype, len(gates))
        parts = [gates, gates[..., : 2 * size], *gates.chunk(4, -1)]
        parts += [hidden, hidden[1:], cells, cells[1:], read]
        for gate, both, i, f, g, o, before, after, c, new, tanh in zip(
            *map(torch.unbind, parts), strict=False
        ):
            recurrent.plus(gate, before, gate)
            both.sigmoid_()
            o.sigmoid_()
            g.tanh_()
            torch.mul(f, c, out=new).addcmul_(i, g)
            torch.mul(o, torch.tanh(new, out=tanh), out=after)
        TimeLoop.keep(ctx, dtype, inputs, w_ih, w_hh, hidden, gates, cells, read)
        return hidden[1:], hidden[-1].clone(), cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, outputs: Tensor | None, last: Tensor | None, last_cell: Tensor | None
    ) -> Any:
        inputs, w_ih, w_hh, hidden, gates, cells, read = ctx.saved_tensors
        outputs, arriving = TimeLoop.add_last(outputs, last, hidden[1:])
        cell = torch.zeros_like(arriving) if last_cell is None else last_cell.clone()
        i, f, g, o = gates.chunk(4, -1)
        slopes = gates.new_empty(*read.shape[:2], 4, read.shape[-1])
        by_i, by_f, by_g, by_o = slopes.unbind(2)  # of c_t by i, f, g; of h_t by o
        torch.mul(i * g, 1 - i, out=by_i)
        torch.mul(f * cells[:-1], 1 - f, out=by_f)
        torch.addcmul(i, i, g.square(), value=-1, out=by_g)
        torch.mul(o * read, 1 - o, out=by_o)
        opened = torch.addcmul(o, o, read.square(), value=-1)  # of h_t by c_t
        flat = slopes.flatten(2)
        parts = (slopes[:, :, :3], by_o, flat, opened, f, outputs)
        from_cell, from_hidden, products, opens, keeps, sums = map(torch.unbind, parts)
        recurrent = StepProduct(w_hh, ctx.dtype, len(products))
        for time in reversed(range(len(products))):
            cell.addcmul_(arriving, opens[time])
            from_cell[time].mul_(cell.unsqueeze(1))
            from_hidden[time].mul_(arriving)
            cell.mul_(keeps[time])
            if time:
                recurrent.plus(sums[time - 1], products[time], arriving)
            else:
                torch.mm(products[0], w_hh, out=arriving)
        found = TimeLoop.weight_gradients(ctx, inputs, w_ih, hidden[:-1], flat, flat)
        return found[0], None, *found[1:], arriving, cell


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
        return drops or self.residual or len(self.norms) > 0 or self.last_size is not None

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
        first = tuple(part.unsqueeze(0) for part in state)
        outputs, *last = self.kernel(
            inputs,
            first if len(first) > 1 else first[0],
            list(weights),
            True,
            1,
            0.0,
            self.training,
            False,
            False,
        )
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
                outputs, *end = layer(
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


def products_dtype(inputs: Tensor) -> torch.dtype:
    """The number format of the products of this layer's inputs."""
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return inputs.dtype


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
        first = [part.unsqueeze(0) for part in state]
        outputs, hidden, cell = torch.lstm(
            inputs, first, list(weights), True, 1, 0.0, self.training, False, False
        )
        return outputs, hidden[0], cell[0]
