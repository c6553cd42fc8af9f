"""Rounds of gating between input and state, compared with the paper's equations written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unroll.models import mogrifier
from unroll.models.language_model import LanguageModel
from unroll.registry import build

CELLS = ["rnn", "lstm", "gru"]
LSTM = {"mogrifier_rounds": 5, "mogrifier_rank": 3, "hidden_size": 6, "layers": 2}


@pytest.fixture(scope="session")
def cell(composed):
    def cell_(name: str, input_size: int, implementation: str = "library", **changes):
        config = replace(composed(f"model={name}").model, implementation=implementation, **changes)
        return build(f"cell/{implementation}", config, input_size).double()

    return cell_


def matrix(weights: dict[str, Tensor], name: str, end: str) -> Tensor:
    """Q^i or R^i, which may be a product of two."""
    if (full := weights.get(f"mogrifier.weight_{name}{end}")) is not None:
        return full
    left, right = (weights[f"mogrifier.weight_{name}_{side}{end}"] for side in ("left", "right"))
    return left @ right


def read(name, rounds, weights, end, inputs, state):
    """Equations 1 and 2 of Melis et al. 2020 before PyTorch's step of the cell, for one layer."""
    own = [weights[f"{kind}{end}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    h, *rest = state
    outputs = []
    for x in inputs.unbind(1):
        for i in range(1, rounds + 1):
            if i % 2:
                x = 2 * torch.sigmoid(h @ matrix(weights, f"q{i}", end).T) * x
            else:
                h = 2 * torch.sigmoid(x @ matrix(weights, f"r{i}", end).T) * h
        if name == "lstm":
            h, *rest = torch.lstm_cell(x, (h, *rest), *own)
        else:
            h = (torch.gru_cell if name == "gru" else torch.rnn_tanh_cell)(x, h, *own)
        outputs.append(h)
    return torch.stack(outputs, dim=1), [h, *rest]


def written_out(name, made, inputs, state):
    """All layers; what one direction reads backwards comes back in the order of the text."""
    config, weights = made.config, dict(made.module.named_parameters())
    ends = []
    for layer in range(config.layers):
        sides = []
        for side in ("", "_reverse") if config.bidirectional else ("",):
            before = [part[len(ends)] for part in state]
            ordered = inputs.flip(1) if side else inputs
            outputs, after = read(
                name, config.mogrifier_rounds, weights, f"_l{layer}{side}", ordered, before
            )
            sides.append(outputs.flip(1) if side else outputs)
            ends.append(after)
        inputs = torch.cat(sides, dim=-1)
    return inputs, [torch.stack(part) for part in zip(*ends, strict=True)]


def loss_and_gradients(run, made, inputs, state):
    """Hidden states, last state, and gradients of a loss that both enter."""
    inputs = inputs.clone().requires_grad_()
    state = [part.clone().requires_grad_() for part in state]
    hidden, after = run(inputs, state)
    made.zero_grad()
    loss = hidden.square().sum() + sum((part * (n + 2)).sum() for n, part in enumerate(after))
    loss.backward()
    gradients = [inputs.grad, *(part.grad for part in state)]
    gradients += [parameter.grad for parameter in made.parameters()]
    return [hidden, *after, loss, *gradients]


def as_made(made):
    def run(inputs, state):
        hidden, after = made(inputs, tuple(state) if len(state) > 1 else state[0])
        return hidden, list(made.state_parts(after))

    return run


@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("name", CELLS)
@given(
    rounds=st.integers(1, 6),
    rank=st.none() | st.integers(1, 4),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    batch=st.integers(1, 3),
    time=st.integers(1, 6),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=12, deadline=None)
def test_a_cell_equals_the_papers_equations_in_loss_and_gradients(
    cell, name, implementation, rounds, rank, sizes, batch, time, layers, bidirectional, seed
):
    torch.manual_seed(seed)
    changes = {"mogrifier_rounds": rounds, "mogrifier_rank": rank, "layers": layers}
    changes |= {"hidden_size": sizes[1], "bidirectional": bidirectional}
    made = cell(name, sizes[0], implementation, **changes)
    inputs = torch.randn(batch, time, sizes[0], dtype=torch.float64)
    state = [torch.randn_like(part) for part in made.state_parts(made.initial_state(batch))]
    found = loss_and_gradients(as_made(made), made, inputs, state)
    expected = loss_and_gradients(
        lambda *given_: written_out(name, made, *given_), made, inputs, state
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", CELLS)
def test_without_a_graph_and_token_by_token_it_computes_the_same(cell, name):
    made = cell(name, 4, **LSTM)
    inputs = torch.randn(3, 7, 4, dtype=torch.float64)
    whole, last = made(inputs, made.initial_state(3))
    state, steps = made.initial_state(3), []
    with torch.inference_mode():
        for part in (inputs[:, :3], inputs[:, 3:4], inputs[:, 4:]):
            hidden, state = made(part, state)
            steps.append(hidden)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    torch.testing.assert_close(state, last)


def test_a_graph_that_is_kept_gives_the_same_gradient_again(cell):
    made = cell("lstm", 4, **LSTM)
    hidden, _ = made(torch.randn(3, 7, 4, dtype=torch.float64), made.initial_state(3))
    loss, weights = hidden.square().sum(), list(made.parameters())
    once = torch.autograd.grad(loss, weights, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, weights), once, rtol=0, atol=0)


@pytest.mark.parametrize("name", CELLS)
def test_without_rounds_nothing_is_added_or_drawn(cell, name):
    torch.manual_seed(5)
    plain = cell(name, 3, hidden_size=4)
    follows = torch.rand(1)
    torch.manual_seed(5)
    gated = cell(name, 3, hidden_size=4, mogrifier_rounds=2)
    own = dict(gated.module.named_parameters())
    assert plain.module.mogrifier is None
    assert set(own) - set(dict(plain.module.named_parameters())) == {
        "mogrifier.weight_q1_l0",
        "mogrifier.weight_r2_l0",
    }
    assert all(torch.equal(own[key], value) for key, value in plain.module.named_parameters())
    torch.manual_seed(5)
    {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name](3, 4)
    assert torch.equal(torch.rand(1), follows)


@pytest.mark.parametrize("rank", [None, 20])
def test_matrices_start_with_the_variance_of_one_over_the_numbers_that_they_read(cell, rank):
    made = cell("lstm", 100, hidden_size=400, mogrifier_rounds=2, mogrifier_rank=rank)
    weights = dict(made.module.named_parameters())
    for name, shape in (("q1", (100, 400)), ("r2", (400, 100))):
        found = matrix(weights, name, "_l0")
        assert found.shape == shape
        assert found.mean().abs() < 0.01
        assert found.var().item() == pytest.approx(1 / shape[1], rel=0.15)


@pytest.mark.parametrize("small", [0, mogrifier.SMALL])
@pytest.mark.parametrize("name", CELLS)
def test_bfloat16_changes_outputs_and_gradients_by_little(cell, monkeypatch, name, small):
    monkeypatch.setattr(mogrifier, "SMALL", small)  # 0: the products of a step are rounded too
    torch.manual_seed(0)
    made = cell(name, 8, **LSTM | {"hidden_size": 16}).float()
    inputs, state = torch.randn(4, 12, 8), made.state_parts(made.initial_state(4))
    expected = loss_and_gradients(as_made(made), made, inputs, state)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_and_gradients(as_made(made), made, inputs, state)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.03 * other.norm()
    assert not torch.equal(found[-1], expected[-1])


def test_a_model_learns_through_its_gates(composed):
    """A step against the gradient lowers the loss by what the gradient promises."""
    torch.manual_seed(1)
    config = replace(composed("model=lstm").model, embedding_size=5, **LSTM)
    made = LanguageModel(config, 11).double()
    ids = torch.randint(0, 11, (2, 6))

    def loss() -> Tensor:
        hidden, _ = made(ids, made.initial_state(2))
        return made.softmax.loss(hidden.flatten(0, 1), ids.flatten())

    before = loss()
    before.backward()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
            parameter -= 1e-5 * parameter.grad
    promised = 1e-5 * sum(parameter.grad.square().sum() for parameter in made.parameters())
    torch.testing.assert_close(before - loss(), promised, rtol=1e-3, atol=0)
