"""What a run leaves behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unroll.app import compose, dispatch
from unroll.errors import Refused
from unroll.tasks.run import RESULT, Run
from unroll.tracking import journal, ledger
from unroll.tracking.store import connect
from unroll.training import checkpoint

pytestmark = pytest.mark.usefixtures("mlruns")

TINY = ("model.hidden_size=8", "model.embedding_size=8", "data.limit=20", "sampling.length=3")
TINY += ("data=lee_news", "data.batching.batch_size=4", "data.batching.length=100", "device=cpu")


@pytest.fixture
def do(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Carry out a command, with everything it keeps in MLflow in a folder of the test."""
    places = [f"tracking.directory={tmp_path}/mlruns", f"data.cache={tmp_path}/cache"]

    def do_(name: str, *words: str) -> dict[str, Any]:
        directory = tmp_path / name
        directory.mkdir()
        return dispatch(compose([*places, *words]), directory, list(words), reuse=True)

    return do_


def interrupt_after_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the signal of Ctrl-C once the first checkpoint is there."""
    save = checkpoint.save

    def saved(*arguments: Any, **keywords: Any) -> None:
        save(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(checkpoint, "save", saved)


def test_a_run_killed_after_its_first_epoch_stays_killed_until_a_sweep_goes_on_with_it(
    do: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = (*TINY, "training.epochs=2")
    with monkeypatch.context() as patched:
        interrupt_after_first_epoch(patched)
        with pytest.raises(KeyboardInterrupt):
            do("killed", *training)
    client = connect(tmp_path / "mlruns")
    (killed,) = client.search_runs(["1"])
    assert killed.info.status == "KILLED"
    assert killed.data.params["training.epochs"] == "2"
    time.sleep(0.01)  # times are in milliseconds
    for task in ("sample", "evaluate"):
        result = do(task, f"task={task}", "run=latest")
        assert result["run_id"] == killed.info.run_id
    after = client.get_run(killed.info.run_id)
    assert "test/stream/perplexity" in after.data.metrics
    assert "samples" in {item.path for item in client.list_artifacts(after.info.run_id)}
    assert (after.info.status, after.info.start_time, after.info.end_time) == (
        "KILLED",
        killed.info.start_time,
        killed.info.end_time,
    )
    whole = do("again", *training)
    assert whole["resumed_at"] == 8, "the batches of an epoch"
    assert whole["run_id"] == killed.info.run_id
    assert client.get_run(whole["run_id"]).info.status == "FINISHED"
    assert do("third", *training) == {"task": "train", "run_id": whole["run_id"], "reused": True}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the machine, and how many seconds it is late."""
    found, now = SimpleNamespace(late=0.0), time.time
    monkeypatch.setattr(time, "time", lambda: now() - found.late)
    return found


def test_a_run_whose_clock_jumps_back_an_hour_is_in_order_wherever_it_is_kept(
    do: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: SimpleNamespace,
) -> None:
    save = checkpoint.save

    def saved(*arguments: Any, **keywords: Any) -> None:
        save(*arguments, **keywords)
        clock.late = 3600.0

    do("before", *TINY, "training.max_steps=1")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", saved)
        words = ("training.max_steps=6", "training.validate_every=2", "tracking.every=1")
        run_id = do("jumped", *TINY, *words)["run_id"]
    assert clock.late
    times = [entry["time"] for entry in journal.entries(tmp_path / "jumped")]
    assert times == sorted(set(times))
    assert times[-1] - times[0] < 1_800_000, "milliseconds: without an hour's gap"
    client = connect(tmp_path / "mlruns")
    run = client.get_run(run_id)
    assert run.info.start_time <= times[0]
    assert run.info.end_time == times[-1]
    points = journal.history(tmp_path / "jumped")
    assert {point.step for point in points if point.key == "train/loss"} == {1, 2, 3, 4, 5, 6}
    for key in {point.key for point in points}:
        kept = [(p.step, p.timestamp, p.value) for p in client.get_metric_history(run_id, key)]
        assert kept == [(p.step, p.time, p.value) for p in points if p.key == key]
        assert kept == sorted(kept)
    store = tmp_path / "mlruns"
    assert [Path(entry.directory).name for entry in ledger.entries(store)] == ["before", "jumped"]
    assert ledger.find_training(store, "latest") == tmp_path / "jumped"


