"""Secrets of the environment: in no file that a run writes, and in nothing that it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unroll.app import compose, dispatch

TINY = ("data=text_files", "data.batching.length=10", "data.batching.batch_size=8", "device=cpu",
        "model.hidden_size=8", "model.embedding_size=8", "threads=1", "training.max_steps=3",
        "sampling.length=3")  # fmt: skip
SECRETS = {
    "HF_TOKEN": "hf_planted0123",
    "MLFLOW_TRACKING_PASSWORD": "planted-password",
    "AWS_SECRET_ACCESS_KEY": "planted+key/4567",
}
TOKEN, PASSWORD, KEY = SECRETS.values()
ADDRESS = "planted22"
"""Password in the address of a server."""
PLANTED = (f"tracking.run_name=run {TOKEN}", f"tracking.label={PASSWORD}",
           f"sampling.prefix=['one {TOKEN}','two {KEY}']")  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text in a folder that is named after a secret, as one mounted for a user may be."""
    path = tmp_path / TOKEN / "text.txt"
    path.parent.mkdir()
    path.write_text("\n\n".join(f"one two three {i % 3} four {i % 7} six ." for i in range(60)))
    return path


def places(home: Path, text: Path) -> list[str]:
    cache = text.parent / "cache"
    return [f"tracking.directory={home}/mlruns", f"data.cache={cache}", f"data.path={text}"]


def shown(home: Path, *secrets: str) -> list[str]:
    """Each file under ``home`` that holds one of the secrets, with the secret."""
    return [
        f"{path.relative_to(home)}: {secret}"
        for path in home.rglob("*")
        if path.is_file()
        for secret in secrets
        if secret.encode() in path.read_bytes()
    ]


def written(home: Path) -> set[str]:
    return {path.name for path in home.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("mlruns")
def test_no_file_and_no_line_of_a_multirun_holds_a_secret(tmp_path: Path, text: Path) -> None:
    absent = text.with_name("absent.txt")
    words = [*TINY, *PLANTED, *places(tmp_path, text)[:2], f"hydra.sweep.dir={tmp_path}/sweep"]
    done = subprocess.run(
        [sys.executable, "-m", "unroll", "-m", *words, f"data.path={text},{absent}"],
        capture_output=True,
        text=True,
        env=os.environ | SECRETS,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "absent.txt does not exist" in done.stderr
    assert "2 jobs: 1 run, 1 failed" in done.stdout
    names = {"config.json", "result.json", "generated.txt", "best.safetensors", "1.json"}
    names |= {"tracking.journal", "mlflow.db", "multirun.yaml", "children.csv", "state.safetensors"}
    assert names <= written(tmp_path)
    assert shown(tmp_path, *SECRETS.values()) == []
    for secret in SECRETS.values():
        assert secret not in done.stdout + done.stderr
    config = json.loads((tmp_path / "sweep" / "0" / "config.json").read_text())
    assert config["tracking"]["run_name"] == "run ***"
    assert config["data"]["path"] == f"{tmp_path}/***/text.txt"


def test_a_password_in_the_address_of_a_server_is_in_no_file_and_no_line(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://name:{ADDRESS}@127.0.0.1:1")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # and put back after the test
    words = [*TINY, *places(tmp_path, text), f"tracking.run_name=run {ADDRESS}"]
    words += ["tracking.wait_seconds=0"]
    (tmp_path / "run").mkdir()
    dispatch(compose(words), tmp_path / "run", words, reuse=False)
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == ADDRESS, "MLflow gets it"
    assert {"config.json", "tracking.journal", "result.json"} <= written(tmp_path)
    assert shown(tmp_path, ADDRESS) == []
    printed = capsys.readouterr()
    assert "not in the tracking store" in printed.err
    assert ADDRESS not in printed.out + printed.err
