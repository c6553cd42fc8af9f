"""Gradient flow, compared with closed forms and with products of Jacobians."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unroll.app import compose
from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.evaluation.gradient_flow import gradient_flow
from unroll.models.language_model import LanguageModel

VOCABULARY, HIDDEN, STEPS = 9, 4, 8


def stream(tokens: int = 60) -> TokenStream:
    return TokenStream.from_documents([np.random.default_rng(2).integers(0, VOCABULARY, tokens)])


@pytest.fixture
def model(composed):
    def model_(cell: str, *overrides: str, **changes) -> LanguageModel:
        torch.manual_seed(4)
        sizes = {"embedding_size": 3, "hidden_size": HIDDEN} | changes
        config = replace(composed(f"model={cell}", *overrides).model, **sizes)
        return LanguageModel(config, VOCABULARY).double()

    return model_


def last_window() -> tuple[Tensor, Tensor]:
    """The inputs and the target if there is one sequence: the stream's first tokens."""
    ids = torch.from_numpy(stream().tokens[: STEPS + 2].astype(np.int64))
    return ids[:-1], ids[-1]


def root_mean_square(norms: list[list[float]]) -> list[float]:
    """Over rows, of ``norms[row][k]``."""
    return [math.sqrt(sum(n * n for n in at) / len(at)) for at in zip(*norms, strict=True)]


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.1])
def test_a_linear_recurrence_shrinks_or_grows_by_its_factor_every_step(model, factor):
    """relu with positive states is linear: with W = factor * I the gradient falls as factor^k."""
    made = model("rnn", nonlinearity="relu")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.abs_()
        made.cell.module.weight_hh_l0.copy_(factor * torch.eye(HIDDEN))
    found = gradient_flow(made, stream(), STEPS, batch_size=5)
    assert len(found) == STEPS + 1
    assert found[0] > 0
    assert [norm / found[0] for norm in found] == pytest.approx(
        [factor**k for k in range(STEPS + 1)]
    )


def test_a_factor_of_0_8_leaves_0_107_after_10_steps_and_0_000014_after_50(model):
    made = model("rnn", nonlinearity="relu")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.abs_()
        made.cell.module.weight_hh_l0.copy_(0.8 * torch.eye(HIDDEN))
    found = gradient_flow(made, stream(), 50, batch_size=2)
    assert round(found[10] / found[0], 3) == 0.107
    assert round(found[50] / found[0], 6) == 0.000014


def test_in_a_tanh_rnn_it_is_the_product_of_jacobians(model):
    """d h_t / d h_(t-1) = diag(1 - h_t^2) W, and the loss starts it with U^T (p - y)."""
    made = model("rnn")
    inputs, target = last_window()
    module, (weight, _) = made.cell.module, made.softmax.parameters()
    w_ih, w_hh, b_ih, b_hh = (parameter.detach() for parameter in module.parameters())
    states = [torch.zeros(HIDDEN, dtype=torch.float64)]
    for token in inputs:
        given = w_ih @ made.embedding.weight[token].detach() + b_ih
        states.append(torch.tanh(given + w_hh @ states[-1] + b_hh))
    wrong = torch.softmax(made.softmax.logits(states[-1]), dim=0) - F.one_hot(target, VOCABULARY)
    gradient = (weight.T @ wrong).detach()
    expected = [float(gradient.norm())]
    for state in reversed(states[2:]):
        gradient = w_hh.T @ ((1 - state**2) * gradient)
        expected.append(float(gradient.norm()))
    assert gradient_flow(made, stream(), STEPS, batch_size=1) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_it_is_the_gradient_at_the_state_from_which_the_rest_is_read(model, cell, layers):
    """Each norm by itself: the state before the last k tokens is a leaf of the graph."""
    made = model(cell, layers=layers)
    inputs, target = last_window()
    found = gradient_flow(made, stream(), STEPS, batch_size=1)
    for k in range(1, STEPS + 1):
        with torch.no_grad():
            _, state = made(inputs[None, :-k], made.initial_state(1))
        state = made.cell.map_state(state, lambda part: part.clone().requires_grad_())
        hidden, _ = made(inputs[None, -k:], state)
        leaves = made.state_parts(state)
        assert len(leaves) == (2 if cell == "lstm" else 1)
        gradients = torch.autograd.grad(made.softmax.loss(hidden[:, -1], target[None]), leaves)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert found[k] == pytest.approx(float(norm), rel=1e-6)


