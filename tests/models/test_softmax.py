"""Hidden states to loss and to log-probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import assert_drawn_from
from torch import nn

from unroll.app import compose
from unroll.models import cross_entropy, softmax
from unroll.models.config import FullSoftmaxConfig
from unroll.models.precision import Precision
from unroll.models.softmax import FullSoftmax
from unroll.registry import build

WIDTH, VOCABULARY, ROWS = 5, 7, 11


def full(tied: nn.Parameter | None = None) -> FullSoftmax:
    config = FullSoftmaxConfig("full")
    return build("model/softmax", config, WIDTH, VOCABULARY, Precision("float32"), tied)


@pytest.fixture
def made() -> FullSoftmax:
    torch.manual_seed(3)
    return full()


@pytest.fixture
def hidden() -> torch.Tensor:
    return 3 * torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.randint(VOCABULARY, (ROWS,), generator=torch.Generator().manual_seed(5))


def plain_log_softmax(made: FullSoftmax, hidden: torch.Tensor) -> list[list[float]]:
    """log softmax(W h + b), in plain Python."""
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


def test_log_probabilities_equal_the_softmax_in_plain_python(made, hidden):
    found = made.log_probabilities(hidden)
    assert torch.allclose(found, torch.tensor(plain_log_softmax(made, hidden)), atol=1e-5)
    assert torch.allclose(found.exp().sum(dim=-1), torch.ones(ROWS))
    assert made.log_probabilities(hidden.view(1, ROWS, WIDTH)).shape == (1, ROWS, VOCABULARY)


def test_the_loss_is_the_mean_negative_log_probability_of_the_targets(made, hidden, targets):
    logs = plain_log_softmax(made, hidden)
    mean = -sum(logs[row][target] for row, target in enumerate(targets.tolist())) / ROWS
    assert made.loss(hidden, targets).item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("columns", [1, 3, VOCABULARY, 1024])
@pytest.mark.parametrize("rows", [1, 4, 1024])
def test_a_score_in_blocks_equals_the_score_of_all_rows(
    made, hidden, targets, monkeypatch, rows, columns
):
    expected = ROWS * made.loss(hidden, targets).item()
    logs = zip(plain_log_softmax(made, hidden), targets.tolist(), strict=True)
    likeliest = sum(row.index(max(row)) == target for row, target in logs)
    assert 0 < likeliest < ROWS
    monkeypatch.setattr(cross_entropy, "COLUMNS", columns)
    monkeypatch.setattr(cross_entropy, "ROWS", rows)
    nats, hits = made.score(hidden, targets)
    assert nats == pytest.approx(expected, rel=1e-5)
    assert hits == likeliest


@pytest.mark.parametrize("at_once", [1, 3 * VOCABULARY + 2, 1 << 24])
def test_a_replaced_linear_layer_is_scored_a_few_rows_at_a_time(
    made, hidden, targets, monkeypatch, at_once
):
    expected = made.score(hidden, targets)
    linear, sizes = made.linear, []
    linear.register_forward_hook(lambda module, given, out: sizes.append(out.numel()))
    made.replace_linear(lambda name: linear)
    monkeypatch.setattr(softmax, "LOGITS_AT_ONCE", at_once)
    nats, hits = made.score(hidden, targets)
    assert (nats, hits) == (pytest.approx(expected[0], rel=1e-6), expected[1])
    assert max(sizes) <= max(at_once, VOCABULARY)


def test_the_score_of_no_targets_is_zero(made):
    assert made.score(torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.long)) == (0.0, 0)


def test_the_loss_is_reduced_in_float32(made, hidden, targets):
    halved = full()
    halved.load_state_dict(made.state_dict())
    halved.to(torch.bfloat16)
    assert halved.loss(hidden.bfloat16(), targets).dtype == torch.float32
    assert halved.log_probabilities(hidden.bfloat16()).dtype == torch.float32


def test_a_tied_matrix_is_the_same_parameter_as_the_embedding():
    embedding = nn.Embedding(VOCABULARY, WIDTH)
    made = full(embedding.weight)
    assert made.linear.weight is embedding.weight
    assert made.linear.bias.shape == (VOCABULARY,)


def test_checkpoints_name_the_weights_as_they_did(made):
    assert list(made.state_dict()) == ["linear.weight", "linear.bias"]


def test_a_replaced_linear_layer_gives_the_logits(made, hidden, targets):
    matrix, bias = (parameter.detach().clone() for parameter in made.parameters())
    twice = nn.Linear(WIDTH, VOCABULARY)
    twice.load_state_dict({"weight": 2 * matrix, "bias": bias})
    before, asked = made.logits(hidden), []
    made.replace_linear(lambda name: asked.append(name) or twice)
    assert asked == ["linear"]
    assert torch.allclose(made.logits(hidden), 2 * before - bias, atol=1e-5)
    assert made.score(hidden, targets)[0] == pytest.approx(
        ROWS * made.loss(hidden, targets).item(), rel=1e-5
    )


@pytest.mark.parametrize("never", [0, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_by_their_tempered_probabilities(made, hidden, temperature, never):
    rows, draws = 2, 20_000
    many = hidden[:rows].repeat_interleave(draws, dim=0)
    ids = made.draw(many, temperature, never, torch.Generator().manual_seed(1))
    expected = (made.log_probabilities(hidden[:rows]) / temperature)[:, never:].softmax(dim=-1)
    assert_drawn_from(ids.view(rows, draws), expected, never)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("softmax", ["full", "adaptive model.softmax.cutoffs=[20,50]", "mixture"])
def test_the_same_tokens_are_drawn_within_and_without(softmax: str, precision: str) -> None:
    words = [
        f"model/{word}" if number == 0 else word
        for number, word in enumerate(f"softmax={softmax}".split())
    ]
    torch.manual_seed(0)
    config = compose([*words, "model.hidden_size=16"]).model
    model = build("model", config, 90, precision)
    hidden, before = torch.randn(200, 16), [part.clone() for part in model.parameters()]

    def drawn() -> list[int]:
        generator = torch.Generator().manual_seed(1)
        found: list[int] = model.softmax.draw(hidden, 0.9, 3, generator).tolist()
        return found

    with torch.inference_mode():
        expected = drawn()
        with model.softmax.drawing():
            found = drawn()
        assert drawn() == expected
    assert len(set(expected)) > 20
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    assert same >= 199  # a bias that is rounded too may move a draw at the edge
    assert all(map(torch.equal, model.parameters(), before))
    assert all(part.dtype == torch.float32 for part in model.parameters())
