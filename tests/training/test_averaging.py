"""Averages of the weights: their formulas, when they start, and where they are used."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unroll.errors import Refused
from unroll.training.averaging import EMA, Triggered
from unroll.training.config import EMAConfig, TriggeredConfig, require_validation_split

PER_EPOCH = 7
WEIGHTS = st.lists(st.floats(-10, 10), min_size=1, max_size=30)


def numbers(averaging) -> float:
    """The only weight of the model that is validated."""
    with averaging.used():
        return averaging.model.weight.item()


def single() -> nn.Linear:
    return nn.Linear(1, 1, bias=False, dtype=torch.float64)


@given(WEIGHTS, st.sampled_from([0.0, 0.5, 0.9, 0.999]))
def test_a_moving_average_weighs_each_step_by_the_decay_to_the_power_of_its_age(weights, decay):
    model = single()
    averaging = EMA(EMAConfig("ema", decay), model)
    for weight in weights:
        model.weight.data.fill_(weight)
        averaging.after_step()
    shares = [decay ** (len(weights) - 1 - place) for place in range(len(weights))]
    expected = sum(map(math.prod, zip(shares, weights, strict=True))) / sum(shares)
    assert numbers(averaging) == pytest.approx(expected, abs=1e-9)
    assert model.weight.item() == weights[-1], "the training goes on with the weights themselves"


def algorithm_1(weights: list[float], losses: list[float], patience: int) -> float:
    """Merity et al. 2018, with a validation after every step."""
    logs: list[float] = []
    trigger = None
    for step, loss in enumerate(losses):
        if trigger is None and len(logs) > patience and loss > min(logs[: len(logs) - patience]):
            trigger = step
        logs.append(loss)
    if trigger is None:
        return weights[-1]
    return sum(weights[trigger:]) / len(weights[trigger:])


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(1, 9)), min_size=1), st.integers(1, 6))
def test_a_triggered_average_is_the_mean_since_the_trigger_of_the_paper(steps, patience):
    model = single()
    averaging = Triggered(TriggeredConfig("triggered", patience), model)
    for weight, loss in steps:
        model.weight.data.fill_(weight)
        averaging.after_step()
        averaging.after_validation(float(loss))
    weights, losses = zip(*steps, strict=True)
    expected = algorithm_1(list(weights), list(losses), patience)
    assert numbers(averaging) == pytest.approx(expected, abs=1e-9)


EMA_WORDS = ("training/averaging=ema", "training.averaging.decay=0.8")


def test_validation_and_checkpoints_see_the_average_and_the_training_does_not(training):
    made, plain = (training(*words, losses=[3.0, 2.0]) for words in (EMA_WORDS, ()))
    seen, path = [], []
    for one, notes in ((made, seen), (plain, path)):
        for name in ("validate", "save"):
            call = getattr(one.diary, name)

            def noted(*given_, one=one, notes=notes, call=call, name=name):
                notes.append((name, [weight.clone() for weight in one.parameters]))
                return call(*given_)

            setattr(one.diary, name, noted)
    made.trainer.fit(), plain.trainer.fit()
    assert all(map(torch.equal, made.parameters, plain.parameters))
    assert [name for name, _ in seen] == ["validate", "save", "validate", "save", "save"]
    averages = [weights for _, weights in seen]
    assert all(map(torch.equal, averages[0], averages[1]))
    assert all(map(torch.equal, averages[2], averages[4]))
    assert not any(map(torch.equal, averages[0], path[0][1]))


def test_the_average_of_a_training_is_that_of_its_weights_after_each_step(training):
    made, weights = training(*EMA_WORDS, model={"tie_weights": True}), []
    step = made.trainer.averaging.after_step
    made.trainer.averaging.after_step = lambda: (
        weights.append([weight.clone() for weight in made.parameters]), step()
    )  # fmt: skip
    assert made.trainer.fit().steps == len(weights) == 2 * PER_EPOCH
    shares = torch.tensor([0.8 ** (13 - place) for place in range(14)])
    shares /= shares.sum()
    for place, found in enumerate(made.trainer.averaging.average):
        path = torch.stack([step_[place] for step_ in weights], dim=-1)
        assert torch.allclose(found, path @ shares, atol=1e-6)


def test_a_state_that_is_asked_for_while_the_average_is_used_has_the_weights(training):
    made = training(*EMA_WORDS, model={"tie_weights": True})
    made.trainer.fit()
    before = {name: part.clone() for name, part in made.model.state_dict().items()}
    with made.trainer.averaging.used():
        state = made.trainer.state_dict()["model"]
        assert not torch.equal(made.model.embedding.weight, before["embedding.weight"])
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert all(torch.equal(part, before[name]) for name, part in made.model.state_dict().items())


def test_a_trigger_needs_a_validation_split(composed):
    config = composed("training/averaging=triggered")
    require_validation_split(config.training, config.optimizer, {"train", "valid"})
    with pytest.raises(Refused, match="training/averaging=triggered needs a validation split"):
        require_validation_split(config.training, config.optimizer, {"train"})
