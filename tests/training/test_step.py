"""What a step does not do: read a number from the device, or leave a state that is not whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from unroll.errors import Diverged
from unroll.training import gradients, loop

READING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero",
           "equal", "_coalesce", "repeat_interleave")  # fmt: skip


class NothingRead(TorchDispatchMode):
    """Refuses every operation whose result the host has to wait for on an accelerator."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        assert func.overloadpacket.__name__ not in READING, f"{func} waits for the device"
        if func.overloadpacket.__name__ in ("index", "index_put", "index_put_"):
            masks = [place for place in args[1] if place is not None and place.dtype == torch.bool]
            assert not masks, f"{func} with a mask waits for the device"
        return func(*args, **(kwargs or {}))


def test_the_guard_notices_what_waits_for_a_device():
    ones: list[Callable[[torch.Tensor], Any]] = [
        lambda x: x.item(), float, bool, lambda x: x[x > 0], torch.nonzero,
        lambda x: x.to_sparse().coalesce() if x.dim() else x.item(),
    ]  # fmt: skip
    for read in ones:
        with pytest.raises(AssertionError, match="waits"), NothingRead():
            read(torch.tensor(1.0))


@pytest.mark.parametrize(
    "words",
    [
        ["model=rnn", "optimizer=sgd"],
        ["model=lstm", "optimizer=adam"],
        ["model=gru", "optimizer=adamw", "optimizer/schedule=cosine"],
        ["optimizer=adam", "optimizer.embedding_rows=touched"],
        ["data/batching=windows"],
        ["data/batching=random", "training/truncation=fixed", "training.truncation.steps=2"],
        ["training/truncation=random"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("least", [1, 1000])
def test_a_step_between_two_points_reads_no_number_from_the_device(
    training, monkeypatch, words, least
):
    monkeypatch.setattr(gradients, "SPARSE_FROM", least)
    made = training(*words, log_every=1000, clip_norm=0.5, accumulation=2,
                    model={"output_dropout": 0.2})  # fmt: skip
    trainer = made.trainer
    groups = trainer._groups()
    trainer._step(next(groups))  # the first step is a point of the curves
    group = next(groups)
    with NothingRead():
        trainer._step(group)
    assert trainer.outcome.steps == 2
    assert len(trainer.unread) == 1


# What is read later is the same


@pytest.mark.parametrize("step", [1, 2, 5, 7, 9, 13])
@pytest.mark.parametrize("log_every", [1, 4, 1000])
def test_divergence_is_reported_with_the_step_and_rate_it_happened_at(training, step, log_every):
    rates = ["optimizer/schedule=cosine", "optimizer.schedule.warmup_steps=100"]
    made = training(*rates, log_every=log_every, losses=lambda step: 1.0)
    descend = made.trainer._descend

    def broken(group):
        if made.trainer.outcome.steps == step - 1:
            made.model.embedding.weight.data.fill_(math.nan)
        return descend(group)

    made.trainer._descend = broken
    with pytest.raises(Diverged, match=rf"the loss is NaN at step {step} \(learning rate "
                                       rf"{0.5 * step / 100:g}, "):  # fmt: skip
        made.trainer.fit()
    assert all(saved < step for _, saved in made.diary.saved)
    with pytest.raises(Diverged, match=f"step {step} "):
        made.trainer.state_dict()


def test_a_model_whose_last_step_made_its_weights_infinite_is_not_saved(training):
    made = training(max_steps=1, optimizer={"learning_rate": 1e38}, losses=lambda step: 1.0)
    made.model.embedding.weight.register_hook(lambda gradient: gradient * 1e10)
    with pytest.raises(Diverged, match="the largest weight is infinite at step 1"):
        made.trainer.fit()
    assert made.diary.saved == []


def test_reading_more_often_changes_no_curve(training, monkeypatch):
    rarely = training(log_every=5)
    rarely.trainer.fit()
    monkeypatch.setattr(loop, "READ_AFTER", 2)
    often = training(log_every=5)
    often.trainer.fit()
    assert often.history == rarely.history
    assert often.trainer.outcome.train_loss == rarely.trainer.outcome.train_loss


@pytest.mark.parametrize("words", [["optimizer=sgd"],
                                   ["optimizer=adam", "optimizer.embedding_rows=touched"]],
                         ids=" ".join)  # fmt: skip
def test_a_state_can_be_asked_for_after_every_step_and_continued_from(training, words):
    changes = {"log_every": 4, "losses": lambda step: 1 / step}
    whole, made, states = training(*words, **changes), training(*words, **changes), []
    whole.trainer.fit()
    step = made.trainer._step
    made.trainer._step = lambda group: (
        step(group), states.append(deepcopy(made.trainer.state_dict()))
    )  # fmt: skip
    made.trainer.fit()
    assert made.history == whole.history
    assert len(states) == whole.trainer.outcome.steps
    for state in states:
        again = training(*words, **changes)
        again.trainer.load_state_dict(state)
        again.trainer.fit()
        assert again.history == whole.history
        assert all(map(torch.equal, again.parameters, whole.parameters))


def test_a_state_says_that_a_model_is_the_best_only_after_it_is_saved(training):
    made = training(losses=lambda step: 1 / step, validate_every=3)
    saved: list[int] = []

    def require_saved() -> None:
        state = made.trainer.state_dict()["outcome"]
        assert state["best_valid"] is None or state["best_step"] in saved

    save = made.diary.save
    made.diary.on_call = require_saved
    made.diary.save = lambda name, step: (save(name, step), saved.append(step))
    made.trainer.fit()
    assert made.diary.saved[-1] == ("best", 14)


def test_the_time_of_a_step_includes_waiting_for_the_device(training):
    made = training()
    outcome = made.trainer.outcome
    for _ in range(3):
        outcome.add_step(1.0, 10)
    outcome.add_wait(6.0, steps=2)
    assert list(outcome.step_seconds) == [1.0, 4.0, 4.0]
    assert outcome.seconds == 9.0
