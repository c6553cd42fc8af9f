"""A run of another machine is read through a real server: fetched once, checked, refused in one
line where it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from safetensors.torch import load_file

from unroll.app import compose, dispatch
from unroll.errors import Refused, Terminated
from unroll.tasks.callbacks import RunCallbacks
from unroll.tracking import remote
from unroll.tracking.server import Settings, postgres_programs, serving
from unroll.tracking.store import connect

TINY = ("model.hidden_size=8", "model.embedding_size=8", "data.limit=20", "sampling.length=5")
TINY += ("data=lee_news", "data.batching.batch_size=4", "data.batching.length=100", "device=cpu")
TINY += ("training.max_steps=3", "tracking.wait_seconds=30")
SAMPLE = ("task=sample", "sampling.prefix=the prime minister", "sampling.length=5", "device=cpu")
SAMPLE += ("tracking.wait_seconds=30",)

Do = Callable[..., dict[str, Any]]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def machine(home: Path) -> Do:
    """Commands on a machine of its own, whose files are all in ``home``."""
    places = [f"tracking.directory={home}/mlruns", f"data.cache={home}/cache"]

    def do(name: str, *words: str) -> dict[str, Any]:
        directory = home / name
        directory.mkdir(parents=True)
        return dispatch(compose([*places, *words]), directory, list(words), reuse=False)

    return do


def texts(result: dict[str, Any]) -> list[str]:
    return [item["text"] for item in result["samples"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """MLflow's server with nothing else: SQLite and a folder of files, which it is asked for over
    HTTP. Gives the folder of the files."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    words = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    words += ["--artifacts-destination", str(folder / "files")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": ""}
    process = subprocess.Popen(
        words,
        env=os.environ | quiet,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
            while True:
                try:
                    urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    assert process.poll() is None
                    time.sleep(0.3)
            yield folder / "files"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def trained(server: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A run that was trained on a machine of which nothing is left, and what it wrote there."""
    home = tmp_path_factory.mktemp("first_machine")
    do = machine(home)
    run_id = do("trained", *TINY)["run_id"]
    written = texts(do("sampled", *SAMPLE, f"run={run_id}"))
    shutil.rmtree(home)
    return run_id, written


@pytest.fixture
def other(tmp_path: Path) -> Do:
    return machine(tmp_path)


def cached(home: Path) -> list[Path]:
    return list((home / "cache" / remote.CACHE).glob("*"))


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The artifacts that are downloaded."""
    from mlflow.tracking import MlflowClient

    seen: list[str] = []
    download = MlflowClient.download_artifacts

    def counted(self: Any, run_id: str, path: str, *rest: Any) -> str:
        seen.append(path)
        return str(download(self, run_id, path, *rest))

    monkeypatch.setattr(MlflowClient, "download_artifacts", counted)
    return seen


def test_a_run_of_another_machine_writes_the_same_text_and_is_downloaded_once(
    trained: tuple[str, list[str]], other: Do, tmp_path: Path, downloads: list[str]
) -> None:
    run_id, written = trained
    assert texts(other("first", *SAMPLE, f"run={run_id}")) == written
    assert texts(other("second", *SAMPLE, f"run={run_id}")) == written
    assert downloads == ["model/best.safetensors"]
    (file,) = cached(tmp_path)
    assert remote.sha256(file) == file.stem
    files = connect(tmp_path / "mlruns").list_artifacts(run_id, "samples")
    assert {item.path for item in files} >= {f"samples/{tmp_path.name}-first.txt"}


def test_a_damaged_file_of_the_cache_is_fetched_again(
    trained: tuple[str, list[str]], other: Do, tmp_path: Path, downloads: list[str]
) -> None:
    run_id, written = trained
    other("first", *SAMPLE, f"run={run_id}")
    (file,) = cached(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # a weight, which no reader would notice
    file.write_bytes(content)
    assert texts(other("second", *SAMPLE, f"run={run_id}")) == written
    assert len(downloads) == 2
    assert remote.sha256(file) == file.stem


def test_other_tasks_read_it_too(
    trained: tuple[str, list[str]], other: Do, tmp_path: Path, downloads: list[str]
) -> None:
    run_id, _ = trained
    scored = other("scored", "task=evaluate", f"run={run_id}", "evaluation.protocol=document")
    found = connect(tmp_path / "mlruns").get_run(run_id).data.metrics
    assert found["test/document/perplexity"] == pytest.approx(scored["perplexity"])
    prefixes = ("sampling.prefix_documents=2", "sampling.length=3", "sampling.prefix_length=3")
    compared = other(
        "compared", "task=compare", f"task.runs=[{run_id}]", "task.greedy=true", *prefixes
    )
    assert [run["run_id"] for run in compared["runs"]] == [run_id]
    assert len(downloads) == 1


def test_a_checkpoint_that_was_replaced_in_the_store_is_refused(
    trained: tuple[str, list[str]], other: Do, server: Path, tmp_path: Path
) -> None:
    run_id, _ = trained
    (stored,) = server.glob(f"*/{run_id}/artifacts/model/best.safetensors")
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(Refused, match="not what the run recorded") as error:
            other("refused", *SAMPLE, f"run={run_id}")
    finally:
        stored.write_bytes(whole)
    assert "\n" not in str(error.value)
    assert cached(tmp_path) == []


def test_a_run_without_a_checkpoint_and_an_unknown_one_are_refused(
    trained: tuple[str, list[str]], other: Do, server: Path, tmp_path: Path
) -> None:
    described = other("described", "task=describe", "data=lee_news", "data.limit=20")["run_id"]
    with pytest.raises(Refused, match="has no checkpoint in http"):
        other("no_checkpoint", *SAMPLE, f"run={described}")
    with pytest.raises(Refused, match="nor in the tracking store http"):
        other("unknown", *SAMPLE, f"run={'0' * 32}")
    run_id, _ = trained
    (stored,) = server.glob(f"*/{run_id}/artifacts/model/best.safetensors")
    stored.rename(stored.with_name("away"))
    try:
        with pytest.raises(Refused, match=r"model/best\.safetensors cannot be fetched") as error:
            other("lost", *SAMPLE, f"run={run_id}")
    finally:
        stored.with_name("away").rename(stored)
    assert "\n" not in str(error.value)
    assert cached(tmp_path) == []
    client = connect(tmp_path / "mlruns")
    digest = client.get_run(run_id).data.tags[remote.DIGEST]
    client.set_tag(run_id, remote.DIGEST, "../../etc/passwd")  # never part of a path
    try:
        with pytest.raises(Refused, match="could be checked"):
            other("no_digest", *SAMPLE, f"run={run_id}")
    finally:
        client.set_tag(run_id, remote.DIGEST, digest)


def test_a_corpus_that_is_not_on_this_machine_is_named_and_not_needed_with_a_prefix(
    server: Path, other: Do, tmp_path: Path
) -> None:
    text = tmp_path / "book.txt"
    text.write_text("\n\n".join(f"the prime minister said {n} words today" for n in range(60)))
    words = [word for word in TINY if word not in ("data=lee_news", "data.batching.length=100")]
    words += ["data=text_files", f"data.path={text}", "data.batching.length=10"]
    run_id = other("trained", *words)["run_id"]
    text.unlink()
    for name in ("trained", "mlruns", "cache"):
        shutil.rmtree(tmp_path / name)
    assert texts(other("sampled", *SAMPLE, f"run={run_id}"))
    for task in ("sample", "evaluate"):
        with pytest.raises(Refused, match=r"book\.txt.*sampling\.prefix=TEXT") as error:
            other(task, f"task={task}", f"run={run_id}", "device=cpu")
        assert len(str(error.value).splitlines()) == 1


STEPS = (*TINY, "optimizer/schedule=constant", "training.max_steps=6", "tracking.every=1")


def weights(directory: str | Path) -> dict[str, Any]:
    return load_file(Path(directory) / "checkpoints" / "last.safetensors")


@pytest.fixture(scope="module")
def stopped(server: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A training of six steps that SIGTERM ended at the third, on a machine of which nothing is
    left."""
    home = tmp_path_factory.mktemp("stopped_machine")
    log = RunCallbacks.log
    ids: list[str] = []

    def log_and_stop(self: RunCallbacks, figures: dict[str, float], step: int) -> None:
        log(self, figures, step)
        if step == 3:
            ids.append(self.run.tracker.run_id)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunCallbacks, "log", log_and_stop)
        with pytest.raises(Terminated):
            machine(home)("trained", *STEPS)
    shutil.rmtree(home)
    return ids[0]


def test_a_training_that_was_stopped_on_another_machine_goes_on_to_the_same_end(
    stopped: str, other: Do, tmp_path: Path
) -> None:
    store = tmp_path / "mlruns"
    result = other("resumed", f"resume={stopped}")
    assert result["run_id"] == stopped
    assert 0 < result["resumed_at"] < 6
    whole = other("whole", *STEPS)
    there, here = weights(store / "fetched" / stopped), weights(tmp_path / "whole")
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)
    client = connect(store)
    assert client.get_run(stopped).info.status == "FINISHED"
    for key in ("train/loss", "valid/perplexity", "test/perplexity"):
        curves = [client.get_metric_history(run, key) for run in (stopped, whole["run_id"])]
        first, second = ([(point.step, point.value) for point in curve] for curve in curves)
        assert first == second  # each point once
    assert str(tmp_path) in (store / "fetched" / stopped / "config.json").read_text()
    shutil.rmtree(store)
    with pytest.raises(Refused, match="is finished; raise a bound"):
        machine(tmp_path / "third")("finished", f"resume={stopped}")


def test_a_state_that_was_replaced_in_the_store_is_refused_and_leaves_nothing(
    stopped: str, other: Do, server: Path, tmp_path: Path
) -> None:
    (stored,) = server.glob(f"*/{stopped}/artifacts/state/config.json")
    whole = stored.read_bytes()
    stored.write_bytes(whole.replace(b"lee_news", b"ag_news"))
    try:
        with pytest.raises(Refused, match=r"state/config\.json .* not what the run recorded"):
            other("refused", f"resume={stopped}")
    finally:
        stored.write_bytes(whole)
    assert list((tmp_path / "mlruns" / "fetched").iterdir()) == []


@pytest.mark.parametrize(
    "tag",
    [
        "no JSON",
        "[]",
        '{"folder": "../../a", "files": {}}',
        json.dumps({"folder": "state-000000003", "files": {"../a": "0" * 64}}),
    ],
)
def test_a_training_without_a_usable_state_is_refused(
    stopped: str, other: Do, tmp_path: Path, tag: str
) -> None:
    client = connect(tmp_path / "mlruns")
    run_id = client.create_run(client.get_run(stopped).info.experiment_id).info.run_id
    with pytest.raises(Refused, match="RUNNING in http"):
        other("running", f"resume={run_id}")
    client.set_terminated(run_id)
    with pytest.raises(Refused, match="no saved state in http"):
        other("none", f"resume={run_id}")
    client.set_tag(run_id, remote.STATE_TAG, tag)
    with pytest.raises(Refused, match="saved_state of the run is damaged"):
        other("damaged", f"resume={run_id}")
    with pytest.raises(Refused, match="nor in the tracking store"):
        other("unknown", f"resume={'0' * 32}")


def test_a_store_that_does_not_answer_is_refused_in_seconds_with_code_2(tmp_path: Path) -> None:
    words = [*SAMPLE, f"run={'a' * 32}", f"tracking.directory={tmp_path}/mlruns"]
    words += [f"hydra.run.dir={tmp_path}/outputs/day/time"]
    start = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-m", "unroll", *words],
        env=os.environ | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert "does not work: no answer" in line
    assert time.monotonic() - start < 60
    assert not (tmp_path / "outputs").exists()


def test_without_a_server_an_unknown_id_asks_no_store_and_makes_none(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert remote.fetch_checkpoint(tmp_path / "mlruns", "0" * 32, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a whole server: PostgreSQL, a file store, MLflow."""
    for package in ("psycopg", "boto3", "localbucket"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'unroll[server]'")
    try:
        postgres_programs()
    except Refused as missing:
        pytest.skip(str(missing))
    # not tmp_path: its parents are closed to the user that runs PostgreSQL in place of root
    folder = Path(tempfile.mkdtemp(prefix="unroll-server-"))
    folder.chmod(0o755)
    settings = Settings(folder, "127.0.0.1", free_port(), free_port(), None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{settings.port}")
    yield settings
    shutil.rmtree(folder)


@pytest.mark.engines
def test_a_server_with_postgresql_and_s3_has_everything_after_it_was_started_again(
    engines: Settings, tmp_path: Path
) -> None:
    first = machine(tmp_path / "first")
    with serving(engines):
        run_id = first("trained", *TINY)["run_id"]
        written = texts(first("sampled", *SAMPLE, f"run={run_id}"))
    stored = engines.folder / "s3" / "unroll"
    assert [path.name for path in stored.rglob("best.safetensors")] == ["best.safetensors"]
    with pytest.raises(OSError, match="refused"):
        urlopen(os.environ["MLFLOW_TRACKING_URI"], timeout=5)
    shutil.rmtree(tmp_path / "first")
    other = machine(tmp_path / "other")
    given = {"SERVER_FOLDER": str(engines.folder), "SERVER_PORT": str(engines.port)}
    given |= {"SERVER_S3_PORT": str(engines.s3_port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "unroll.tracking.server"],
        env=os.environ | given,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "MLflow answers" in process.stdout.readline()
        assert texts(other("sampled", *SAMPLE, f"run={run_id}")) == written
        run = connect(tmp_path).get_run(run_id)
    finally:
        process.terminate()
        assert process.wait(60) == 0
    with pytest.raises(OSError, match="refused"):
        urlopen(os.environ["MLFLOW_TRACKING_URI"], timeout=5)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/perplexity"] > 1
    assert json.loads((tmp_path / "other" / "sampled" / "result.json").read_text())["samples"]


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("SERVER_PORT", "http", "expected a port"),
        ("SERVER_S3_PORT", "70000", "expected a port"),
        ("SERVER_ARTIFACTS", "/files", "expected a bucket"),
    ],
)
def test_a_wrong_setting_of_the_server_is_refused(name: str, value: str, line: str) -> None:
    with pytest.raises(Refused, match=f"{name}={value}: {line}"):
        Settings.read({name: value})


@pytest.mark.engines
def test_a_port_or_a_folder_that_cannot_be_used_is_refused_before_anything_starts(
    engines: Settings,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", engines.port))
        taken.listen()
        with pytest.raises(Refused, match=f"SERVER_PORT={engines.port}"), serving(engines):
            pass
    assert list(engines.folder.iterdir()) == []
    (engines.folder / "file").write_text("")
    blocked = replace(engines, folder=engines.folder / "file" / "below")
    with pytest.raises(Refused, match="cannot be written"), serving(blocked):
        pass
