"""A noisy sine, and its windows for autoregression (d2l 9.1)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

FREQUENCY = 0.01
"""Radians between two points: 628 points per period."""


def sine(points: int) -> Tensor:
    """sin(0.01 t) for t = 1 .. ``points``."""
    return torch.sin(FREQUENCY * torch.arange(1, points + 1))


def noisy_sine(points: int, noise: float, generator: Generator) -> Tensor:
    """The sine with independent Gaussian noise of standard deviation ``noise``."""
    return sine(points) + noise * torch.randn(points, generator=generator)


def windows(series: Tensor, tau: int) -> Tensor:
    """All windows of ``tau`` values, ``(points - tau + 1, tau)``. The label of row i is the value
    at i + tau; the last row has none."""
    return series.unfold(0, tau, 1)


def root_mean_square(error: Tensor) -> float:
    return float(error.square().mean().sqrt())
