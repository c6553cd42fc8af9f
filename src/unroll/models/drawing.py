"""Drawing from tables of weights by the inverse of their cumulative sums."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

BLOCK = 256
"""Columns whose weights are added up before the cumulative sum is taken."""


def tempered(logs: Tensor, temperature: float) -> Tensor:
    """``logs (rows, tokens)``, log p up to a constant of each row, to weights proportional to
    p^(1/temperature), of which the largest is 1. A row of nothing but -inf has only zeros."""
    largest = logs.amax(dim=-1, keepdim=True)
    return ((logs - largest) / temperature).exp_().masked_fill_(largest == -torch.inf, 0)


def uniform(rows: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """One number from [0, 1) for each row, ``(rows, 1)``, in the widest format of the device."""
    widest = torch.float32 if device.type == "mps" else torch.float64
    return torch.rand(rows, 1, dtype=widest, device=device, generator=generator)


def draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """A column of each row of ``weights (rows, columns)``, ``(rows,)``, with probability
    proportional to its weight; 0 in a row of zeros.

    One random number for each row, where ``torch.multinomial`` takes one for each entry. It finds
    a block of columns by the sums of the blocks, and what is left of it a column of the block.
    Cumulative sums are float64: in float32, rare tokens at the end of a large vocabulary would be
    lost.
    """
    chosen = uniform(len(weights), weights.device, generator)
    count = weights.shape[1] // BLOCK
    whole = count * BLOCK
    parts = [weights[:, :whole].view(len(weights), count, BLOCK).sum(dim=2)] if whole else []
    if whole < weights.shape[1]:
        parts.append(weights[:, whole:].sum(dim=1, keepdim=True))
    blocks = torch.cat(parts, dim=1).to(chosen.dtype)
    sums = blocks.cumsum(dim=1)
    wanted = chosen * sums[:, -1:]
    block = find(sums, wanted).unsqueeze(1)
    size = blocks.gather(1, block)
    share = (wanted - sums.gather(1, block) + size) / size  # 0 / 0 in a row of zeros
    columns = BLOCK * block + torch.arange(min(BLOCK, weights.shape[1]), device=weights.device)
    inside = weights.gather(1, columns.clamp(max=weights.shape[1] - 1)).to(chosen.dtype)
    inside = inside.masked_fill(columns >= weights.shape[1], 0).cumsum(dim=1)
    ends = inside[:, -1:]
    place = find(inside, torch.minimum(share * ends, ends.nextafter(torch.zeros_like(ends))))
    return BLOCK * block.squeeze(1) + place


def find(sums: Tensor, wanted: Tensor) -> Tensor:
    """The first column of ``sums (rows, columns)``, which increase, that is above ``wanted (rows,
    1)``, ``(rows,)``; the last one if none is, and 0 in a row of zeros."""
    places = torch.searchsorted(sums, wanted, right=True).clamp_(max=sums.shape[-1] - 1)
    return places.masked_fill_(sums[:, -1:] == 0, 0).squeeze(1)


class FromLogProbabilities:
    """What a softmax without one set of logits gives and draws by its log-probabilities."""

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to log p in nats, ``(..., vocabulary)``."""
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """``log_probabilities``, whose softmax is the distribution."""
        return self.log_probabilities(hidden)

    def drawing(self) -> AbstractContextManager[None]:
        """Nothing to prepare."""
        return nullcontext()

    def draw(
        self, hidden: Tensor, temperature: float, never: int, generator: torch.Generator
    ) -> Tensor:
        """One token for each row of ``hidden (n, width)``, ``(n,)``, drawn with probability
        proportional to p^(1/temperature) among the ids from ``never`` on; ``never`` itself where
        none of them has any: n-grams without smoothing may expect nothing but ``<unk>``."""
        logs = self.log_probabilities(hidden)[:, never:]
        return never + draw(tempered(logs, temperature), generator)
