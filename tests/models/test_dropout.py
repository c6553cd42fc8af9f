"""Dropout: what is dropped, how often, and what stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unroll.models.dropout import Dropout, dropout


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from([0.1, 0.25, 0.5, 0.999999]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_each_value_is_dropped_or_scaled_and_so_is_its_gradient(shape, share, dtype):
    values = torch.ones(shape, dtype=dtype, requires_grad=True)
    kept = dropout(values, share, training=True)
    kept.sum().backward()
    scale = 65536 / (65536 - min(round(share * 65536), 65535))
    assert kept.dtype == dtype
    assert torch.equal(values.grad, kept)
    assert torch.all((kept == 0) | ((kept - scale).abs() < 1e-6 * scale))


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.8])
def test_the_share_dropped_is_the_share_given_at_every_position_of_a_draw(share):
    torch.manual_seed(0)
    values = dropout(torch.ones(100_000, 4), share, training=True)
    dropped = (values == 0).double()
    assert dropped.mean(dim=0).tolist() == pytest.approx([share] * 4, abs=0.006)
    together = (dropped[:, 0] * dropped[:, 1]).mean().item()
    assert together == pytest.approx(share * share, abs=0.006)  # independent
    assert values.mean().item() == pytest.approx(1, abs=0.01)


def test_a_seed_draws_the_same_mask_and_the_next_draw_another():
    values = torch.ones(5, 7)
    torch.manual_seed(3)
    first, second = dropout(values, 0.5, training=True), dropout(values, 0.5, training=True)
    torch.manual_seed(3)
    assert torch.equal(dropout(values, 0.5, training=True), first)
    assert not torch.equal(first, second)


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=3),
    st.integers(0, 1),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.integers(0, 99),
)
def test_one_mask_over_a_dimension_is_the_mask_of_a_slice_of_it_repeated(shape, over, share, seed):
    torch.manual_seed(seed)
    values = torch.randn(shape).requires_grad_()
    torch.manual_seed(seed)
    kept = dropout(values, share, True, over)
    kept.sum().backward()
    torch.manual_seed(seed)
    slice_shape = [1 if place == over else size for place, size in enumerate(shape)]
    mask = dropout(torch.ones(slice_shape), share, True).expand(shape)
    assert torch.equal(kept, values.detach() * mask)
    assert torch.equal(values.grad, mask)


def test_nothing_is_dropped_outside_of_training_or_with_a_share_of_zero():
    values = torch.ones(50)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0).train()(values) is values
    assert not torch.equal(Dropout(0.5).train()(values), values)
    assert Dropout(0.5, over=0).eval()(values) is values
