"""Every point arrives once and in order, whatever fails and wherever the run is cut off."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fake_store import AFTER, BEFORE, HALF, FakeStore
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from unroll.app import compose
from unroll.tracking import delivery
from unroll.tracking.delivery import Delivery
from unroll.tracking.journal import DELIVERED, NAME, Journal, history
from unroll.tracking.store import Unavailable

KEY = "ab" * 16
START: dict[str, Any] = {"key": KEY, "name": "run", "params": {"a": "1"}, "tags": {"t": "1"}}
START |= {"inputs": [], "experiment": "unroll", "parent": None}


@cache
def composed() -> Any:
    return compose([]).tracking


class Run:
    """A run that logs a point a step, and can be cut off and resumed as often as a test wants."""

    def __init__(self, directory: Path, store: FakeStore, patched: pytest.MonkeyPatch) -> None:
        self.directory, self.store = directory, store
        patched.setattr(delivery, "connect", lambda place: store)
        self.config: Any = replace(composed(), directory=str(directory))
        self.step = self.marked = 0
        self.last: str | None = None
        self.open()
        self.journal.append("start", **START)
        self.journal.append("checkpoint", step=0)

    def open(self) -> None:
        self.journal = Journal(self.directory)
        self.delivery = Delivery(self.journal, self.config)

    def log(self) -> None:
        self.step += 1
        self.journal.add_points({"a": self.step / 7, "b": float(self.step)}, self.step)

    def deliver(self) -> None:
        with contextlib.suppress(Unavailable):
            self.delivery.deliver()

    def tag(self) -> None:
        self.last = str(self.step)
        self.journal.append("tag", name="last", value=self.last)

    def checkpoint(self) -> None:
        self.journal.append("checkpoint", step=self.step)
        self.marked = self.step

    def resume(self) -> None:
        self.journal.close()
        self.open()
        self.journal.rewind(self.marked)
        self.delivery = Delivery(self.journal, self.config)
        self.journal.append("resume")
        self.step = self.marked

    def crash(self) -> None:
        """In the middle of a line."""
        with (self.directory / NAME).open("ab") as file:
            file.write(b'0badc0de {"n":')
        self.resume()

    def power_failure(self) -> None:
        """Of which the note of what was delivered did not survive."""
        (self.directory / DELIVERED).unlink(missing_ok=True)
        self.crash()

    def finish(self) -> None:
        self.journal.append("finish", status="FINISHED")


ACTIONS = ("log", "log", "log", "deliver", "deliver", "tag", "checkpoint")
ACTIONS += ("resume", "crash", "power_failure")


@settings(max_examples=100, deadline=None)
@given(
    actions=st.lists(st.sampled_from(ACTIONS), max_size=40),
    failures=st.lists(st.sampled_from([*[None] * 7, BEFORE, HALF, AFTER]), max_size=60),
    size=st.sampled_from([2, 5, 500]),
)
def test_any_pattern_of_failures_yields_every_point_once_and_in_order(
    actions: list[str], failures: list[str | None], size: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(delivery, "POINTS", size)
        store = FakeStore(failures)
        run = Run(Path(folder), store, patched)
        for action in actions:
            getattr(run, action)()
        run.finish()
        run.deliver()
        store.working()
        run.delivery.deliver()
        assert run.delivery.left == 0
        run.journal.close()
        steps = range(1, run.step + 1)
        expected = [row for step in steps for row in (("a", step, step / 7), ("b", step, step))]
        kept = [(point.key, point.step, point.value) for point in history(run.directory)]
        assert kept == expected
        # what was cut off for good after its last delivery may be in the store and nowhere else
        assert [row for row in store.rows if row[1] <= run.step] == expected
        assert len(set(store.rows)) == len(store.rows)
        (found,) = store.runs.values()
        assert found.info.status == "FINISHED"
        assert (found.data.tags["t"], found.data.tags.get("last")) == ("1", run.last)
        assert found.data.params["a"] == "1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, FakeStore(), monkeypatch)


def steps(run: Run) -> list[int]:
    return [row[1] for row in run.store.rows if row[0] == "a"]


def test_points_that_the_store_has_are_not_doubled_by_a_resumed_run(run: Run) -> None:
    for step in range(1, 7):
        run.log()
        if step == 2:
            run.checkpoint()
    run.deliver()
    run.resume()
    run.tag()  # its number must be one that was never delivered
    for _ in range(6):
        run.log()
        run.deliver()
    assert steps(run) == list(range(1, 9))
    (found,) = run.store.runs.values()
    assert found.data.tags["last"] == run.last


def test_a_batch_whose_answer_is_lost_again_and_again_arrives_once(run: Run) -> None:
    run.deliver()
    for _ in range(3):
        run.log()
    log_batch, halves = run.store.log_batch, [True, True, False]

    def failing(run_id: str, metrics: Any = (), **rest: Any) -> None:
        log_batch(run_id, metrics[: len(metrics) // 2] if halves.pop(0) else metrics, **rest)
        raise MlflowException("no answer")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run.store, "log_batch", failing)
        for _ in range(3):
            run.deliver()
    run.delivery.deliver()
    assert steps(run) == [1, 2, 3]


def test_a_run_started_in_the_place_of_one_that_was_cut_off_is_another_run(run: Run) -> None:
    run.log()
    run.deliver()
    run.journal.close()
    run.open()
    run.journal.append("start", **(START | {"key": "cd" * 16}))
    run.journal.append("checkpoint", step=0)
    run.marked = 0
    assert run.delivery.run_id("cd" * 16) is None
    run.resume()
    run.log()
    run.deliver()
    assert len(run.store.runs) == 2
    assert run.delivery.run_id("cd" * 16) == f"{1:032x}"
    assert [point.step for point in history(run.directory)] == [1, 1]
    assert len(run.store.get_metric_history(f"{0:032x}", "a")) == 1
    assert len(run.store.get_metric_history(f"{1:032x}", "a")) == 1


def test_a_store_that_lost_the_run_gets_it_again(run: Run) -> None:
    run.log()
    run.deliver()
    run.store.runs.clear()
    run.store.rows.clear()
    run.log()
    run.deliver()  # which finds out
    run.deliver()
    assert [row[1] for row in run.store.rows if row[0] == "b"] == [1, 2]


def test_another_store_gets_the_whole_journal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.log()
    run.deliver()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    other = FakeStore()
    monkeypatch.setattr(delivery, "connect", lambda place: other)
    Delivery(run.journal, run.config).deliver()
    assert other.rows == run.store.rows


def test_what_the_store_rejects_for_good_is_left_out_with_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_batch = run.store.log_batch

    def choosy(run_id: str, metrics: Any = (), **rest: Any) -> None:
        if any(metric.step in (2, 3) for metric in metrics):
            raise MlflowException("bad value", INVALID_PARAMETER_VALUE)
        log_batch(run_id, metrics, **rest)

    monkeypatch.setattr(run.store, "log_batch", choosy)
    for _ in range(4):
        run.log()
    run.delivery.deliver()
    assert [row[1] for row in run.store.rows if row[0] == "a"] == [1, 4]
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not take" in line
    assert run.delivery.left == 0


def test_a_run_that_goes_on_loses_the_marks_of_its_stop(run: Run) -> None:
    run.journal.append("tag", name="interrupted", value="true")
    run.journal.append("finish", status="KILLED")
    run.deliver()
    run.resume()
    run.deliver()
    (found,) = run.store.runs.values()
    assert found.info.status == "RUNNING"
    assert "interrupted" not in found.data.tags


def test_a_file_that_was_removed_does_not_stop_the_others(run: Run) -> None:
    run.journal.append("file", path="gone", folder=None)
    run.log()
    run.delivery.deliver()
    assert run.store.rows
