"""The series and its windows, against closed forms and the rows written out."""

import math

import pytest
import torch

from unroll.forecasting.series import noisy_sine, root_mean_square, sine, windows


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_noise_the_series_is_the_sine_from_its_first_point_on() -> None:
    expected = torch.tensor([math.sin(0.01 * t) for t in range(1, 1001)])
    assert torch.allclose(noisy_sine(1000, 0.0, seeded(1)), expected, atol=1e-6)


def test_the_noise_is_gaussian_of_the_given_deviation_and_drawn_by_the_seed() -> None:
    noise = noisy_sine(100_000, 0.2, seeded(1)) - sine(100_000)
    assert noise.mean() == pytest.approx(0, abs=0.003)
    assert noise.std() == pytest.approx(0.2, rel=0.01)
    assert (noise.abs() < 0.2).float().mean() == pytest.approx(0.6827, abs=0.01)
    again, other = noisy_sine(50, 0.2, seeded(1)), noisy_sine(50, 0.2, seeded(2))
    assert torch.equal(again, noisy_sine(50, 0.2, seeded(1)))
    assert not torch.equal(again, other)


def test_windows_are_the_rows_of_features_filled_a_column_at_a_time() -> None:
    series, tau = torch.arange(12.0), 4
    features = torch.zeros(len(series) - tau, tau)
    for column in range(tau):
        features[:, column] = series[column : len(series) - tau + column]
    found = windows(series, tau)
    assert torch.equal(found[:-1], features)
    assert found[-1].tolist() == [8, 9, 10, 11]
    assert torch.equal(series[tau:], features[:, -1] + 1)


def test_the_error_of_a_perfect_forecast_is_the_noise() -> None:
    series = noisy_sine(100_000, 0.2, seeded(3))
    assert root_mean_square(sine(100_000) - series) == pytest.approx(0.2, rel=0.01)
    assert root_mean_square(torch.tensor([3.0, -4.0])) == pytest.approx(math.sqrt(12.5))
