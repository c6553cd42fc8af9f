"""Forecasters, ``(batch, tau)`` to the next value ``(batch,)``, and forecasts over many steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unroll.forecasting.config import ForecasterConfig


class MLP(nn.Sequential):
    """One hidden layer with ReLU; uniform initialisation of Glorot and Bengio (2010)."""

    def __init__(self, config: ForecasterConfig) -> None:
        hidden = nn.Linear(config.tau, config.hidden_size)
        output = nn.Linear(config.hidden_size, 1)
        for layer in (hidden, output):
            nn.init.xavier_uniform_(layer.weight)
        super().__init__(hidden, nn.ReLU(), output, nn.Flatten(0))


class Recurrent(nn.Module):
    """Reads the window value by value, from a state of zeros; the forecast is computed from the
    last hidden state. Like the MLP, it sees nothing before the window."""

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
    """Forecast the ``steps`` values after every window, ``(starts, tau)`` to ``(starts, steps)``.

    From the second step on, forecasts take the place of values that are not known yet.
    """
    starts, tau = windows.shape
    values = torch.cat([windows, windows.new_empty(starts, steps)], dim=1)
    for position in range(tau, tau + steps):
        values[:, position] = forecaster(values[:, position - tau : position])
    return values[:, tau:]
