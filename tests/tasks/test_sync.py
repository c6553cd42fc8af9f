"""task=sync: what a run could not deliver arrives later, and its directory says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unroll.app import compose, dispatch
from unroll.errors import Refused
from unroll.report.runs import Record
from unroll.tracking import ledger
from unroll.tracking.journal import Journal
from unroll.tracking.recorded import Recorded
from unroll.tracking.store import connect

TINY = ("model.hidden_size=8", "model.embedding_size=8", "data.limit=20", "sampling.length=3")
TINY += ("data=lee_news", "data.batching.batch_size=4", "data.batching.length=100", "device=cpu")
TINY += ("training.max_steps=5", "tracking.every=2", "tracking.run_name=first")
PATIENCE = "tracking.wait_seconds=0"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def do(home: Path) -> Callable[..., dict[str, Any]]:
    places = [f"tracking.directory={home}/mlruns", f"data.cache={home}/cache"]

    def do_(name: str, *words: str) -> dict[str, Any]:
        directory = home / name
        directory.mkdir()
        return dispatch(compose([*places, *words]), directory, list(words), reuse=False)

    return do_


@pytest.fixture(scope="module")
def trained(do: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A training, and a score of it, while there was no store."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        result = do("trained", *TINY, PATIENCE)
        do(
            "scored",
            "task=evaluate",
            f"run={result['run_id']}",
            "evaluation.protocol=document",
            PATIENCE,
        )
    return result


def test_a_store_that_works_later_gets_all_runs_and_what_was_added_to_them(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], home: Path
) -> None:
    assert len(ledger.owed(home / "mlruns")) == 2
    result = do("sync", "task=sync")
    assert [Path(run["directory"]).name for run in result["runs"]] == ["trained", "scored"]
    assert all(run["delivered"] > 0 for run in result["runs"])
    kept = json.loads((home / "sync" / "result.json").read_text(encoding="utf-8"))
    assert kept == result
    assert not ledger.owed(home / "mlruns")
    client = connect(home / "mlruns")
    (run,) = client.search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/document/perplexity"] > 1
    assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {
        "result.json",
        "model",
        "checkpoints",
    }
    assert do("again", "task=sync")["runs"] == []


def test_the_record_of_a_run_directory_equals_that_of_the_store(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], home: Path
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "")
        do("second", *TINY, "seed=2", "tracking.run_name=second")
    client = connect(home / "mlruns")
    (run,) = client.search_runs(["1"], "attributes.run_name = 'second'")
    recorded = Recorded(home / "second")
    here, there = Record(recorded, recorded), Record(client, run)
    assert here.run_id == there.run_id
    assert here.params == there.params
    own = {"mlflow.runName", "unroll.run_id"}  # which the store or the delivery adds
    assert here.tags == {key: value for key, value in there.tags.items() if key not in own}
    metrics = there.run.data.metrics
    assert set(here.run.data.metrics) == set(metrics)
    assert {"train/loss", "valid/perplexity", "test/perplexity"} <= set(metrics)
    for key in metrics:
        assert here.curve(key) == there.curve(key)
        assert here.value(key) == there.value(key)
    assert here.result() == there.result()
    assert here.run.info.status == there.run.info.status == "FINISHED"


def test_a_run_is_named_as_for_other_tasks_and_may_have_had_no_tracking(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], home: Path
) -> None:
    result = do("third", *TINY, "tracking=disabled", "tracking.run_name=third")
    for name, reference in (("by_id", result["run_id"]), ("by_path", str(home / "third"))):
        assert do(name, "task=sync", f"run={reference}")["runs"][0]["directory"] == str(
            home / "third"
        )
    (run,) = connect(home / "mlruns").search_runs(["1"], "attributes.run_name = 'third'")
    assert run.data.metrics["train/loss"] == Record(*[Recorded(home / "third")] * 2).value(
        "train/loss"
    )
    with pytest.raises(Refused, match="did you mean 'third'"):
        do("wrong", "task=sync", "run=thirt")
    with pytest.raises(Refused, match="tracking=disabled"):
        do("disabled", "task=sync", "run=third", "tracking=disabled")


def test_a_run_that_goes_on_and_one_that_was_removed_are_left_alone(
    do: Callable[..., dict[str, Any]], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = home / "mlruns"
    going_on = Journal(home / "going_on")
    going_on.append("tag", name="a", value="b")
    ledger.owe(store, "0" * 32, "going on", home / "going_on", 1.0)
    ledger.owe(store, "1" * 32, "removed", home / "removed", 2.0)
    assert do("sync_later", "task=sync")["runs"] == []
    said = capsys.readouterr().out
    assert "another process" in said
    assert "removed or moved" in said
    going_on.close()
    for entry in ledger.owed(store):
        ledger.settle(store, entry.run_id)


def test_a_store_that_still_does_not_work_is_refused_with_one_line(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(Refused, match="does not work"):
        do("no_store", "task=sync", "run=first")
