"""A noisy sine, and the windows that autoregression makes of it (d2l 9.1)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

FREQUENCY = 0.01
"""Radians from one point to the next: 628 points to a period."""


def sine(points: int) -> Tensor:
    """sin(0.01 t) for t = 1 .. ``points``."""
    return torch.sin(FREQUENCY * torch.arange(1, points + 1))


def noisy_sine(points: int, noise: float, generator: Generator) -> Tensor:
    """The sine with independent Gaussian noise of standard deviation ``noise``."""
    return sine(points) + noise * torch.randn(points, generator=generator)


def windows(series: Tensor, tau: int) -> Tensor:
    """Every run of ``tau`` values, ``(points - tau + 1, tau)``: row i ends before the value at
    i + tau, which is its label; the last row has none."""
    return series.unfold(0, tau, 1)


def root_mean_square(error: Tensor) -> float:
    return float(error.square().mean().sqrt())
