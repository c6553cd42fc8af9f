"""Drawing from tables of weights by the inverse of their cumulative sums."""

from __future__ import annotations

import torch
from torch import Tensor


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

    One random number for each row, where ``torch.multinomial`` takes one for each entry. The sums
    are float64: in float32, rare tokens at the end of a large vocabulary would be lost.
    """
    chosen = uniform(len(weights), weights.device, generator)
    sums = weights.cumsum(dim=-1, dtype=chosen.dtype)
    return find(sums, chosen * sums[:, -1:])


def find(sums: Tensor, wanted: Tensor) -> Tensor:
    """The first column of ``sums (rows, columns)``, which increase, that is above ``wanted (rows,
    1)``, ``(rows,)``; the last one if none is, and 0 in a row of zeros."""
    places = torch.searchsorted(sums, wanted, right=True).clamp_(max=sums.shape[-1] - 1)
    return places.masked_fill_(sums[:, -1:] == 0, 0).squeeze(1)
