"""Dropout whose masks are drawn cheaply on a CPU.

PyTorch draws a random number for each value, which takes as long as a fifth of a recurrent layer.
Here one draw of 64 bits decides about four values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16
"""A share is rounded to a multiple of 1 / LEVELS, and the values are scaled by the rounded one."""


def dropout(values: Tensor, share: float, training: bool, over: int | None = None) -> Tensor:
    """``values`` with each set to 0 with probability ``share``, and the others divided by
    ``1 - share``; outside of training the values themselves.

    ``over`` is a dimension along which all values share one draw: over time, this is variational
    dropout (Gal and Ghahramani 2016).
    """
    if not training or share == 0:
        return values
    if over is not None:
        return values * dropout(torch.ones_like(values.narrow(over, 0, 1)), share, training)
    if values.device.type != "cpu":
        return F.dropout(values, share)
    dropped = min(round(share * LEVELS), LEVELS - 1)
    bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    draws = bits.view(torch.int16)[: values.numel()].view(values.shape)
    mask = (draws >= dropped - LEVELS // 2).to(values.dtype)
    return values * mask.mul_(LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """``dropout`` as a module."""

    def __init__(self, share: float, over: int | None = None) -> None:
        super().__init__(share)
        self.over = over

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.p, self.training, self.over)
