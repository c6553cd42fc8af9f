"""Hidden states to loss and to log-probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unroll.models import softmax
from unroll.models.softmax import FullSoftmax

WIDTH, VOCABULARY, ROWS = 5, 7, 11


@pytest.fixture
def made() -> FullSoftmax:
    torch.manual_seed(3)
    return FullSoftmax(WIDTH, VOCABULARY)


@pytest.fixture
def hidden() -> torch.Tensor:
    return 3 * torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.randint(VOCABULARY, (ROWS,), generator=torch.Generator().manual_seed(5))


def written_out(made: FullSoftmax, hidden: torch.Tensor) -> list[list[float]]:
    """log softmax(W h + b), a number at a time."""
    weight, bias = made.linear.weight.tolist(), made.linear.bias.tolist()
    found = []
    for row in hidden.tolist():
        scores = [
            sum(w * h for w, h in zip(line, row, strict=True)) + b
            for line, b in zip(weight, bias, strict=True)
        ]
        total = math.log(sum(math.exp(one) for one in scores))
        found.append([one - total for one in scores])
    return found


def test_log_probabilities_are_the_softmax_written_out(made, hidden):
    found = made.log_probabilities(hidden)
    assert torch.allclose(found, torch.tensor(written_out(made, hidden)), atol=1e-5)
    assert torch.allclose(found.exp().sum(dim=-1), torch.ones(ROWS))
    assert made.log_probabilities(hidden.view(1, ROWS, WIDTH)).shape == (1, ROWS, VOCABULARY)


def test_the_loss_is_the_mean_negative_log_probability_of_the_targets(made, hidden, targets):
    logs = written_out(made, hidden)
    mean = -sum(logs[row][target] for row, target in enumerate(targets.tolist())) / ROWS
    assert made.loss(hidden, targets).item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("at_once", [1, VOCABULARY, 3 * VOCABULARY + 2, ROWS * VOCABULARY, 1 << 24])
def test_a_score_in_blocks_equals_that_over_all_rows(made, hidden, targets, monkeypatch, at_once):
    expected = ROWS * made.loss(hidden, targets).item()
    rows = zip(written_out(made, hidden), targets.tolist(), strict=True)
    likeliest = sum(row.index(max(row)) == target for row, target in rows)
    assert 0 < likeliest < ROWS
    monkeypatch.setattr(softmax, "LOGITS_AT_ONCE", at_once)
    largest = 0

    def note(module: nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, out.numel())

    made.linear.register_forward_hook(note)
    nats, hits = made.score(hidden, targets)
    assert nats == pytest.approx(expected, rel=1e-5)
    assert hits == likeliest
    assert largest <= max(at_once, VOCABULARY)


def test_the_score_of_no_target_is_none(made):
    assert made.score(torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.long)) == (0.0, 0)


def test_the_loss_is_reduced_in_float32(made, hidden, targets):
    halved = FullSoftmax(WIDTH, VOCABULARY)
    halved.load_state_dict(made.state_dict())
    halved.to(torch.bfloat16)
    assert halved.loss(hidden.bfloat16(), targets).dtype == torch.float32
    assert halved.log_probabilities(hidden.bfloat16()).dtype == torch.float32


def test_a_tied_matrix_is_the_very_parameter_that_was_given():
    embedding = nn.Embedding(VOCABULARY, WIDTH)
    made = FullSoftmax(WIDTH, VOCABULARY, embedding.weight)
    assert made.linear.weight is embedding.weight
    assert made.linear.bias.shape == (VOCABULARY,)
