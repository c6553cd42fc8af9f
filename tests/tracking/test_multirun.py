"""A multirun's parent run, and the table of its children."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from unroll.app import compose
from unroll.config import flat
from unroll.tracking.ledger import owed
from unroll.tracking.multirun import PARENT, Multirun, children_table
from unroll.tracking.store import connect
from unroll.tracking.tracker import MLflowTracker


def hydra_config(home: Path, *overrides: str) -> object:
    words = [f"tracking.directory={home}", *overrides]
    tracking = {key: value for key, value in flat(compose(words).tracking).items()}
    task = {"name": "sample" if "task=sample" in words else "train"}
    hydra = {"overrides": {"task": ["model=rnn,gru"]}, "sweep": {"dir": str(home / "sweep")}}
    return OmegaConf.create({"task": task, "tracking": tracking, "hydra": hydra})


@pytest.fixture(autouse=True)
def no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT, "")
    monkeypatch.delenv(PARENT)


def test_jobs_of_a_multirun_are_children_of_its_parent(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Multirun().on_multirun_start(hydra_config(home))  # type: ignore[arg-type]
    tracker = MLflowTracker(compose([f"tracking.directory={home}"]).tracking)  # type: ignore[arg-type]
    tracker.start(home / "rnn", "rnn", {"model.name": "rnn"}, {})
    tracker.finish()
    Multirun.close("FINISHED")
    assert PARENT not in os.environ
    client = connect(home)
    child, parent = sorted(client.search_runs(["1"]), key=lambda run: run.info.run_name != "rnn")
    assert parent.info.run_name == "model=rnn,gru"
    assert parent.data.tags["overrides"] == "model=rnn,gru"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.info.status for run in (parent, child)} == {"FINISHED"}
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["children.csv"]
    assert f"{child.info.run_id},rnn,FINISHED" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["tracking=disabled"], ["task=sample", "run=latest"]])
def test_a_multirun_that_makes_no_runs_has_no_parent(tmp_path: Path, words: list[str]) -> None:
    Multirun().on_multirun_start(hydra_config(tmp_path, *words))  # type: ignore[arg-type]
    assert Multirun.tracker is None
    assert PARENT not in os.environ
    Multirun.close("FINISHED")
    assert not list(tmp_path.iterdir())


def test_a_multirun_goes_on_without_a_store_and_is_delivered_with_its_jobs_later(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        Multirun().on_multirun_start(hydra_config(home, "tracking.wait_seconds=0"))  # type: ignore[arg-type]
        words = [f"tracking.directory={home}", "tracking.wait_seconds=0"]
        tracker = MLflowTracker(compose(words).tracking)  # type: ignore[arg-type]
        tracker.start(home / "rnn", "rnn", {}, {})
        assert tracker.run_id != os.environ[PARENT]
        tracker.finish()
        Multirun.close("FINISHED")
    assert "no table of the runs" in capsys.readouterr().err
    later = MLflowTracker(compose([f"tracking.directory={home}"]).tracking)  # type: ignore[arg-type]
    for entry in owed(home):
        later.deliver(Path(entry.directory))
    client = connect(home)
    child, parent = sorted(client.search_runs(["1"]), key=lambda run: run.info.run_name != "rnn")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.info.status for run in (parent, child)} == {"FINISHED"}


def test_the_table_shows_what_differs_and_the_results() -> None:
    def run(name: str, params: dict[str, str], metrics: dict[str, float]) -> SimpleNamespace:
        info = SimpleNamespace(run_id=f"id-{name}", run_name=f"{name} a=1", status="FINISHED")
        return SimpleNamespace(info=info, data=SimpleNamespace(params=params, metrics=metrics))

    trained = {"test/perplexity": 1 / 3, "train/loss": 1.0}
    rows = children_table(
        [
            run("rnn", {"seed": "1", "model.name": "rnn"}, trained),
            run("gru", {"seed": "1", "model.name": "gru", "only, here": "x"}, {}),
        ]
    )
    assert rows.splitlines() == [
        'run_id,name,status,model.name,"only, here",test/perplexity',
        "id-rnn,rnn a=1,FINISHED,rnn,,0.333333",
        "id-gru,gru a=1,FINISHED,gru,x,",
    ]
    other = [run("rnn", {}, {"b": 2.0, "a": 1.0})]
    assert children_table(other).splitlines() == [
        "run_id,name,status,a,b",
        "id-rnn,rnn a=1,FINISHED,1,2",
    ]  # type: ignore[arg-type]
