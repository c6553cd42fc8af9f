"""Cross-entropy of a linear layer: loss with its gradient, and scores, without all the logits.

The matrix of logits, ``(n, vocabulary)``, is the largest one of a language model, and writing it to
memory and reading it back costs more than its product. So logits are made in blocks of ``COLUMNS``
tokens, which stay in the processor's cache while maximum, exponentials and sums are taken, and the
log-sum-exp is corrected as the blocks go by (Milakov and Gimelshein 2018).

Products are computed in the format of autocast, if it is on; sums in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

COLUMNS, COLUMNS_ROUNDED = 1024, 4096
"""Tokens of a block on a processor, and with products in bfloat16, which take so little time that
what is done once for a block weighs more; elsewhere a block has the whole vocabulary."""
ROWS = 4096
"""Hidden vectors of a block that is only scored."""
KEPT = 1 << 24
"""Numerators that are kept at once while a gradient is computed: 64 MB in float32. More rows at
once mean fewer passes over the weights and their gradient."""


class Scores(NamedTuple):
    """For each of ``n`` hidden vectors, ``(n,)``, float32 or wider."""

    own: Tensor
    """The logit of the target."""
    largest: Tensor
    """The largest logit; the target's own where no other is larger."""
    total: Tensor
    """log sum exp of all logits."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, count: int
) -> Tensor:
    """Sum of ``-log softmax(W h + b)[target]``, in nats, divided by ``count``.

    The gradient is computed with the loss, in one pass: products cost as much as with the whole
    matrix of logits. It has no second derivative.

    Args:
        hidden: ``(n, width)``.
        weight: ``(vocabulary, width)``.
        bias: ``(vocabulary,)``.
        targets: int64, ``(n,)``.
        count: what the sum is divided by; ``n`` for a mean.
    """
    if torch.is_grad_enabled():
        loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, targets, count
        )
        return loss
    found = scores(hidden, weight, bias, targets)
    return (found.total - found.own).sum() / count


@torch.no_grad()
def scores(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Scores:
    """The scores of ``targets (n,)`` given ``hidden (n, width)``, without a gradient."""
    parts = zip(torch.split(hidden, ROWS), torch.split(targets, ROWS), strict=True)
    found = [_scores(part, weight, bias, aims) for part, aims in parts]
    return Scores(*map(torch.cat, zip(*found, strict=True)))


def scores_of(logits: Tensor, targets: Tensor) -> Scores:
    """The scores of ``targets (n,)`` given all ``logits (n, vocabulary)``."""
    logits = logits.float()
    own = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    return Scores(own, logits.amax(dim=1), logits.logsumexp(dim=1))


def sum_of(nats: Tensor) -> float:
    """The sum of ``nats (n,)``, in float64 where the device has it."""
    return float(nats.sum(dtype=torch.float32 if nats.device.type == "mps" else torch.float64))


def _scores(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Scores:
    products, sums = _formats(hidden, weight)
    hidden, targets = hidden.to(products), targets.unsqueeze(1)
    own = torch.zeros_like(targets, dtype=sums)
    largest, total = torch.full_like(own, -torch.inf), torch.zeros_like(own)
    with torch.autocast(hidden.device.type, enabled=False):
        block = _buffer(hidden, weight, sums)
        for place in _blocks(weight, products):
            rows = weight[place].to(products)
            logits = _logits(hidden, rows, bias[place], block)
            column, inside = _columns(targets, place)
            own = torch.where(inside, logits.gather(1, column), own)
            before, largest = largest, torch.maximum(largest, logits.amax(1, keepdim=True))
            numerators = logits.sub_(largest).exp_()
            total.mul_((before - largest).exp_()).add_(numerators.sum(1, keepdim=True))
    return Scores(own.squeeze(1), largest.squeeze(1), (largest + total.log()).squeeze(1))


class _LinearCrossEntropy(Function):
    """The loss, and its gradient, which is computed with it.

    With the numerators ``x = exp(logit - m)``, where m is the largest logit up to a block, and the
    probabilities ``p = x exp(m - log-sum-exp)``:

        d loss / d h = sum of p W - W[target]      (corrected as m grows, block by block)
        d loss / d W = p^T h, less h at the target (once log-sum-exp is known, from the kept x)

    The target is left out of the blocks. Its coefficient p - 1 is computed from the sum over all
    others, which is exact also where p is nearly 1.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, count: int
    ) -> Tensor:
        products, sums = _formats(hidden, weight)
        empty = torch.empty_like if len(hidden) else torch.zeros_like
        gradients = [empty(tensor, dtype=sums) for tensor in (hidden, weight, bias)]
        nats = hidden.new_zeros((), dtype=sums)
        kept = KEPT if hidden.device.type == "cpu" else 8 * KEPT
        passes = max(1, -(-len(hidden) * len(weight) // kept))
        rows = max(1, -(-len(hidden) // passes))
        numerators = hidden.new_empty(min(rows, len(hidden)) * len(weight), dtype=products)
        with torch.autocast(hidden.device.type, enabled=False):
            for first in range(0, len(hidden), rows):
                part = slice(first, first + rows)
                nats += _add_rows(
                    hidden[part].to(products),
                    weight,
                    bias,
                    targets[part].unsqueeze(1),
                    1 / count,
                    [gradients[0][part], *gradients[1:]],
                    numerators,
                    add=first > 0,
                )
        found = zip(gradients, (hidden, weight, bias), strict=True)
        ctx.save_for_backward(*(gradient.to(tensor.dtype) for gradient, tensor in found))
        return nats / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        # a pass over the largest gradient; only a processor can tell for free that it is not needed
        if factor.device.type != "cpu" or factor.numpy() != 1:
            gradients = [gradient.mul_(factor) for gradient in gradients]
        return *gradients, None, None


def _add_rows(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    scale: float,
    gradients: list[Tensor],
    kept: Tensor,
    add: bool,
) -> Tensor:
    """Nats of ``targets (rows, 1)``. ``scale`` times their gradient is written into ``gradients``,
    of hidden, weight and bias; with ``add`` it is added to those of weight and bias. ``kept`` is
    memory for all numerators of these rows."""
    of_hidden, of_weight, of_bias = gradients
    of_hidden.zero_()
    aims = targets.squeeze(1)
    aimed = weight[aims].to(hidden.dtype)
    own = (hidden.to(of_hidden.dtype) * aimed).sum(1, keepdim=True) + bias[targets]
    largest, others, shifts = own, torch.zeros_like(own), []
    block = _buffer(hidden, weight, of_hidden.dtype)
    for place in _blocks(weight, hidden.dtype):
        rows = weight[place].to(hidden.dtype)
        numerators = _view(kept, hidden, place)
        same = kept.dtype == block.dtype
        logits = _logits(hidden, rows, bias[place], numerators if same else block)
        column, inside = _columns(targets, place)
        logits.scatter_(1, column, logits.gather(1, column).masked_fill_(inside, -torch.inf))
        before, largest = largest, torch.maximum(largest, logits.amax(1, keepdim=True))
        shifts.append(largest)
        logits.sub_(largest).exp_()
        correction = (before - largest).exp_()
        others.mul_(correction).add_(logits.sum(1, keepdim=True))
        if not same:
            numerators.copy_(logits)
        _add_product(of_hidden.mul_(correction), numerators, rows)
    all_tokens = others + (own - largest).exp()
    total = largest + all_tokens.log()
    coefficient = -scale * others / all_tokens  # p - 1 of the target
    of_hidden.mul_(scale / all_tokens).add_(aimed * coefficient)
    for place, shift in zip(_blocks(weight, hidden.dtype), shifts, strict=True):
        factors = (shift - total).exp_().mul_(scale)
        # the column of factors gives the gradient of the bias
        weighted = torch.cat([hidden * factors, factors], 1).to(hidden.dtype)
        found = _view(kept, hidden, place).t() @ weighted
        for out, part in ((of_weight[place], found[:, :-1]), (of_bias[place], found[:, -1])):
            out.add_(part) if add else out.copy_(part)
    of_weight.index_add_(0, aims, (hidden * coefficient).to(of_weight.dtype))
    of_bias.index_add_(0, aims, coefficient.squeeze(1))
    return (total - own).sum()


def _formats(hidden: Tensor, weight: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The number formats of products and of sums."""
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device)
    products = torch.get_autocast_dtype(device) if autocast else weight.dtype
    return products, torch.promote_types(products, torch.float32)


def _blocks(weight: Tensor, products: torch.dtype) -> Iterator[slice]:
    """The vocabulary in blocks."""
    size = columns = len(weight)
    if weight.device.type == "cpu":
        columns = COLUMNS_ROUNDED if products == torch.bfloat16 else COLUMNS
    return (slice(first, min(first + columns, size)) for first in range(0, size, columns))


def _buffer(hidden: Tensor, weight: Tensor, sums: torch.dtype) -> Tensor:
    """Memory for the logits of one block."""
    widest = next(_blocks(weight, hidden.dtype)).stop
    return hidden.new_empty(len(hidden) * widest, dtype=sums)


def _view(memory: Tensor, hidden: Tensor, place: slice) -> Tensor:
    """The part ``(rows, columns)`` of ``memory`` that belongs to a block."""
    rows = len(hidden)
    return memory[rows * place.start : rows * place.stop].view(rows, place.stop - place.start)


def _logits(hidden: Tensor, rows: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """``W h + b`` of a block, written into ``out``, in its format."""
    out = out.view(-1)[: len(hidden) * len(rows)].view(len(hidden), len(rows))
    if out.dtype == hidden.dtype:
        return torch.addmm(bias.to(out.dtype), hidden, rows.t(), out=out)
    return out.copy_(hidden @ rows.t()).add_(bias)


def _columns(targets: Tensor, place: slice) -> tuple[Tensor, Tensor]:
    """For ``targets (rows, 1)``: a column of the block, and whether it is the target's."""
    wanted = targets - place.start
    column = wanted.clamp(0, place.stop - place.start - 1)
    return column, wanted == column


def _add_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product to ``out``, which may have a wider format."""
    if out.dtype == left.dtype:
        out.addmm_(left, right)
    else:
        out.add_(left @ right)
