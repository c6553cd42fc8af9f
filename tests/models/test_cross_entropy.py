"""The blocked cross-entropy against PyTorch's, on the whole matrix of logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.models import cross_entropy
from unroll.models.cross_entropy import linear_cross_entropy, scores

sizes = st.integers(1, 20)


def arguments(n: int, width: int, vocabulary: int, scale: float, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n + 31 * width + 977 * vocabulary)

    def drawn(*shape: int) -> torch.Tensor:
        return (scale * torch.randn(*shape, generator=generator)).to(dtype).requires_grad_()

    targets = torch.randint(vocabulary, (n,), generator=generator)
    return drawn(n, width), drawn(vocabulary, width), drawn(vocabulary), targets


def plain(hidden, weight, bias, targets, count):
    return F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum") / count


@settings(max_examples=80, deadline=None)
@given(
    n=sizes,
    width=sizes,
    vocabulary=sizes,
    columns=sizes,
    kept=st.integers(1, 400),
    count=sizes,
    factor=st.sampled_from([1.0, -2.5]),
    scale=st.sampled_from([0.1, 1.0, 6.0]),
)
def test_loss_and_gradients_equal_those_of_all_logits(
    n, width, vocabulary, columns, kept, count, factor, scale
):
    *inputs, targets = arguments(n, width, vocabulary, scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "COLUMNS", columns)
        patch.setattr(cross_entropy, "KEPT", kept)
        found = linear_cross_entropy(*inputs, targets, count)
        assert_same(found, plain(*inputs, targets, count), inputs, factor)
        with torch.no_grad():
            torch.testing.assert_close(linear_cross_entropy(*inputs, targets, count), found)


def assert_same(found, expected, inputs, factor, **tolerance):
    torch.testing.assert_close(found, expected, **(tolerance or {"rtol": 1e-5, "atol": 1e-5}))
    ours = torch.autograd.grad(factor * found, inputs)
    for gradient, wanted in zip(ours, torch.autograd.grad(factor * expected, inputs), strict=True):
        assert gradient.dtype == wanted.dtype
        torch.testing.assert_close(
            gradient,
            wanted,
            **(tolerance or {"rtol": 1e-4, "atol": 1e-5 * float(1 + wanted.abs().max())}),
        )


@settings(max_examples=40, deadline=None)
@given(n=sizes, vocabulary=sizes, columns=sizes, rows=sizes)
def test_scores_equal_those_of_all_logits(n, vocabulary, columns, rows):
    hidden, weight, bias, targets = arguments(n, 4, vocabulary, 2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "COLUMNS", columns)
        patch.setattr(cross_entropy, "ROWS", rows)
        found = scores(hidden, weight, bias, targets)
    logits = F.linear(hidden, weight, bias)
    own = logits.gather(1, targets[:, None]).squeeze(1)
    for ours, wanted in zip(found, (own, logits.amax(1), logits.logsumexp(1)), strict=True):
        torch.testing.assert_close(ours, wanted.detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(found.own >= found.largest, (own >= logits.amax(1)))


def test_a_matrix_used_twice_gets_both_gradients():
    *inputs, targets = arguments(6, 5, 9, 1.0)
    weight = inputs[1]
    ids = torch.tensor([0, 4, 4, 8, 1, 2])
    found, expected = (
        loss(F.embedding(ids, weight) + inputs[0], weight, inputs[2], targets, 6)
        for loss in (linear_cross_entropy, plain)
    )
    assert_same(found, expected, inputs, 1.0)


def test_products_in_bfloat16_are_near_and_everything_else_stays_float32():
    *inputs, targets = arguments(50, 16, 300, 0.5)
    expected = plain(*inputs, targets, 50)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_cross_entropy(*inputs, targets, 50)
        near = scores(*inputs, targets)
    assert found.dtype == near.total.dtype == torch.float32
    assert found != expected
    assert_same(found, expected, inputs, 1.0, rtol=0.05, atol=0.01)
    torch.testing.assert_close((near.total - near.own).mean(), found, rtol=0, atol=0.01)


def test_a_nearly_certain_target_keeps_a_precise_gradient_in_bfloat16():
    hidden = torch.full((1, 1), 8.0).requires_grad_()
    weight, bias = torch.tensor([[1.0], [0.0]]), torch.zeros(2)
    with torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(hidden, weight, bias, torch.tensor([0]), 1).backward()
    assert hidden.grad.item() == pytest.approx(-1 / (1 + torch.e**8), rel=0.01)


def test_a_target_of_probability_zero_and_huge_logits_stay_finite():
    hidden = torch.tensor([[1e4]]).requires_grad_()
    weight = torch.tensor([[1.0], [-1.0], [0.5]])
    loss = linear_cross_entropy(hidden, weight, torch.zeros(3), torch.tensor([1]), 1)
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert hidden.grad.item() == pytest.approx(2.0)


def test_the_mean_over_no_targets_is_nan_as_in_pytorch():
    hidden, weight, bias, targets = arguments(1, 3, 5, 1.0)
    assert linear_cross_entropy(hidden[:0], weight, bias, targets[:0], 0).isnan()


def test_the_gradient_becomes_that_of_the_weights_without_a_copy():
    hidden, weight, bias, targets = arguments(4, 3, 5, 1.0)
    loss = linear_cross_entropy(hidden, weight, bias, targets, 4)
    computed = loss.grad_fn.saved_tensors[1].data_ptr()
    loss.backward()
    assert weight.grad.data_ptr() == computed


def test_all_logits_never_exist_at_once(monkeypatch):
    monkeypatch.setattr(cross_entropy, "KEPT", 64)
    monkeypatch.setattr(cross_entropy, "COLUMNS", 8)
    *inputs, targets = arguments(40, 2, 32, 1.0)
    with torch.profiler.profile(profile_memory=True) as profile:
        linear_cross_entropy(*inputs, targets, 40).backward()
    largest = max(
        event.cpu_memory_usage for event in profile.events() if "aten::empty" in event.name
    )
    assert 0 < largest <= 4 * 64 * 8  # bytes; all logits have 4 * 40 * 32


def test_a_second_derivative_is_refused():
    hidden, weight, bias, targets = arguments(4, 3, 5, 1.0)
    loss = linear_cross_entropy(hidden, weight, bias, targets, 4)
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()
