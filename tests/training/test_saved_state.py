"""States of trainings on disk: exact, whole, and the newest of them that is not damaged."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from unroll.errors import Refused
from unroll.training import saved_state
from unroll.training.saved_state import FILE, HEADER, StateWriter, go_back, newest, read

BEST = "best.safetensors"
CELLS = [
    ("model=rnn", "training/truncation=random", "optimizer/schedule=cosine"),
    ("model=lstm", "optimizer=adam", "training.dropout=0.3", "optimizer/schedule=plateau"),
    ("model=transformer", "model.heads=1", "model.context=3", "optimizer=adamw"),
    ("model=gru", "optimizer=adamw", "data/batching=windows", "training.patience=3"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / BEST).write_text("best of the start")
    return tmp_path


def written(folder: Path, *steps: int, kept: int = 9) -> StateWriter:
    """States of these steps, each after a new best checkpoint."""
    writer = StateWriter(folder, BEST, kept)
    for step in steps:
        (folder / "new").write_text(f"best at {step}")
        os.replace(folder / "new", folder / BEST)
        writer.save({"step": step, "weights": torch.full((3,), float(step))}, step)
        writer.wait()
    return writer


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_a_state_is_read_as_it_was(folder):
    generator = np.random.default_rng(3)
    state = {
        "model": {"w": torch.randn(3, 2), "empty": torch.empty(0, 4), "half": torch.ones(2).half()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1}]},
        "numbers": [1, 2**100, 0.1, math.inf, None, True, "text", (1, (2,))],
        "python": random.getstate(),
        "generator": generator.bit_generator.state,
    }
    writer = StateWriter(folder, BEST, kept=1)
    writer.save(state, 7)
    writer.wait()
    found, problems = newest(folder)
    assert found is not None
    assert (found.step, problems) == (7, [])
    assert same(found.state, state)


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal, types included."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def test_curves_of_more_than_a_header_may_hold_are_kept(folder):
    state = {"history": "0.1, " * 20_100_000}
    writer = StateWriter(folder, BEST, kept=1)
    writer.save(state, 1)
    writer.wait()
    assert read(folder / states(folder)[0]) == state


def test_a_state_of_the_first_version_is_read(folder):
    outline = json.dumps({"dict": [["step", 3]]})
    header = {"version": 1, "outline": outline, "checksum": saved_state._checksum({}, outline)}
    save_file({}, folder / FILE, {HEADER: json.dumps(header)})
    assert read(folder) == {"step": 3}


def test_a_state_is_copied_before_the_training_goes_on(folder, monkeypatch):
    weights = torch.zeros(4)
    writer = StateWriter(folder, BEST, kept=1)
    writer.save({"weights": weights}, 1)
    weights.fill_(1.0)
    writer.wait()
    found, _ = newest(folder)
    assert found is not None
    assert found.state["weights"].eq(0).all()


@pytest.mark.parametrize("overrides", CELLS)
@pytest.mark.parametrize("every", [1, 3])
def test_a_training_that_goes_on_from_a_saved_state_equals_one_that_never_stopped(
    training, folder, overrides, every
):
    losses = {"losses": lambda step: 5.0 - (step % 5)}
    whole = training(*overrides, **losses, epochs=3, checkpoint_every=every)
    whole.trainer.fit()
    step, state = whole.diary.states[len(whole.diary.states) // 2]
    writer = StateWriter(folder, BEST, kept=1)
    writer.save(state, step)
    writer.wait()
    found, _ = newest(folder)
    assert found is not None
    torch.manual_seed(99)
    later = training(*overrides, **losses, epochs=3, checkpoint_every=every, seed=1)
    later.trainer.load_state_dict(found.state)
    later.trainer.fit()
    assert all(map(torch.equal, later.parameters, whole.parameters))
    assert later.history == whole.history
    assert later.trainer.outcome.best_step == whole.trainer.outcome.best_step
    assert [at for at, _ in later.diary.states] == [
        at for at, _ in whole.diary.states if at > step or at == whole.diary.states[-1][0]
    ]


def test_a_finished_training_goes_on_as_a_longer_one_would_have(training):
    short, long = training(epochs=2, losses=lambda s: 9.0 - s), training(epochs=4)
    short.trainer.fit()
    long.diary.losses = lambda: 9.0 - long.trainer.outcome.steps
    long.trainer.fit()
    later = training(epochs=4, losses=lambda s: 9.0 - s)
    later.trainer.load_state_dict(short.diary.states[-1][1])
    later.trainer.fit()
    assert all(map(torch.equal, later.parameters, long.parameters))
    assert later.history == long.history


def test_the_newest_states_are_kept(folder):
    written(folder, 1, 2, 3, 10, kept=2)
    assert states(folder) == ["state-000000003", "state-000000010"]


def test_a_damaged_state_is_passed_over_with_a_line(folder):
    written(folder, 1, 2, 3)
    cut, changed = (folder / f"state-00000000{step}" / FILE for step in (3, 2))
    cut.write_bytes(cut.read_bytes()[:-5])
    content = bytearray(changed.read_bytes())
    content[-2] ^= 1
    changed.write_bytes(content)
    found, problems = newest(folder)
    assert found is not None
    assert found.step == 1
    assert [str(path) in line for path, line in zip((cut, changed), problems, strict=True)]


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_gives_another_state(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("states")
    written(folder, 5)
    file = folder / "state-000000005" / FILE
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 1 << bit
    file.write_bytes(content)
    try:
        state = read(file.parent)
    except Refused:
        return
    assert state["step"] == 5
    assert state["weights"].eq(5).all()


def test_a_state_keeps_the_best_checkpoint_of_its_moment(folder):
    written(folder, 1, 2, 3)
    (folder / BEST).write_text("of a future that is gone")
    found = saved_state.Saved({}, 2, folder / "state-000000002")
    go_back(found, folder, BEST)
    assert (folder / BEST).read_text() == "best at 2"
    assert states(folder) == ["state-000000001", "state-000000002"]
    go_back(None, folder, BEST)
    assert not (folder / BEST).exists()
    assert states(folder) == []


def test_what_a_killed_writer_left_is_removed_and_never_read(folder):
    written(folder, 1)
    (folder / ".state-000000002").mkdir()
    (folder / ".state-000000002" / FILE).write_bytes(b"half")
    found, problems = newest(folder)
    assert found is not None
    assert (found.step, problems) == (1, [])
    go_back(found, folder, BEST)
    assert states(folder) == ["state-000000001"]


def test_a_full_disk_is_reported_and_the_state_before_stays(folder, monkeypatch):
    writer = written(folder, 1)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_state, "save_file", full)
    writer.save({"step": 2}, 2)
    with pytest.raises(OSError, match="No space"):
        writer.wait()
    assert states(folder) == ["state-000000001"]
