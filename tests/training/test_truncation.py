"""Truncation of back-propagation, against the full gradient and against cuts written out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unroll.app import compose
from unroll.errors import Refused
from unroll.models.language_model import LanguageModel
from unroll.registry import build
from unroll.training.truncation import Truncation

CELLS = ["rnn", "lstm", "gru"]
WINDOWS = ["data/batching=windows", "evaluation.protocol=window"]
VOCABULARY, ROWS, TIME = 7, 2, 6
IDS = torch.randint(VOCABULARY, (ROWS, TIME + 1), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model(composed):
    """A model in float64, with weights so large that a cut changes the gradient."""

    def model_(cell: str, layers: int = 2) -> LanguageModel:
        torch.manual_seed(1)
        sizes = {"embedding_size": 3, "hidden_size": 3, "layers": layers}
        made = LanguageModel(replace(composed(f"model={cell}").model, **sizes), VOCABULARY)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter *= 2
        return made.double()

    return model_


@pytest.fixture
def truncation(composed):
    def truncation_(name: str, seed: int = 1, **changes: float) -> Truncation:
        config = composed(f"training/truncation={name}").training.truncation
        return build("training/truncation", replace(config, **changes), seed)

    return truncation_


def loss_of(model: LanguageModel, hidden: Tensor) -> Tensor:
    return model.softmax.loss(hidden.flatten(0, 1), IDS[:, 1:].flatten())


def gradient(model: LanguageModel, truncation: Truncation) -> Tensor:
    """The gradient over all parameters, as one vector."""
    hidden, _ = truncation.unroll(model, IDS[:, :-1], model.initial_state(ROWS))
    parts = torch.autograd.grad(loss_of(model, hidden), list(model.parameters()))
    return torch.cat([part.flatten() for part in parts])


def cut_by_hand(model: LanguageModel, steps: int) -> Tensor:
    """One step at a time; every ``steps`` steps a new state is built from the numbers."""
    state, hidden = model.initial_state(ROWS), []
    for time in range(TIME):
        if time % steps == 0:
            parts = state if isinstance(state, tuple) else (state,)
            parts = tuple(torch.tensor(part.tolist(), dtype=part.dtype) for part in parts)
            state = parts if isinstance(state, tuple) else parts[0]
        out, state = model(IDS[:, time : time + 1], state)
        hidden.append(out)
    loss = loss_of(model, torch.cat(hidden, dim=1))
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts])


def close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("cell", CELLS)
def test_fixed_equals_the_cuts_written_out(model, truncation, cell, steps):
    made = model(cell)
    found = gradient(made, truncation("fixed", steps=steps))
    assert close(found, cut_by_hand(made, steps))
    assert not torch.allclose(found, gradient(made, truncation("full")), rtol=1e-3)


@pytest.mark.parametrize("steps", [TIME, TIME + 1, 1000])
@pytest.mark.parametrize("cell", CELLS)
def test_fixed_with_the_length_of_the_sequence_or_more_is_full(model, truncation, cell, steps):
    made = model(cell)
    full = gradient(made, truncation("full"))
    assert torch.equal(gradient(made, truncation("fixed", steps=steps)), full)
    assert close(full, cut_by_hand(made, TIME))


@pytest.mark.parametrize(
    ("cell", "every", "keep"), [("rnn", 2, 0.6), ("lstm", 2, 0.25), ("gru", 3, 0.9), ("lstm", 4, 1)]
)
def test_the_expectation_of_random_is_the_full_gradient(
    model, truncation, monkeypatch, cell, every, keep
):
    """Summed over all outcomes of the coins, weighted by probability: an exact expectation."""
    made, random = model(cell), truncation("random", every=every, keep=keep)
    full = gradient(made, truncation("full"))
    coins = ROWS * (math.ceil(TIME / every) - 1)
    expected, variance = torch.zeros_like(full), 0.0
    for kept in itertools.product([False, True], repeat=coins):
        chance = math.prod(keep if coin else 1 - keep for coin in kept)
        tosses = iter(torch.tensor(kept).double().reshape(-1, ROWS) / keep)
        monkeypatch.setattr(random, "draw", lambda rows, tosses=tosses: next(tosses))
        found = gradient(made, random)
        expected += chance * found
        variance += chance * float((found - full).square().sum())
    assert close(expected, full)
    assert (variance > 1e-6) == (keep < 1), "unbiased, at the cost of variance"


def test_every_row_has_its_own_coin_of_probability_keep(truncation):
    random, tosses = truncation("random", keep=0.2), 20_000
    drawn = random.draw(tosses)
    assert set(drawn.tolist()) == {0.0, 5.0}
    share = float((drawn > 0).double().mean())
    assert abs(share - 0.2) < 5 * math.sqrt(0.2 * 0.8 / tosses)


def test_a_gradient_may_be_cut_at_every_so_many_steps_and_nowhere_else(
    model, truncation, monkeypatch
):
    made = model("gru")
    for every, places in ((1, 5), (2, 2), (4, 1), (6, 0), (9, 0)):
        random, asked = truncation("random", every=every), []
        monkeypatch.setattr(
            random, "draw", lambda rows, asked=asked: asked.append(rows) or torch.ones(rows)
        )
        random.unroll(made, IDS[:, :-1], made.initial_state(ROWS))
        assert asked == [ROWS] * places


def test_cutting_everywhere_is_fixed_at_one_step(model, truncation, monkeypatch):
    made, random = model("lstm"), truncation("random")
    monkeypatch.setattr(random, "draw", torch.zeros)
    assert close(gradient(made, random), gradient(made, truncation("fixed", steps=1)))


def test_random_is_repeatable_with_its_seed(model, truncation):
    made = model("lstm")
    first, again, other = (truncation("random", seed, keep=0.5) for seed in (1, 1, 2))
    for _ in range(3):
        assert torch.equal(gradient(made, first), gradient(made, again))
    assert not torch.equal(gradient(made, first), gradient(made, other))
    assert not torch.equal(gradient(made, first), gradient(made, first))


@pytest.mark.parametrize(
    ("name", "changes"),
    [("fixed", {"steps": 1}), ("fixed", {"steps": 4}), ("random", {"keep": 0.3})],
)
@pytest.mark.parametrize("cell", CELLS)
def test_the_forward_pass_is_the_same_for_every_truncation(model, truncation, cell, name, changes):
    made = model(cell)
    start = made.cell.map_state(made.initial_state(ROWS), lambda part: part + 0.3)
    expected, last = made(IDS[:, :-1], start)
    hidden, state = truncation(name, **changes).unroll(made, IDS[:, :-1], start)
    assert close(hidden, expected)
    pairs = zip(state, last, strict=True) if isinstance(state, tuple) else [(state, last)]
    assert all(close(part, other) for part, other in pairs)


@pytest.mark.parametrize("cell", CELLS)
def test_scaling_a_gradient_does_not_change_the_numbers_of_the_state(model, cell):
    made = model(cell)
    _, state = made(IDS, made.initial_state(ROWS))
    factors = torch.tensor([0.0, 1 / 0.3], dtype=torch.float64)
    scaled = made.scale_gradient(state, factors)
    for part, now in zip(
        state if isinstance(state, tuple) else (state,),
        scaled if isinstance(scaled, tuple) else (scaled,),
        strict=True,
    ):
        assert torch.equal(part, now)
        (back,) = torch.autograd.grad(now.sum(), part)
        assert torch.equal(back, factors[:, None].expand_as(part))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["training.truncation=fixed", "training.truncation.steps=0"], "at least 1"),
        (["training.truncation=random", "training.truncation.every=0"], "at least 1"),
        (["training.truncation=random", "training.truncation.keep=0"], "above 0 and at most 1"),
        (["training.truncation=random", "training.truncation.keep=1.1"], "above 0 and at most 1"),
        (["training.truncation=random", "training.truncation.keep=nan"], "must be finite"),
        (["training.truncation.steps=4"], "steps"),
        (
            ["training.truncation=fixed", "model.bidirectional=true", *WINDOWS],
            "set training/truncation=full",
        ),
    ],
)
def test_an_invalid_truncation_is_refused(words, line):
    with pytest.raises(Refused, match=line):
        compose(words)
