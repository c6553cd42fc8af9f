"""What a run leaves in MLflow: points, params, tags, data sets; many processes on a new store."""

import json
import math
import subprocess
import sys
from pathlib import Path

import mlflow.data
import pytest

from unroll.app import compose
from unroll.errors import Refused
from unroll.tracking import ledger
from unroll.tracking.config import MLflowConfig
from unroll.tracking.journal import history
from unroll.tracking.store import connect
from unroll.tracking.tracker import DataInput, DisabledTracker, MLflowTracker

LEE = DataInput("lee_news", "d" * 40, None, {"train": {"documents": 3, "tokens": 70}})
BOOK = DataInput("text_files", "e" * 32, "/a/book.txt", {"test": {"documents": 1, "tokens": 9}})


def config(home: Path, *words: str) -> MLflowConfig:
    found = compose([f"tracking.directory={home}", *words]).tracking
    assert isinstance(found, MLflowConfig)
    return found


def test_no_point_is_lost_and_nan_is_left_out(home: Path) -> None:
    tracker = MLflowTracker(config(home))
    tracker.start(home / "run", "run", {"a": 1, "long": "x" * 10_000}, {"mark": "m"})
    for step in range(1200):
        tracker.log({"train/loss": float(step), "nan": math.nan}, step)
    tracker.finish()
    client = connect(home)
    points = client.get_metric_history(tracker.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(n, float(n)) for n in range(1200)]
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["mark"], run.data.params["a"]) == ("FINISHED", "m", "1")
    assert "nan" not in run.data.metrics
    assert not ledger.owed(home)


def test_what_is_added_to_an_ended_run_leaves_its_status_and_times(home: Path) -> None:
    first = MLflowTracker(config(home))
    first.start(home / "first", "run", {}, {})
    first.finish("KILLED")
    client = connect(home)
    before = client.get_run(first.run_id).info
    (home / "file").write_text("x")
    later = MLflowTracker(config(home))
    assert later.extend(home / "later", first.run_id)
    later.log({"a": 1.0}, 1)
    later.log_text("x", "samples/x.txt")
    later.log_file(home / "file")
    later.param("p", 1)
    later.tag("t", "1")
    later.close()
    run = client.get_run(first.run_id)
    assert run.data.metrics == {"a": 1.0}
    assert run.data.params == {"p": "1"}
    assert {item.path for item in client.list_artifacts(first.run_id)} == {"file", "samples"}
    info = run.info
    assert (info.status, info.start_time, info.end_time) == (
        "KILLED",
        before.start_time,
        before.end_time,
    )


def test_nothing_is_added_to_a_run_that_does_not_exist_or_was_deleted(home: Path) -> None:
    tracker = MLflowTracker(config(home))
    tracker.start(home / "run", "run", {}, {})
    tracker.finish()
    client = connect(home)
    client.delete_run(tracker.run_id)
    for run_id in (tracker.run_id, "0" * 32):
        later = MLflowTracker(config(home))
        later.extend(home / run_id, run_id)
        later.log({"a": 1.0}, 1)
        later.close()
    assert client.get_run(tracker.run_id).data.metrics == {}
    assert not ledger.owed(home)


def test_the_dataset_column_is_filled_with_name_digest_place_and_size(home: Path) -> None:
    tracker = MLflowTracker(config(home))
    tracker.start(home / "run", "run", {}, {}, [LEE, BOOK])
    tracker.finish()
    inputs = {
        item.dataset.name: item
        for item in connect(home).get_run(tracker.run_id).inputs.dataset_inputs
    }
    lee, book = inputs["lee_news"].dataset, inputs["text_files"].dataset
    assert (lee.digest, book.digest) == ("d" * 36, "e" * 32)  # 36 characters are MLflow's limit
    assert json.loads(lee.profile) == {
        "num_rows": 3,
        "num_elements": 70,
        "splits": {"train": {"documents": 3, "tokens": 70}},
    }
    assert mlflow.data.get_source(book).to_dict() == {"uri": "/a/book.txt"}
    assert mlflow.data.get_source(lee).to_dict() == {"tags": {"data": "lee_news"}}
    assert [tag.value for tag in inputs["lee_news"].tags] == ["training"]


def test_text_that_cannot_be_encoded_is_kept_all_the_same(home: Path) -> None:
    tracker = MLflowTracker(config(home))
    params, tags = {"data.path": "/tmp/ü\udcff"}, {"overrides": "data.path=\udcff"}
    tracker.start(home / "run", "分开 \udcff", params, tags)
    tracker.finish()
    run = connect(home).get_run(tracker.run_id)
    assert run.info.run_name == "分开 ?"
    assert run.data.params["data.path"] == "/tmp/ü?"
    assert run.data.tags["overrides"] == "data.path=?"


EIGHT_PROCESSES = """
import os, pathlib, sys
import mlflow.store.tracking.sqlalchemy_store, mlflow.tracking  # once, before the processes part
from unroll.app import compose
from unroll.tracking.family import Family
from unroll.tracking.tracker import DataInput, MLflowTracker

config = compose([f"tracking.directory={sys.argv[1]}"]).tracking
processes = []
for mark in "01234567":
    process = os.fork()
    if process:
        processes.append(process)
        continue
    print(Family.open(config, "study x", {"study": "x"}).run_id, flush=True)
    tracker = MLflowTracker(config)
    directory = pathlib.Path(sys.argv[1], mark)
    tracker.start(directory, "run", {}, {"mark": mark}, [DataInput("d", "d", None, {})])
    for step in range(1500):
        tracker.log({"x": float(step)}, step)
    tracker.finish()
    sys.exit()
for process in processes:
    assert os.waitpid(process, 0)[1] == 0
"""


def test_eight_processes_that_start_at_once_on_a_new_store_lose_nothing(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", EIGHT_PROCESSES, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    (parent,) = set(found.stdout.split())
    client = connect(tmp_path)
    runs = [run for run in client.search_runs(["1"]) if run.info.run_id != parent]
    assert sorted(run.data.tags["mark"] for run in runs) == list("01234567")
    for run in runs:
        assert run.info.status == "FINISHED"
        assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["d"]
        history = client.get_metric_history(run.info.run_id, "x")
        assert [point.step for point in history] == list(range(1500))


def test_a_parent_that_does_not_exist_is_refused(home: Path) -> None:
    tracker = MLflowTracker(config(home, f"tracking.parent={'0' * 32}"))
    tracker.start(home / "run", "run", {}, {})
    with pytest.raises(Refused, match=r"tracking\.parent=0"):
        _ = tracker.run_id
    tracker.finish("FAILED")
    assert not any((home / "run").iterdir())
    assert not ledger.owed(home)


def test_without_tracking_every_question_has_an_answer(tmp_path: Path) -> None:
    tracking = compose(["tracking=disabled", "tracking.study=s", "tracking.label=l"]).tracking
    tracker = DisabledTracker(tracking)  # type: ignore[arg-type]
    tracker.start(tmp_path, "run", {}, {}, [LEE])
    assert len(tracker.run_id) == 32
    assert tracker.reuse("f") is None
    assert tracker.parent(tmp_path, "multirun", {}) is None
    assert tracker.extend(tmp_path, tracker.run_id) is False
    tracker.log({"a": 1.0}, 1)
    tracker.finish()
    assert [point.value for point in history(tmp_path)] == [1.0]
