"""Forecasters, ``(batch, tau)`` to the next value ``(batch,)``, and how they go on from there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unroll.forecasting.config import ForecasterConfig


class MLP(nn.Sequential):
    """One hidden layer with ReLU, weights from Glorot and Bengio's uniform (2010)."""

    def __init__(self, config: ForecasterConfig) -> None:
        hidden = nn.Linear(config.tau, config.hidden_size)
        output = nn.Linear(config.hidden_size, 1)
        for layer in (hidden, output):
            nn.init.xavier_uniform_(layer.weight)
        super().__init__(hidden, nn.ReLU(), output, nn.Flatten(0))


class Recurrent(nn.Module):
    """Reads the same window a value at a time, from a state of zeros; the last hidden state
    gives the forecast. It sees what the MLP sees, and nothing before the window."""

    def __init__(self, layer: Callable[..., nn.Module], config: ForecasterConfig) -> None:
        super().__init__()
        self.layer = layer(1, config.hidden_size, batch_first=True)
        self.output = nn.Linear(config.hidden_size, 1)

    def forward(self, windows: Tensor) -> Tensor:
        hidden, _ = self.layer(windows.unsqueeze(-1))
        forecast: Tensor = self.output(hidden[:, -1]).squeeze(-1)
        return forecast


def rnn(config: ForecasterConfig) -> Recurrent:
    return Recurrent(nn.RNN, config)


def lstm(config: ForecasterConfig) -> Recurrent:
    return Recurrent(nn.LSTM, config)


def gru(config: ForecasterConfig) -> Recurrent:
    return Recurrent(nn.GRU, config)


@torch.inference_mode()
def ahead(forecaster: Callable[[Tensor], Tensor], windows: Tensor, steps: int) -> Tensor:
    """Forecast 1 to ``steps`` values past every window, ``(starts, tau)`` to ``(starts, steps)``.

    From the second step on the forecasts stand in for the values that are not known yet.
    """
    starts, tau = windows.shape
    values = torch.cat([windows, windows.new_empty(starts, steps)], dim=1)
    for position in range(tau, tau + steps):
        values[:, position] = forecaster(values[:, position - tau : position])
    return values[:, tau:]
