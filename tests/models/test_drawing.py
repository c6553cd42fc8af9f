"""Draws by cumulative sums against a loop in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import assert_drawn_from
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.models import drawing
from unroll.models.drawing import draw, tempered, uniform


def one_at_a_time(weights: torch.Tensor, generator: torch.Generator) -> list[int]:
    """Take weights off a random share of their sum until nothing is left."""
    chosen = uniform(len(weights), weights.device, generator).squeeze(1).tolist()
    found = []
    for row, share in zip(weights.double().tolist(), chosen, strict=True):
        left, place = share * sum(row), 0
        while place < len(row) - 1 and left >= row[place]:
            left -= row[place]
            place += 1
        found.append(place if sum(row) else 0)
    return found


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(0, 6), columns=st.integers(1, 30), seed=st.integers(0, 99))
def test_draws_equal_those_of_a_loop_over_tokens_under_one_seed(rows, columns, seed):
    weights = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    weights[weights < 0.3] = 0
    found = draw(weights, torch.Generator().manual_seed(seed))
    assert found.tolist() == one_at_a_time(weights, torch.Generator().manual_seed(seed))


def test_a_row_of_zeros_gives_the_first_column():
    weights = torch.tensor([[0.0, 0, 0], [0, 0, 2]])
    assert draw(weights, torch.Generator().manual_seed(0)).tolist() == [0, 2]


def test_rare_tokens_after_many_others_are_drawn_as_often_as_they_should():
    weights = torch.full((1, 60_000), 1e-3)
    weights[0, 0] = 1e4  # in float32 none of the others would change the sum
    ids = draw(weights.expand(100_000, -1)[:2000], torch.Generator().manual_seed(2))
    share = (ids > 0).double().mean().item()
    expected = 60 / 10_060
    assert abs(share - expected) < 5 * math.sqrt(expected / 2000)


def test_weights_are_probabilities_to_the_power_of_one_over_the_temperature():
    chances = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = tempered(chances.log(), 0.5)
    torch.testing.assert_close(found[0] / found[0].sum(), chances[0] ** 2 / (chances[0] ** 2).sum())
    assert found[1].tolist() == [0, 0, 0, 0]


def test_many_draws_fit_the_weights():
    weights = torch.rand(1, 50, generator=torch.Generator().manual_seed(3))
    ids = draw(weights.expand(30_000, -1), torch.Generator().manual_seed(4))
    assert_drawn_from(ids[None], weights / weights.sum())


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(0, 4),
    columns=st.integers(1, 30),
    block=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_draws_in_blocks_equal_those_of_a_loop_and_never_are_of_weight_zero(
    rows, columns, block, seed
):
    weights = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    weights[weights < 0.5] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "BLOCK", block)
        found = draw(weights, torch.Generator().manual_seed(seed))
    assert found.tolist() == one_at_a_time(weights, torch.Generator().manual_seed(seed))
    drawn = weights.gather(1, found.unsqueeze(1)).squeeze(1)
    assert ((drawn > 0) | (weights.sum(1) == 0)).all()
