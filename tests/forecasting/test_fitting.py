"""Training: the loss is that over all rows, and falls to its minimum."""

import pytest
import torch
from torch import nn

from unroll.forecasting.fitting import fit


def fitted(seed: int = 1) -> tuple[nn.Module, list[float], torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    given = torch.randn(200, 3)
    labels = given @ torch.tensor([0.5, -0.2, 0.1]) + 0.3
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    generator = torch.Generator().manual_seed(seed)
    losses = fit(
        model, given, labels, batch_size=16, epochs=20, learning_rate=0.02, generator=generator
    )
    return model, list(losses), given, labels


def test_a_line_is_learned_to_the_last_digit_that_matters() -> None:
    model, losses, given, labels = fitted()
    assert len(losses) == 20
    assert losses[-1] < 1e-4 < losses[0]
    assert losses[-1] == pytest.approx(float((model(given) - labels).square().mean().detach()))


def test_the_generator_decides_the_order_of_batches() -> None:
    assert fitted()[1] == fitted()[1]
    assert fitted(seed=2)[1] != fitted()[1]
