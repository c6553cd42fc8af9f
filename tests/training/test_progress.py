"""A trainer that continues from a state ends as one that was never stopped."""

from __future__ import annotations

import io
import random
import signal
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from unroll.errors import Diverged

PER_EPOCH = 7
DROPOUT = {"output_dropout": 0.4, "layers": 2, "dropout": 0.3}
RANDOM = ["training/truncation=random", "training.truncation.keep=0.5"]


def zigzag(step: int) -> float:
    """Validation losses that fall three times, then rise."""
    return {2: 9.0, 3: 8.0, 4: 8.5, 6: 8.0, 7: 7.0, 8: 7.5, 9: 7.1}.get(step, 7.2 + step / 100)


SETTINGS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "carried state": ([], {}),
    "lstm, dropout, adam": (["model=lstm", "optimizer=adam"], {"model": DROPOUT}),
    "variational dropout": (["model=lstm"], {"model": DROPOUT | {"dropout_mask": "sequence"}}),
    "weight drop": (["model=lstm"], {"model": DROPOUT | {"weight_dropout": 0.5}}),
    "activation regularization": (
        [*RANDOM],
        {"model": DROPOUT, "activation_regularization": 2.0,
         "temporal_activation_regularization": 1.0, "accumulation": 2, "losses": zigzag},
    ),
    "moving average": (
        ["training/averaging=ema", "training.averaging.decay=0.8"], {"losses": zigzag},
    ),
    "triggered average": (
        ["training/averaging=triggered", "training.averaging.patience=1"],
        {"losses": zigzag, "validate_every": 1, "model": {"tie_weights": True}},
    ),
    "narrow last layer": (
        ["model=lstm", *RANDOM], {"model": DROPOUT | {"last_size": 3, "layer_norm": True}},
    ),
    "mogrifier": (
        ["model=lstm", *RANDOM],
        {"model": DROPOUT | {"mogrifier_rounds": 3, "mogrifier_rank": 2, "weight_dropout": 0.5}},
    ),
    "word dropout": ([], {"model": {"word_dropout": 0.4}}),
    "gru, adamw, cosine": (
        ["model=gru", "optimizer=adamw", "optimizer/schedule=cosine",
         "optimizer.schedule.warmup_steps=3"],
        {"optimizer": {"learning_rate": 0.01}, "clip_norm": 0.5},
    ),
    "random truncation": ([*RANDOM], {"model": DROPOUT}),
    "shuffled windows": (["data/batching=windows"], {"batching": {"batch_size": 30}}),
    "random offsets": (
        ["data/batching=sequential"], {"batching": {"random_offset": True}, "epochs": 3},
    ),
    "random lengths, momentum, cosine": (
        ["data/batching=sequential", "optimizer/schedule=cosine"],
        {"batching": {"random_length": True}, "optimizer": {"momentum": 0.9}, "epochs": 3},
    ),
    "momentum, step": (
        ["optimizer/schedule=step", "optimizer.schedule.every=2"],
        {"optimizer": {"momentum": 0.9, "learning_rate": 0.1}, "epochs": 4},
    ),
    "plateau": (
        ["optimizer/schedule=plateau", "optimizer.schedule.patience=2"],
        {"losses": zigzag, "validate_every": 2},
    ),
    "patience": ([], {"losses": zigzag, "patience": 3, "validate_every": 3, "epochs": 9}),
    "validation after epochs": ([], {"losses": zigzag, "patience": 2, "epochs": 9}),
    "accumulation": ([*RANDOM], {"accumulation": 2, "model": DROPOUT, "log_every": 2}),
    "sparse points": ([], {"log_every": 4, "losses": zigzag, "validate_every": 3}),
    "max_steps inside an epoch": ([], {"max_steps": 10, "log_every": 3}),
}  # fmt: skip


def restored(state: dict[str, Any], training, words, changes):
    """A new trainer, after other random numbers were drawn, with this state."""
    again = training(*words, seed=1, **changes)
    with torch.no_grad():
        for parameter in again.model.parameters():
            parameter.fill_(0.5)
    torch.rand(3), np.random.random(3), random.random()
    again.trainer.load_state_dict(state)
    return again


@pytest.mark.parametrize("name", SETTINGS)
def test_continuing_from_the_state_at_any_callback_equals_never_stopping(training, name):
    words, changes = SETTINGS[name]
    made, states = training(*words, **changes), []
    made.diary.on_call = lambda: states.append(deepcopy(made.trainer.state_dict()))
    outcome = made.trainer.fit()
    drawn = (torch.rand(1), np.random.random(), random.random())
    assert outcome.steps >= 6
    assert len(states) > 4
    inside = [state for state in states if state["progress"]["steps"] not in (0, PER_EPOCH)]
    assert inside, "some of the states are inside an epoch"
    for state in states:
        again = restored(state, training, words, changes)
        ended = again.trainer.fit()
        assert (torch.rand(1), np.random.random(), random.random()) == drawn
        assert all(map(torch.equal, again.parameters, made.parameters))
        assert again.history == made.history
        for key in ("epochs", "steps", "tokens", "train_loss", "best_valid", "best_step"):
            assert getattr(ended, key) == getattr(outcome, key)
        assert len(ended.step_seconds) == len(ended.step_tokens) == ended.steps


