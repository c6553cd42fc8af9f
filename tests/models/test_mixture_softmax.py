"""The mixture of softmaxes against its probabilities written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drawn import assert_drawn_from
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.app import compose
from unroll.errors import Refused
from unroll.models import parameters
from unroll.models.config import FullSoftmaxConfig, MixtureSoftmaxConfig
from unroll.models.language_model import LanguageModel
from unroll.models.mixture_softmax import MixtureSoftmax
from unroll.models.precision import Precision
from unroll.registry import build

WIDTH, VOCABULARY = 4, 17


def mixture(components=3, tied=None, scale=3.0, seed=1, precision="float32") -> MixtureSoftmax:
    torch.manual_seed(seed)
    config = MixtureSoftmaxConfig("mixture", components)
    made = build("model/softmax", config, WIDTH, VOCABULARY, Precision(precision), tied)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter *= scale
    return made


def vectors(n: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def ids(n: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(VOCABULARY, (n,), generator=torch.Generator().manual_seed(seed))


def written_out(made: MixtureSoftmax, hidden: torch.Tensor) -> torch.Tensor:
    """p of each token, ``(n, vocabulary)``."""
    found = hidden.new_zeros(len(hidden), VOCABULARY)
    shares = (hidden @ made.shares.weight.T).exp()
    shares = shares / shares.sum(dim=1, keepdim=True)
    for k in range(made.components):
        rows = slice(k * WIDTH, (k + 1) * WIDTH)
        vector = (hidden @ made.latent.weight[rows].T + made.latent.bias[rows]).tanh()
        powers = (vector @ made.linear.weight.T + made.linear.bias).exp()
        found = found + shares[:, k : k + 1] * powers / powers.sum(dim=1, keepdim=True)
    return found


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 12),
    components=st.integers(1, 6),
    tied=st.booleans(),
    rows=st.integers(1, 15),
    seed=st.integers(0, 50),
)
def test_loss_gradients_and_scores_equal_those_of_the_probabilities_in_blocks_of_any_size(
    n, components, tied, rows, seed
):
    matrix = torch.nn.Parameter(torch.randn(VOCABULARY, WIDTH)) if tied else None
    made = mixture(components, matrix, seed=seed)
    made.rows = rows
    hidden, targets = vectors(n, seed), ids(n, seed)
    inputs = [hidden.requires_grad_(), *made.parameters()]
    loss = made.loss(hidden, targets)
    gradients = torch.autograd.grad(loss, inputs)
    logs, scored = made.log_probabilities(hidden), made.score(hidden, targets)
    torch.testing.assert_close(logs.exp().sum(dim=1), torch.ones(n))
    made, hidden = made.double(), hidden.detach().double().requires_grad_()
    chances = written_out(made, hidden)
    own = chances.gather(1, targets[:, None]).squeeze(1)
    expected = -own.log().mean()
    torch.testing.assert_close(logs.exp(), chances.float())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    hits = int((own >= chances.amax(dim=1)).sum())
    assert scored == (pytest.approx(n * expected.item(), rel=1e-4, abs=1e-4), hits)
    twins = torch.autograd.grad(expected, [hidden, *made.parameters()])
    for gradient, twin in zip(gradients, twins, strict=True):
        torch.testing.assert_close(gradient, twin.float(), rtol=1e-3, atol=1e-5)


def test_the_largest_matrix_of_logits_is_bounded_and_its_blocks_are_not_kept():
    made, hidden = mixture(3), vectors(40)
    made.rows = 4
    sizes = []
    made.linear.register_forward_hook(lambda *seen: sizes.append(len(seen[2])))
    made.loss(hidden, ids(40)).backward()
    assert sizes == 20 * [3 * 4]  # 10 blocks, each made once for the loss and once for the gradient


def test_no_target_has_no_score():
    assert mixture().score(vectors(0), ids(0)) == (0.0, 0)


@torch.no_grad()
def test_the_log_probabilities_of_a_mixture_have_a_rank_that_one_softmax_cannot_have():
    full = build(
        "model/softmax", FullSoftmaxConfig("full"), WIDTH, VOCABULARY, Precision("float32"), None
    ).double()
    hidden = vectors(200).double()
    assert torch.linalg.matrix_rank(full.linear(hidden).log_softmax(1), rtol=1e-9) <= WIDTH + 2
    for components, least, most in ((1, 1, WIDTH + 2), (3, WIDTH + 3, VOCABULARY)):
        logs = written_out(mixture(components).double(), hidden).log()
        assert least <= torch.linalg.matrix_rank(logs, rtol=1e-9) <= most


@torch.no_grad()
@pytest.mark.parametrize(("temperature", "never"), [(1.0, 0), (0.7, 3), (1.6, 3)])
def test_drawn_tokens_follow_the_probabilities(temperature, never):
    made, hidden = mixture(scale=2.0), vectors(3)
    draws = 20_000
    generator = torch.Generator().manual_seed(4)
    found = made.draw(hidden.repeat_interleave(draws, dim=0), temperature, never, generator)
    powers = written_out(made, hidden)[:, never:].pow(1 / temperature)
    expected = powers / powers.sum(dim=1, keepdim=True)
    assert_drawn_from(found.view(3, draws), expected, never)


@torch.no_grad()
def test_logits_are_log_probabilities_of_any_shape():
    made, hidden = mixture(), vectors(6)
    whole = made.logits(hidden.view(2, 3, WIDTH))
    torch.testing.assert_close(whole.softmax(-1).view(6, -1), written_out(made, hidden))


def test_bfloat16_rounds_the_products_only():
    made, hidden = mixture(precision="bfloat16"), vectors(9)
    loss = made.loss(hidden, ids(9))
    assert loss.dtype == made.log_probabilities(hidden).dtype == torch.float32
    exact = mixture().loss(hidden, ids(9))
    assert loss.item() == pytest.approx(exact.item(), rel=0.03)
    loss.backward()
    assert made.linear.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_a_model_has_it_by_name_and_lists_its_parameters(composed, name):
    config = composed(f"model={name}", "model/softmax=mixture").model
    config = replace(config, embedding_size=8, hidden_size=8, tie_weights=True)
    made = LanguageModel(config, VOCABULARY)
    assert isinstance(made.softmax, MixtureSoftmax)
    assert made.softmax.linear.weight is made.embedding.weight
    table = parameters.layers(config, VOCABULARY)
    assert sum(layer.parameters for layer in table) == made.parameter_count
    assert {layer.layer: layer.shapes for layer in table}["softmax"] == {
        "bias": [VOCABULARY],
        "latent.weight": [5 * 8, 8],
        "latent.bias": [5 * 8],
        "shares.weight": [5, 8],
    }


def test_int8_and_no_component_are_refused():
    with pytest.raises(Refused, match="model/softmax=mixture cannot be converted to int8"):
        mixture().replace_linear(lambda name: torch.nn.Identity())
    with pytest.raises(Refused, match=r"model\.softmax\.components=0: must be at least 1"):
        compose(["model/softmax=mixture", "model.softmax.components=0"])
