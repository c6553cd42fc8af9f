"""``resume=``: a training that was stopped, or had ended, goes on as if it had never stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from unroll import processes
from unroll.app import compose, dispatch
from unroll.errors import BAD_INPUT, INTERRUPTED, TERMINATED, Refused, explain
from unroll.tasks import callbacks
from unroll.tasks.resume import _going_on, config_of, with_bounds
from unroll.tracking import journal, ledger, recorded
from unroll.tracking.journal import Journal

TINY = ("data=text_files", "data.batching.length=10", "data.batching.batch_size=8", "device=cpu",
        "model=lstm", "model.hidden_size=8", "model.embedding_size=8", "threads=1",
        "training/truncation=random", "training.dropout=0.3", "training.validate_every=8",
        "training.checkpoint_every=3", "sampling.length=2", "tracking=disabled",
        "tracking.every=2")  # fmt: skip
LONG = ("training.epochs=6", "optimizer/schedule=cosine")
CLOCK = ("tokens_per_second", "speed/")
KEPT = ("vocabulary", "tokenizer")

Train = Callable[..., Path]


def places(home: Path) -> list[str]:
    names = {"data.path": "text.txt", "data.cache": "cache", "tracking.directory": "runs"}
    return [f"{key}={home / name}" for key, name in names.items()]


@pytest.fixture(scope="module")
def train(home: Path) -> Train:
    """Trains, and gives the run directory."""

    def train_(name: str, *words: str) -> Path:
        overrides = [*TINY, *places(home), *words]
        dispatch(compose(overrides), home / name, overrides, reuse=False)
        return home / name

    return train_


@pytest.fixture(scope="module")
def whole(train: Train) -> Path:
    """A run that nothing disturbed."""
    return train("whole", *LONG)


def resume(home: Path, directory: Path | str, *words: str) -> dict[str, Any]:
    overrides = [f"resume={directory}", f"tracking.directory={home}/runs", *words]
    return dispatch(compose(overrides), home / "unused", overrides, reuse=False)


def weights(directory: Path) -> dict[str, bytes]:
    return {
        f"{file} {name}": tensor.numpy().tobytes()
        for file in (ledger.BEST, ledger.LAST)
        for name, tensor in load_file(directory / ledger.CHECKPOINTS / file).items()
    }


def history(directory: Path) -> list[tuple[str, int, float]]:
    return [
        (point.key, point.step, point.value)
        for point in journal.history(directory)
        if not point.key.startswith(CLOCK)
    ]


def new_process(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "unroll", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def started(home: Path, name: str, *words: str) -> subprocess.Popen[str]:
    """A training in a process of its own, when it has a saved state."""
    process = new_process(*TINY, *places(home), *words, f"hydra.run.dir={home / name}")
    deadline = time.monotonic() + 120
    while not list((home / name).glob("checkpoints/state-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    return process


def resumed_in_a_new_process(home: Path, *words: str) -> None:
    """``unroll resume=latest``, which says nothing else about the run."""
    process = new_process("resume=latest", f"tracking.directory={home}/runs", *words)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, TERMINATED), (signal.SIGINT, INTERRUPTED)],
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(home, whole, number, code):
    stopped = home / f"stopped by {int(number)}"
    process = started(home, stopped.name, *LONG)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == code, out
    assert "Traceback" not in out
    assert not ledger.is_finished(stopped)
    resumed_in_a_new_process(home)
    result = json.loads((stopped / ledger.RESULT).read_text())
    assert 0 < result["resumed_at"] < result["steps"]
    assert weights(stopped) == weights(whole)
    assert history(stopped) == history(whole)
    assert ledger.is_finished(stopped)


def test_a_training_from_shards_that_was_stopped_ends_as_one_from_a_single_file(home, whole):
    shards, name = ("data.shards=8", f"data.cache={home}/cache of shards"), "stopped on shards"
    process = started(home, name, *LONG, *shards)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert len(list((home / "cache of shards").rglob("train-*.tokens"))) == 8
    resumed_in_a_new_process(home)
    result, expected = (
        json.loads((each / ledger.RESULT).read_text()) for each in (home / name, whole)
    )
    assert 0 < result["resumed_at"] < result["steps"]
    assert result["config_fingerprint"] == expected["config_fingerprint"]
    assert weights(home / name) == weights(whole)
    assert history(home / name) == history(whole)


def test_a_finished_run_goes_on_to_a_raised_bound(home, train):
    four, two = train("four", "training.epochs=4"), train("two", "training.epochs=2")
    name = json.loads((home / "runs" / "ledger" / f"{run_id(two)}.json").read_text())["name"]
    for reference in (run_id(two), name, "latest"):
        with pytest.raises(Refused, match="is finished; raise a bound"):
            resume(home, reference)
    resumed_in_a_new_process(home, "training.epochs=4")
    assert weights(two) == weights(four)
    assert history(two) == history(four)


def run_id(directory: Path) -> str:
    return str(json.loads((directory / ledger.RESULT).read_text())["run_id"])


def test_a_run_that_is_stopped_on_the_way_to_a_raised_bound_is_not_finished(
    home, train, monkeypatch
):
    four, two = train("to four", "training.epochs=4"), train("from two", "training.epochs=2")

    def stop(self: object, name: str, step: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.RunCallbacks, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            resume(home, two, "training.epochs=4")
    assert not ledger.is_finished(two)
    resume(home, two)
    assert weights(two) == weights(four)
    known = [each for each in ledger.entries(home / "runs") if Path(each.directory) == two]
    kept = {*(each.fingerprint for each in known)}
    kept.add(recorded.Recorded(two).data.tags["config_fingerprint"])
    (fingerprint,) = kept
    assert fingerprint.endswith(" raised")  # nothing takes it for the training of two epochs


def test_a_training_goes_on_in_as_many_processes_also_before_its_first_state(
    home, train, monkeypatch
):
    directory = train("in one process")
    for state in (directory / ledger.CHECKPOINTS).glob("state-*"):
        shutil.rmtree(state)
    config = config_of(directory)
    monkeypatch.setattr(processes, "size", lambda: 2)
    with pytest.raises(Refused, match="ran in 1 processes, and this is 2"):
        _going_on(config, directory, same=True)
    monkeypatch.setattr(processes, "size", lambda: 3)
    tags = {"processes": "3"}
    start = next(entry for entry in journal.entries(directory) if entry["kind"] == "start")
    start["tags"] |= tags
    monkeypatch.setattr(journal, "entries", lambda _: [start])
    with pytest.raises(Refused, match="batch_size=8 cannot be shared out evenly among 3"):
        _going_on(config, directory, same=True)


def test_the_device_of_the_run_may_be_named_again(home, train):
    config = config_of(train("on the cpu"))
    assert with_bounds(config, config, ["device=cpu"]) == config
    with pytest.raises(Refused, match="device=cuda has no effect"):
        with_bounds(config, replace(config, device="cuda"), ["device=cuda"])


def test_an_address_of_a_text_stays_as_it_is(home, train):
    config = config_of(train("of a file"))
    address = "https://example.org/news.jsonl"
    encoded = SimpleNamespace(**{name: SimpleNamespace(to_json=dict) for name in KEPT})
    there = replace(config, data=replace(config.data, path=address))
    header = callbacks.checkpoint_header(there, encoded)  # type: ignore[arg-type]
    assert header["config"]["data"]["path"] == address


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.hidden_size=9"], "model.hidden_size=9 has no effect with resume="),
        (["seed=2"], "only a bound can be raised: training.epochs"),
        (["training.dropout=0.1"], "training.dropout=0.1 has no effect"),
        (["training.epochs=5"], "training.epochs=5 is below the 6 of the run"),
        ([], "is finished; raise a bound to go on, as in training.epochs=12"),
    ],
)
def test_what_cannot_change_is_refused_in_one_line(home, whole, words, line):
    before = weights(whole)
    assert line in refusal(home, whole, *words)
    assert weights(whole) == before


def test_what_is_no_training_is_refused_in_one_line(home, whole):
    assert "resume=absent is not a run in" in refusal(home, "absent")
    empty = home / "empty"
    empty.mkdir()
    assert "is not a run" in refusal(home, empty)
    for name, content in (("cut", "{"), ("list", "[]"), ("other", '{"model": 3}')):
        damaged = home / f"damaged {name}"
        shutil.copytree(whole, damaged)
        (damaged / ledger.CONFIG).write_text(content)
        assert "is damaged, so the training cannot go on" in refusal(home, damaged)


def test_a_command_that_resumes_nothing_exits_with_2(home):
    words = ["resume=latest", f"tracking.directory={home}/none"]
    found = subprocess.run(
        [sys.executable, "-m", "unroll", *words], capture_output=True, text=True, cwd=home
    )
    assert found.returncode == BAD_INPUT
    assert found.stderr.count("\n") == 1
    assert "resume=latest: no training in" in found.stderr


def refusal(home: Path, directory: Path | str, *words: str) -> str:
    with pytest.raises(Refused) as refused:
        resume(home, directory, *words)
    line, code = explain(refused.value)
    assert code == BAD_INPUT
    assert line is not None
    assert "\n" not in line
    return line


def test_a_run_that_another_process_writes_is_refused_and_left_alone(home, whole):
    running = home / "running"
    shutil.copytree(whole, running)
    half = running / ledger.CHECKPOINTS / ".state-000000999"
    half.mkdir()
    best = running / ledger.CHECKPOINTS / ledger.BEST
    best.write_bytes(b"the best so far")
    writer = Journal(running)
    try:
        line = refusal(home, running, "training.epochs=9")
    finally:
        writer.close()
    assert "another process is writing the run" in line
    assert half.is_dir()
    assert best.read_bytes() == b"the best so far"


def test_a_run_without_a_saved_state_starts_again(home, whole):
    bare = home / "bare"
    shutil.copytree(whole, bare)
    shutil.rmtree(bare / ledger.CHECKPOINTS)
    (bare / ledger.RESULT).unlink()
    assert resume(home, bare)["resumed_at"] == 0
    assert weights(bare) == weights(whole)
    assert history(bare) == history(whole)
    assert not (home / "unused").exists()


def test_a_damaged_state_is_passed_over_with_a_warning(home, whole, capsys):
    damaged = home / "damaged state"
    shutil.copytree(whole, damaged)
    (damaged / ledger.RESULT).unlink()
    newest = sorted((damaged / ledger.CHECKPOINTS).glob("state-*"))[-1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    resume(home, damaged)
    assert "is damaged" in capsys.readouterr().out
    assert weights(damaged) == weights(whole)
    assert history(damaged) == history(whole)
