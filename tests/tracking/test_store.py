"""Points, params and families of runs in MLflow; several processes on one new store."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from unroll.app import compose
from unroll.errors import Refused
from unroll.tracking.config import MLflowConfig
from unroll.tracking.store import Family, MLflowTracker, connect, finished, search


def config(home: Path) -> MLflowConfig:
    found = compose([f"tracking.directory={home}"]).tracking
    assert isinstance(found, MLflowConfig)
    return found


def test_no_point_is_lost_and_nan_is_left_out(tmp_path: Path) -> None:
    tracker = MLflowTracker(config(tmp_path))
    tracker.start("run", {"a": 1, "long": "x" * 10_000}, {"mark": "m"})
    for step in range(1200):
        tracker.log({"train/loss": float(step), "nan": math.nan}, step)
    tracker.finish()
    points = tracker.client.get_metric_history(tracker.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(n, float(n)) for n in range(1200)]
    run = tracker.client.get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["mark"], run.data.params["a"]) == ("FINISHED", "m", "1")
    assert "nan" not in run.data.metrics


def test_processes_that_start_at_once_on_a_new_store_all_succeed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from unroll.app import compose\n"
        "from unroll.tracking.store import MLflowTracker\n"
        f"tracker = MLflowTracker(compose(['tracking.directory={tmp_path}']).tracking)\n"
        "tracker.start(sys.argv[1], {}, {})\n"
        "[tracker.log({'x': float(n)}, n) for n in range(700)]\n"
        "tracker.finish()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    for process in processes:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
    client = connect(tmp_path)
    runs = client.search_runs(["1"])
    assert {run.info.run_name for run in runs} == {"0", "1", "2"}
    for run in runs:
        assert len(client.get_metric_history(run.info.run_id, "x")) == 700


def test_a_finished_run_is_found_by_its_fingerprint_and_an_interrupted_one_is_not(
    tmp_path: Path,
) -> None:
    for name, tags, status in (
        ("whole", {}, "FINISHED"),
        ("interrupted", {"interrupted": "true"}, "FINISHED"),
        ("failed", {}, "FAILED"),
    ):
        tracker = MLflowTracker(config(tmp_path))
        tracker.start(name, {}, {"config_fingerprint": "f", **tags})
        tracker.finish(status)
    found = finished(connect(tmp_path), "1", "f")
    assert found is not None
    assert found.info.run_name == "whole"
    assert finished(connect(tmp_path), "1", "other") is None


def test_a_parent_ends_the_children_that_were_cut_off(tmp_path: Path) -> None:
    family = Family.start(config(tmp_path), "parent", {})
    home = compose([f"tracking.directory={tmp_path}", f"tracking.parent={family.run_id}"]).tracking
    assert isinstance(home, MLflowConfig)
    tracker = MLflowTracker(home)
    tracker.start("child", {}, {})
    assert tracker.run_id
    family.finish("KILLED")
    (child,) = family.children()
    assert child.info.status == "KILLED"
    assert len(search(family.client, family.experiment, "")) == 2


def test_a_store_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, it is a text " * 200)
    with pytest.raises(Refused, match="tracking=disabled"):
        connect(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(Refused, match="cannot be written"):
        connect(blocked / "below")
