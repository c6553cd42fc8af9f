"""The store is opened or refused in seconds; runs that ended by themselves are found in it."""

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from unroll.app import compose
from unroll.errors import Refused
from unroll.tracking import store
from unroll.tracking.config import MLflowConfig
from unroll.tracking.store import (
    KIND,
    KIND_TAG,
    Unavailable,
    connect,
    experiment_id,
    finished,
    require_store,
)
from unroll.tracking.tracker import MLflowTracker


def config(home: Path, *words: str) -> MLflowConfig:
    found = compose([f"tracking.directory={home}", *words]).tracking
    assert isinstance(found, MLflowConfig)
    return found


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def answering(code: int) -> tuple[HTTPServer, str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


def test_a_server_that_never_answers_is_refused_within_ten_seconds(
    tmp_path: Path, silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    assert store.PATIENCE < 10
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    start = time.monotonic()
    with pytest.raises(Unavailable, match="no answer within"):
        require_store(tmp_path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("code", "refused"), [(200, False), (401, False), (404, False), (503, True)]
)
def test_any_answer_counts_except_that_of_a_proxy_without_a_server(
    tmp_path: Path, code: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, address = answering(code)
    for name in ("USERNAME", "PASSWORD"):  # which opening the store sets
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", "//name:se%20cret@"))
    try:
        if refused:
            with pytest.raises(Refused, match="503") as error:
                require_store(tmp_path)
            assert "cret" not in str(error.value)
        else:
            require_store(tmp_path)
        assert os.environ["MLFLOW_TRACKING_URI"] == address
        assert os.environ["MLFLOW_TRACKING_USERNAME"] == "name"
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "se cret"
    finally:
        server.shutdown()
        server.server_close()


def test_a_damaged_or_locked_database_is_refused_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    start = time.monotonic()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "mlflow.db").write_text("this is no database, it is a text " * 200)
    with pytest.raises(Refused, match="tracking=disabled"):
        connect(tmp_path / "text")
    (tmp_path / "folder" / "mlflow.db").mkdir(parents=True)
    with pytest.raises(Refused, match="unable to open"):
        connect(tmp_path / "folder")
    (tmp_path / "locked").mkdir()
    other = sqlite3.connect(tmp_path / "locked" / "mlflow.db", isolation_level=None)
    other.execute("CREATE TABLE a (b)")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Refused, match="locked"):
        connect(tmp_path / "locked")
    other.close()
    assert time.monotonic() - start < 5


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(Refused, match="cannot be written"):
        connect(blocked / "below")


def test_the_experiment_opens_on_model_training_in_the_ui(home: Path) -> None:
    client = connect(home)
    old = client.create_experiment("old")
    for name in ("new", "old"):
        found = client.get_experiment(experiment_id(client, home, name))
        assert found.tags[KIND_TAG] == KIND == "custom_model_development"
    client.set_experiment_tag(old, KIND_TAG, "chosen by hand")
    assert experiment_id(client, home, "old") == old
    assert client.get_experiment(old).tags[KIND_TAG] == "chosen by hand"


def test_a_deleted_experiment_is_refused(home: Path) -> None:
    client = connect(home)
    client.delete_experiment(experiment_id(client, home, "gone"))
    tracker = MLflowTracker(config(home, "tracking.experiment=gone"))
    tracker.start(home / "run", "run", {}, {})
    with pytest.raises(Refused, match=r"'gone' was deleted.*tracking\.experiment"):
        _ = tracker.run_id
    with pytest.raises(Refused, match="was deleted"):
        tracker.log({"a": 1.0}, 1)  # at the next point, not only when points are written


def test_only_a_run_that_ended_by_itself_is_found_by_its_fingerprint(home: Path) -> None:
    for name, tags, status in (
        ("whole", {}, "FINISHED"),
        ("interrupted", {"interrupted": "true"}, "FINISHED"),  # as version 0.1.0 ended them
        ("failed", {}, "FAILED"),
        ("killed", {}, "KILLED"),
    ):
        tracker = MLflowTracker(config(home))
        tracker.start(home / name, name, {}, {"config_fingerprint": "f", **tags})
        tracker.finish(status)
    tracker = MLflowTracker(config(home))
    tracker.start(home / "running", "running", {}, {"config_fingerprint": "f"})
    assert tracker.run_id
    found = finished(connect(home), "1", "f")
    assert found is not None
    assert found.info.run_name == "whole"
    assert finished(connect(home), "1", "other") is None
