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

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

LONG = 8
"""Steps from which it pays to lay out the recurrent matrix anew for a loop."""
SMALL = 1 << 19
"""Elements of a matrix up to which the product of one step is as fast in float32 as in bfloat16."""


def multiply(rows: Tensor, matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """``rows @ matrix`` in the format of the rows; the result is in ``dtype``."""
    return torch.mm(rows, matrix.to(rows.dtype)).to(dtype)


def products_dtype(inputs: Tensor) -> torch.dtype:
    """The number format of the products of this layer's inputs."""
    if torch.is_autocast_enabled(inputs.device.type):
        return torch.get_autocast_dtype(inputs.device.type)
    return inputs.dtype


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
