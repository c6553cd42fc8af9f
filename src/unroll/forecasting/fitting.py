"""Training of a forecaster: mini-batches, mean squared error, Adam."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F


def fit(
    forecaster: nn.Module,
    windows: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    epochs: int,
    learning_rate: float,
    generator: Generator,
) -> Iterator[float]:
    """Train on ``windows (rows, tau)`` and ``labels (rows,)``, in a new random order in
    every epoch; after each epoch yield the mean squared error over all rows."""
    optimizer = torch.optim.Adam(forecaster.parameters(), learning_rate)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(labels), generator=generator), batch_size):
            optimizer.zero_grad()
            F.mse_loss(forecaster(windows[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            yield float(F.mse_loss(forecaster(windows), labels))
