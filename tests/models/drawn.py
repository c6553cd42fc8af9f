"""A test of fit for drawn tokens."""

from __future__ import annotations

import torch


def assert_drawn_from(ids: torch.Tensor, expected: torch.Tensor, never: int = 0) -> None:
    """Pearson's chi-square of ``ids (rows, draws)`` against probabilities ``expected (rows,
    tokens)`` of the ids from ``never`` on: at most 6 standard deviations above its mean."""
    draws = ids.shape[1]
    assert int(ids.min()) >= never
    for row, chances in zip(ids - never, expected.double(), strict=True):
        counts = torch.bincount(row, minlength=len(chances)).double()
        common = chances * draws >= 5  # rarer tokens are counted together
        counts = torch.cat([counts[common], counts[~common].sum()[None]])
        wanted = torch.cat([chances[common], chances[~common].sum()[None]]) * draws
        square = ((counts - wanted).square() / wanted.clamp_min(1e-9)).sum()
        degrees = len(counts) - 1
        assert square <= degrees + 6 * (2 * degrees) ** 0.5, (square, degrees)