def test_every_part_of_the_state_decides_the_end(training):
    """Without any one of its parts the continued training ends differently."""
    words = ["model=lstm", "optimizer=adam", "optimizer/schedule=step",
             "optimizer.schedule.every=2", "training/averaging=ema", *RANDOM]  # fmt: skip
    changes = {"model": DROPOUT, "losses": zigzag, "log_every": 4, "epochs": 4}
    made, states = training(*words, **changes), []
    made.diary.at[12] = lambda: states.append(deepcopy(made.trainer.state_dict()))
    made.trainer.fit()
    fresh = training(*words, **changes).trainer.state_dict()
    for part in fresh:
        again = restored(states[0] | {part: deepcopy(fresh[part])}, training, words, changes)
        again.trainer.fit()
        ends = [[*one.parameters, *one.trainer.averaging.average] for one in (again, made)]
        same = all(map(torch.equal, *ends))
        assert not (same and again.history == made.history), part


def test_an_interrupted_training_continues_as_if_it_was_not(training):
    """The last checkpoint is saved before the extra validation of an interrupted training."""
    changes = {"losses": zigzag, "epochs": 3, "log_every": 4}
    whole, made, states = training(**changes), training(**changes), []
    whole.trainer.fit()
    made.diary.at[8] = lambda: signal.raise_signal(signal.SIGINT)
    save = made.diary.save
    made.diary.save = lambda name, step: (
        states.append(deepcopy(made.trainer.state_dict())) if name == "last" else None,
        save(name, step),
    )
    assert made.trainer.fit().steps == 8
    again = restored(states[0], training, [], changes)
    again.trainer.fit()
    assert again.history == whole.history
    assert all(map(torch.equal, again.parameters, whole.parameters))


def test_a_state_holds_no_objects_that_reading_it_would_execute(training):
    """The state passes through a file that is read as plain data and tensors."""
    words, changes = SETTINGS["random truncation"]
    changes = changes | {"losses": zigzag}
    made, files = training(*words, **changes), []

    def write() -> None:
        files.append(io.BytesIO())
        torch.save(made.trainer.state_dict(), files[-1])

    made.diary.at[9] = write
    made.trainer.fit()
    files[0].seek(0)
    again = restored(torch.load(files[0], weights_only=True), training, words, changes)
    again.trainer.fit()
    assert all(map(torch.equal, again.parameters, made.parameters))
    assert again.history == made.history


def test_two_trainers_that_load_one_state_do_not_share_it(training):
    made = training(optimizer={"momentum": 0.9})
    state = deepcopy(made.trainer.state_dict())
    kept = deepcopy(state)
    restored(state, training, [], {"optimizer": {"momentum": 0.9}}).trainer.fit()
    assert state["progress"] == kept["progress"]
    assert state["outcome"]["history"] == kept["outcome"]["history"]
    assert all(torch.equal(state["model"][key], kept["model"][key]) for key in kept["model"])


def test_a_training_that_ended_takes_no_further_step(training):
    made = training(losses=zigzag, patience=1, validate_every=1, epochs=9)
    made.trainer.fit()
    again = restored(made.trainer.state_dict(), training, [], {"patience": 1, "epochs": 9})
    assert again.trainer.fit().steps == made.trainer.outcome.steps


def test_a_training_continues_with_a_larger_bound(training):
    """It ends as a training that had the larger bound from the start."""
    short, whole, states = training(max_steps=10), training(epochs=3), []
    whole.trainer.fit()
    short.diary.save = lambda name, step: states.append(deepcopy(short.trainer.state_dict()))
    short.trainer.fit()
    longer = restored(states[0], training, [], {"epochs": 3})
    longer.trainer.fit()
    assert longer.history == whole.history
    assert all(map(torch.equal, longer.parameters, whole.parameters))


def test_a_diverged_training_diverges_again(training):
    made, states = training(optimizer={"learning_rate": 1e38}), []
    made.diary.on_call = lambda: states.append(deepcopy(made.trainer.state_dict()))
    with pytest.raises(Diverged) as first:
        made.trainer.fit()
    again = restored(states[-1], training, [], {"optimizer": {"learning_rate": 1e38}})
    with pytest.raises(Diverged) as second:
        again.trainer.fit()
    assert str(first.value) == str(second.value)
