"""A run goes on at its own speed while the store is slow, absent, or gone for a time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from fake_store import FakeStore

from unroll.app import compose
from unroll.tracking import courier, delivery, ledger
from unroll.tracking.journal import Journal, entries, history
from unroll.tracking.store import connect
from unroll.tracking.tracker import MLflowTracker

NOWHERE = "http://127.0.0.1:1"


def tracker(home: Path, *words: str) -> MLflowTracker:
    config: Any = compose([f"tracking.directory={home}", *words]).tracking
    return MLflowTracker(config)


def stored(home: Path, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in connect(home).get_metric_history(run_id, key)]


class Slow(FakeStore):
    """Answers no metrics until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answer = threading.Event(), threading.Event()

    def log_batch(self, run_id: str, metrics: Any = (), **rest: Any) -> None:
        if metrics:
            self.asked.set()
            self.answer.wait(30)
        super().log_batch(run_id, metrics, **rest)


def test_neither_a_point_nor_a_checkpoint_waits_for_a_store_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, others = Slow(), threading.enumerate()  # of runs that other tests left open
    monkeypatch.setattr(delivery, "connect", lambda place: store)
    monkeypatch.setattr(courier, "PERIOD", 0.01)
    run = tracker(tmp_path, "tracking.wait_seconds=0.1")
    run.start(tmp_path / "run", "run", {}, {})
    assert run.run_id in store.runs
    run.log({"a": 0.0}, 0)
    assert store.asked.wait(30)
    for step in range(1, 50):  # would not end if it waited
        run.log({"a": float(step)}, step)
        run.checkpoint(step)
    run.finish()
    assert "unroll task=sync" in capsys.readouterr().err
    assert [point.step for point in history(tmp_path / "run")] == list(range(50))
    assert len(ledger.owed(tmp_path)) == 1
    store.answer.set()
    for thread in threading.enumerate():
        if thread.name == courier.THREAD and thread not in others:
            thread.join(30)  # the journal is locked while the last request goes on
    tracker(tmp_path).deliver(tmp_path / "run")
    assert [row[1] for row in store.rows] == list(range(50))
    assert not ledger.owed(tmp_path)


def test_without_a_store_a_run_has_an_id_that_stays_valid_and_is_delivered_later(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(courier, "QUIET", 0.0)
    monkeypatch.setattr(courier, "FIRST_RETRY", 0.05)
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", NOWHERE)
        run = tracker(home, "tracking.wait_seconds=0.5")
        run.start(home / "run", "run", {"seed": 1}, {})
        run_id = run.run_id
        for step in range(30):
            run.log({"a": step / 7}, step)
        run.finish()
        assert run.run_id == run_id
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2, said  # that it does not work, and how to deliver the rest
    assert NOWHERE in said[0]
    assert ledger.find_journal(home, run_id) == home / "run"
    tracker(home).deliver(home / "run")
    client = connect(home)
    (found,) = client.search_runs(["1"])
    assert found.info.run_id != run_id
    assert (found.info.status, found.data.params) == ("FINISHED", {"seed": "1"})
    assert stored(home, found.info.run_id, "a") == [(step, step / 7) for step in range(30)]
    (home / "run" / "checkpoints").mkdir()
    (home / "run" / "checkpoints" / "best.safetensors").touch()
    ledger.record(home, run_id, "run", home / "run", 1.0, "f")
    for reference in (run_id, found.info.run_id):
        assert ledger.find_journal(home, reference) == (home / "run")
        assert ledger.find_checkpoint(home, reference).exists()


def test_a_resumed_run_goes_on_in_the_same_run_without_doubled_points(home: Path) -> None:
    first = tracker(home)
    first.start(home / "run", "run", {}, {})
    run_id = first.run_id
    for step in range(10):
        first.log({"a": step / 7}, step)
        if step == 4:
            first.checkpoint(step)
    first.tag("interrupted", "true")
    first.finish("KILLED")
    second = tracker(home)
    second.resume(home / "run", 4)
    assert second.run_id == run_id
    assert [point.step for point in history(home / "run")] == list(range(5))
    for step in range(5, 15):
        second.log({"a": step / 7}, step)
    second.finish()
    expected = [(step, step / 7) for step in range(15)]
    assert stored(home, run_id, "a") == expected
    assert [(point.step, point.value) for point in history(home / "run")] == expected
    run = connect(home).get_run(run_id)
    assert (run.info.status, "interrupted" in run.data.tags) == ("FINISHED", False)


def test_ctrl_c_while_a_run_waits_for_the_store_leaves_the_run_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    run = tracker(tmp_path, "tracking.wait_seconds=60")
    run.start(tmp_path / "run", "run", {}, {})
    assert run.run_id
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    run.finish()
    assert entries(tmp_path / "run")[-1]["status"] == "FINISHED"
    assert "task=sync" in capsys.readouterr().err


def test_secrets_reach_neither_the_journal_nor_the_messages(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    for name in ("USERNAME", "PASSWORD"):  # which opening the store sets
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://name:hunter22@127.0.0.1:1")
    monkeypatch.setattr(courier, "QUIET", 0.0)
    run = tracker(home, "tracking.wait_seconds=0")
    address = "postgresql://name:hunter22@host/db"
    run.start(home / "run", "hf_abcdef", {"data.path": address}, {"overrides": "x=hf_abcdef"})
    run.tag("failure", f"no answer of {address}")
    run.log_text("hf_abcdef", "text")
    assert run.run_id
    run.finish()
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    said = capsys.readouterr().err
    for secret in ("hunter22", "hf_abcdef"):
        assert secret.encode() not in kept
        assert secret not in said


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


SERVER = """
import os, sys
store, port = sys.argv[1:]
os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{store}/mlflow.db"
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = f"{store}/artifacts"
from mlflow.server import app
app.run("127.0.0.1", int(port), threaded=True)
"""


def server(home: Path, port: int) -> subprocess.Popen[bytes]:
    """MLflow's server on the store in ``home``, without its helpers, when it answers."""
    environment = {key: value for key, value in os.environ.items() if "TRACKING" not in key}
    words = [sys.executable, "-c", SERVER, str(home), str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, env=environment, **quiet)  # type: ignore[call-overload]
    for _ in range(1200):
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return process  # type: ignore[no-any-return]
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    process.kill()
    raise AssertionError("MLflow's server did not start")


def test_a_server_that_is_gone_for_a_time_gets_everything_once_and_in_order(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "PERIOD", 0.05)
    monkeypatch.setattr(courier, "LAST_RETRY", 0.5)
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    process = server(home, port)
    try:
        run = tracker(home, "tracking.wait_seconds=60")
        run.start(home / "run", "run", {"a": 1}, {"t": "1"})
        assert run.run_id
        for step in range(3000):
            run.log({"a": step / 7, "b": float(step)}, step)
            if step == 1000:
                process.kill()  # as a crash would
                process.wait()
            if step == 2000:
                process = server(home, port)
        (home / "run" / "file").write_text("x")
        run.log_file(home / "run" / "file")
        run.finish()
    finally:
        process.kill()
        process.wait()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert stored(home, run.run_id, "a") == [(step, step / 7) for step in range(3000)]
    assert stored(home, run.run_id, "b") == [(step, float(step)) for step in range(3000)]
    client = connect(home)
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["file"]
    assert not ledger.owed(home)
    Journal(home / "run").close()  # nobody holds it