def test_latest_follows_the_clock_of_the_machine(
    do: Callable[..., dict[str, Any]], tmp_path: Path, clock: SimpleNamespace
) -> None:
    store = tmp_path / "mlruns"
    for name, late, latest in (
        ("first", 0.0, "first"),
        ("an hour back", 3600.0, "first"),
        ("put right", 0.0, "put right"),
    ):
        clock.late = late
        do(name, *TINY, "training.max_steps=1", "tracking=disabled", f"seed={len(name)}")
        assert ledger.find_training(store, "latest").name == latest


def test_a_run_that_is_going_on_can_be_looked_at(
    do: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run_id = do("first", *TINY, "training.max_steps=1")["run_id"]
    client = connect(tmp_path / "mlruns")
    client.update_run(run_id, status="RUNNING")
    do("evaluate", "task=evaluate", "run=latest")
    do("sample", "task=sample", "run=latest")
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_training_fills_the_columns_and_tags_that_people_group_by(
    do: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    words = (*TINY, "training.max_steps=1", "tracking.study=cells", "tracking.label=lstm, wide")
    result = do("first", *words)
    run = connect(tmp_path / "mlruns").get_run(result["run_id"])
    assert run.info.run_name.startswith("lstm lee_news hidden_size=8")
    tags = run.data.tags
    assert (tags["study"], tags["label"]) == ("cells", "lstm, wide")
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("unroll", "LOCAL")
    assert tags["mlflow.user"]
    assert tags["git_commit"].startswith(tags.get("mlflow.source.git.commit", "unknown"))
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("lee_news", tags["corpus_fingerprint"])
    splits = json.loads(data.dataset.profile)["splits"]
    assert {split: sizes["documents"] for split, sizes in splits.items()} == {
        "train": 18,
        "valid": 2,
        "test": 20,
    }
    assert all(sizes["tokens"] > sizes["documents"] for sizes in splits.values())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("two\nlines"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(), "KILLED"),
    ],
)
def test_a_run_ends_as_its_work_does(tmp_path: Path, error: BaseException, status: str) -> None:
    config = compose([f"tracking.directory={tmp_path}/mlruns"])
    run = Run(config, tmp_path / "run", [])
    with pytest.raises(type(error)), run.recorded():
        raise error
    (kept,) = connect(tmp_path / "mlruns").search_runs(["1"])
    assert kept.info.status == status
    assert kept.data.tags["failure"] == " ".join(f"{type(error).__name__}: {error}".split())


def test_an_error_is_not_hidden_by_a_store_that_fails_too(tmp_path: Path) -> None:
    config = compose([f"tracking.directory={tmp_path}/mlruns", "tracking.wait_seconds=0"])
    run = Run(config, tmp_path / "run", [])
    with pytest.raises(ZeroDivisionError), run.recorded() as tracker:  # noqa: PT012
        assert tracker.run_id
        (tmp_path / "mlruns" / "mlflow.db").unlink()
        raise ZeroDivisionError


def test_a_run_began_when_its_command_did(composed: Callable[..., Any], tmp_path: Path) -> None:
    before = time.time()
    run = Run(composed(), tmp_path / "run", [])
    began = time.time()
    with run.recorded():
        pass
    assert before <= run.started <= began


def test_a_directory_that_holds_a_run_is_refused(
    composed: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / RESULT).write_text("{}")
    with pytest.raises(Refused, match=r"result\.json"), Run(composed(), tmp_path, []).recorded():
        pass
