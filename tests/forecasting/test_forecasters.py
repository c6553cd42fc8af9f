"""Forecasters and their steps ahead, against closed forms and a loop over points."""

import math

import pytest
import torch
from torch import Tensor, nn

from unroll.errors import Refused
from unroll.forecasting.config import ForecasterConfig
from unroll.forecasting.forecasters import ahead
from unroll.forecasting.series import windows
from unroll.registry import build, names

TAU, HIDDEN = 4, 10
PARAMETERS = {"mlp": 4 * 10 + 10 + 10 + 1}
PARAMETERS |= {
    cell: gates * (10 + 10 * 10 + 10 + 10) + 10 + 1
    for cell, gates in {"rnn": 1, "lstm": 4, "gru": 3}.items()
}


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    forecaster: nn.Module = build("forecaster", ForecasterConfig(name, TAU, HIDDEN))
    return forecaster


def rotation(window: Tensor) -> Tensor:
    """x_t = 2 cos(0.01) x_(t-1) - x_(t-2), which a sine without noise meets exactly."""
    return 2 * math.cos(0.01) * window[:, -1] - window[:, -2]


def test_the_registry_knows_the_four_and_refuses_any_other() -> None:
    assert set(names("forecaster")) == set(PARAMETERS)
    with pytest.raises(Refused, match="did you mean 'gru'"):
        build("forecaster", ForecasterConfig("grue", TAU, HIDDEN))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_counted_by_hand(name: str) -> None:
    assert sum(weights.numel() for weights in made(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_forecast_depends_on_every_value_of_its_window_and_on_no_other_row(name: str) -> None:
    forecaster = made(name)
    given = torch.randn(5, TAU, requires_grad=True)
    found = forecaster(given)
    assert found.shape == (5,)
    found[2].backward()
    assert given.grad is not None
    assert given.grad[2].abs().min() > 0
    assert given.grad[[0, 1, 3, 4]].abs().max() == 0


def test_the_mlp_starts_within_the_bounds_of_glorot() -> None:
    hidden, _, output, _ = made("mlp")
    for layer, fans in ((hidden, TAU + HIDDEN), (output, HIDDEN + 1)):
        largest, bound = layer.weight.abs().max().item(), math.sqrt(6 / fans)
        assert 0.8 * bound < largest <= bound


def test_an_exact_forecaster_forecasts_the_exact_series_many_steps_ahead() -> None:
    series = torch.sin(0.01 * torch.arange(1, 1001, dtype=torch.float64))
    found = ahead(rotation, windows(series, TAU), 64)
    for k in (1, 4, 16, 64):
        expected = series[TAU + k - 1 :]
        assert torch.allclose(found[: len(expected), k - 1], expected, atol=1e-9)


@pytest.mark.parametrize("name", PARAMETERS)
def test_all_starts_at_once_give_what_each_gives_by_itself(name: str) -> None:
    forecaster, given = made(name), windows(torch.randn(30), TAU)
    found = ahead(forecaster, given, 6)
    for row, window in enumerate(given):
        values = window.tolist()
        for _ in range(6):
            with torch.inference_mode():
                values.append(forecaster(torch.tensor([values[-TAU:]])).item())
        assert found[row].tolist() == pytest.approx(values[TAU:], abs=1e-6)
