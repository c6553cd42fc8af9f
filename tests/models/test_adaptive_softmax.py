"""The adaptive softmax against its probabilities written out token by token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drawn import assert_drawn_from
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.errors import Refused
from unroll.models.adaptive_softmax import AdaptiveSoftmax
from unroll.models.config import AdaptiveSoftmaxConfig
from unroll.models.language_model import LanguageModel
from unroll.models.precision import Precision
from unroll.registry import build

WIDTH, VOCABULARY = 8, 30


def adaptive(cutoffs=(6, 15), div_value=2.0, tied=None, scale=3.0, seed=1) -> AdaptiveSoftmax:
    torch.manual_seed(seed)
    config = AdaptiveSoftmaxConfig("adaptive", list(cutoffs), div_value)
    made = build("model/softmax", config, WIDTH, VOCABULARY, Precision("float32"), tied)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter *= scale
    return made


def vectors(n: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def written_out(made: AdaptiveSoftmax, hidden: torch.Tensor) -> torch.Tensor:
    """p of each token, ``(n, vocabulary)``."""
    weights, biases = made._weights(), made.bias.split(made.sizes)
    logits = torch.cat(
        [hidden @ weights[0].T + biases[0], hidden @ made.tail_weight.T + made.tail_bias], dim=1
    )
    head = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    found = [head[:, : made.sizes[0]]]
    for tail in made.tails:
        narrow = getattr(made, f"projection_{tail}", torch.eye(WIDTH).to(hidden))
        inside = (hidden @ narrow.T @ weights[tail].T + biases[tail]).exp()
        gate = head[:, made.sizes[0] + tail - 1, None]
        found.append(gate * inside / inside.sum(dim=1, keepdim=True))
    return torch.cat(found, dim=1)


shapes = given(
    n=st.integers(1, 12),
    cutoffs=st.lists(st.integers(4, VOCABULARY - 1), min_size=1, max_size=4, unique=True),
    div_value=st.sampled_from([1.0, 2.0, 4.0]),
    tied=st.booleans(),
    seed=st.integers(0, 50),
)


@settings(max_examples=60, deadline=None)
@shapes
def test_loss_gradients_and_scores_equal_those_of_the_probabilities(
    n, cutoffs, div_value, tied, seed
):
    matrix = torch.nn.Parameter(torch.randn(VOCABULARY, WIDTH)) if tied else None
    made = adaptive(sorted(cutoffs), 1.0 if tied else div_value, matrix, seed=seed)
    hidden = vectors(n, seed)
    targets = torch.randint(VOCABULARY, (n,), generator=torch.Generator().manual_seed(seed))
    found = made.log_probabilities(hidden), made.loss(hidden, targets), made.score(hidden, targets)
    made, hidden = made.double(), hidden.double().requires_grad_()
    chances = written_out(made, hidden)
    own = chances.gather(1, targets[:, None]).squeeze(1)
    expected = -own.log().mean()
    torch.testing.assert_close(found[0].exp(), chances.float())
    assert found[1].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    hits = int((own >= chances.amax(dim=1)).sum())
    assert found[2] == (pytest.approx(n * expected.item(), rel=1e-4, abs=1e-4), hits)
    inputs = [hidden, *made.parameters()]
    wanted = torch.autograd.grad(2 * expected, inputs)
    for ours, other in zip(
        torch.autograd.grad(2 * made.loss(hidden, targets), inputs), wanted, strict=True
    ):
        torch.testing.assert_close(ours, other)


def test_the_best_tokens_of_every_cluster_are_hits_and_the_second_best_are_not():
    made, hidden = adaptive(), vectors(400)
    best = made.log_probabilities(hidden).topk(2, dim=1).indices
    assert set(made._cluster(best[:, 0]).tolist()) == {0, 1, 2}
    assert made.score(hidden, best[:, 0])[1] == 400
    assert made.score(hidden, best[:, 1])[1] == 0
    assert made.score(hidden[:0], best[:0, 0]) == (0.0, 0)


@pytest.mark.parametrize("never", [0, 3])
@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 1.7])
def test_tokens_are_drawn_by_their_tempered_probabilities(temperature, never):
    made, hidden, draws = adaptive(), vectors(3), 20_000
    many = hidden.repeat_interleave(draws, dim=0)
    ids = made.draw(many, temperature, never, torch.Generator().manual_seed(1)).view(3, -1)
    expected = (made.log_probabilities(hidden)[:, never:] / temperature).softmax(dim=1)
    assert_drawn_from(ids, expected, never)


def test_a_tied_softmax_shares_the_rows_of_the_embedding(composed):
    config = composed("model=gru", "model/softmax=adaptive").model
    softmax = replace(config.softmax, cutoffs=[5, 9], div_value=1.0)
    sizes = {"embedding_size": 6, "hidden_size": 6, "tie_weights": True}
    made = LanguageModel(replace(config, softmax=softmax, **sizes), 20)
    assert made.softmax.tied is made.embedding.weight
    own = sum(parameter.numel() for parameter in made.softmax.parameters()) - 20 * 6
    assert own == 20 + 2 * 6 + 2  # biases, and two entries of the head
    with pytest.raises(Refused, match=r"set model\.softmax\.div_value=1"):
        LanguageModel(replace(config, softmax=replace(softmax, div_value=4.0), **sizes), 20)


def test_cutoffs_are_chosen_by_the_share_of_the_text_before_them():
    counts = [40, 20, 10, 6, 4, 6, 4, 3, 2, 1, 1, 1, 1, 1]  # sums: 80 after 5, 95 after 9
    config = AdaptiveSoftmaxConfig("adaptive", None, 4.0)
    assert config.fitted(lambda: counts).cutoffs == [5, 9]
    given_ = replace(config, cutoffs=[7])
    assert given_.fitted(lambda: counts) is given_
    with pytest.raises(Refused, match="too small for clusters"):
        config.fitted(lambda: [1, 1, 1, 1])


@pytest.mark.parametrize("cutoffs", [[], [3], [9, 6], [6, 6]])
def test_cutoffs_that_do_not_increase_are_refused(cutoffs):
    with pytest.raises(Refused, match="increasing ids from 4 on"):
        adaptive(cutoffs)


@pytest.mark.parametrize("div_value", [0.5, float("inf"), float("nan")])
def test_a_div_value_that_would_widen_the_tails_is_refused(div_value):
    with pytest.raises(Refused, match="must be at least 1"):
        adaptive(div_value=div_value)


def test_cutoffs_outside_the_vocabulary_or_unknown_are_refused():
    with pytest.raises(Refused, match="must be below the 30 tokens"):
        adaptive([6, 30])
    config = AdaptiveSoftmaxConfig("adaptive", None, 4.0)
    with pytest.raises(Refused, match="give cutoffs"):
        AdaptiveSoftmax(config, WIDTH, VOCABULARY, Precision("float32"))
    with pytest.raises(Refused, match="model/softmax=full"):
        adaptive().replace_linear(torch.nn.Linear)