def test_over_sequences_it_is_their_root_mean_square(model):
    made, whole = model("gru"), stream()
    starts = [0, 25, 50]  # spread evenly over 60 tokens, 10 a sequence
    alone = [
        gradient_flow(
            made, TokenStream.from_documents([whole.tokens[start : start + 10]]), STEPS, 1
        )
        for start in starts
    ]
    assert gradient_flow(made, whole, STEPS, batch_size=3) == pytest.approx(
        root_mean_square(alone), rel=1e-6
    )


def test_measuring_changes_nothing_and_uses_no_dropout(model):
    made = model("lstm", embedding_dropout=0.5, output_dropout=0.5)
    made.train()
    before = torch.get_rng_state()
    first = gradient_flow(made, stream(), STEPS, batch_size=4)
    assert first == gradient_flow(made, stream(), STEPS, batch_size=4)
    assert made.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in made.parameters())


class NoFloat64(TorchDispatchMode):
    """A device without float64, such as mps."""

    def __torch_dispatch__(self, operation, types, given=(), named=None):
        made = operation(*given, **(named or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float64:
                raise TypeError(f"{operation}: this device has no float64")
        return made


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_no_float64_tensor_is_made_for_a_float32_model(model, cell):
    made = model(cell).float()
    expected = gradient_flow(made, stream(), STEPS, batch_size=4)
    with NoFloat64():
        assert gradient_flow(made, stream(), STEPS, batch_size=4) == expected
        with pytest.raises(TypeError, match="no float64"):
            torch.ones(1).double()


def test_norms_whose_squares_underflow_in_float32_are_not_zero(model):
    made = model("rnn", "model.spectral_radius=0.01").float()
    found = gradient_flow(made, stream(), 15, batch_size=2)
    assert 0 < found[-1] < 1e-25


def test_more_sequences_than_positions_use_each_position_once(model):
    made = model("rnn")
    short = stream(STEPS + 3)
    assert gradient_flow(made, short, STEPS, 2) == gradient_flow(made, short, STEPS, 100)


def test_a_text_that_is_too_short_is_refused_with_its_length(model):
    with pytest.raises(Refused, match="needs a text of at least 10 tokens; this one has 9"):
        gradient_flow(model("rnn"), stream(STEPS + 1), STEPS, 1)
    gradient_flow(model("rnn"), stream(STEPS + 2), STEPS, 1)


def test_a_bidirectional_model_is_refused(model):
    with pytest.raises(Refused, match="bidirectional"):
        gradient_flow(model("rnn", bidirectional=True), stream(), STEPS, 1)


@pytest.mark.parametrize("initialization", ["default", "orthogonal", "normal"])
@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_recurrent_matrix_gets_the_configured_spectral_radius(
    model, cell, implementation, initialization
):
    changes = {"initialization": initialization, "implementation": implementation}
    made = model(cell, layers=2, spectral_radius=1.3, **changes)
    drawn = model(cell, layers=2, **changes)
    seen = 0
    for (name, found), before in zip(made.named_parameters(), drawn.parameters(), strict=True):
        if "weight_hh" not in name:
            assert torch.equal(found, before)
            continue
        for gate, gate_before in zip(found.split(HIDDEN), before.split(HIDDEN), strict=True):
            radius = np.abs(np.linalg.eigvals(gate.detach().numpy())).max()
            assert radius == pytest.approx(1.3, rel=1e-5)
            ratio = gate / gate_before
            assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-4)
            seen += 1
    assert seen == 2 * {"rnn": 1, "lstm": 4, "gru": 3}[cell]


@pytest.mark.parametrize(
    "word",
    [
        "model.spectral_radius=0",
        "model.spectral_radius=-1",
        "model.spectral_radius=nan",
        "model.spectral_radius=inf",
        "evaluation.gradient_steps=0",
    ],
)
def test_radii_and_steps_that_make_no_sense_are_refused(word):
    with pytest.raises(Refused, match=word.replace(".", r"\.")):
        compose([word])
