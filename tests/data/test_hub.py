"""Data sets of the hub are read from its server as they stream by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import HfApi
from servers import COMMIT, Repository, serving

from unroll.tasks.run import Run

FILES = {
    "train.jsonl": "".join(
        json.dumps({"text": f"line {n}" if n else "", "n": n}) + "\n" for n in range(40)
    ).encode(),
    "validation.jsonl": b'{"text": "to validate"}\n',
    "test.jsonl": b'{"text": "to test"}\n',
    "other.jsonl": b'{"text": "of no split"}\n',
}
READ = """
import json, sys
from unroll.app import compose
from unroll.registry import build
data = compose(["data=hub", "data.limit=5", *sys.argv[1:]]).data
corpus = build("data", data)
try:
    found = {split: list(table["text"]) for split, table in corpus.read().items()}
    print(json.dumps([corpus.commit, found, corpus.fingerprint()]))
except ValueError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def read(server: str, folder: Path, *words: str) -> Any:
    """What a new process reads: the library takes the address of the hub when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": server, "HF_HOME": str(folder / "home")}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", READ, f"data.cache={folder}/cache", *words]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_the_first_documents_of_each_split_are_read_at_the_commit_of_the_hub(tmp_path):
    with serving(type("Tiny", (Repository,), {"files": FILES})) as server:
        commit, found, fingerprint = read(server, tmp_path, "data.dataset=me/tiny")
        pinned = read(server, tmp_path, "data.dataset=me/tiny", f"data.revision={COMMIT}")
    assert commit == COMMIT
    assert found == {
        "train": [f"line {n}" for n in range(1, 6)],
        "valid": ["to validate"],
        "test": ["to test"],
    }
    assert pinned == [commit, found, fingerprint]


def test_a_run_keeps_the_commit_that_it_read_and_so_its_corpus(composed, tmp_path, monkeypatch):
    commits = iter([COMMIT, "b" * 40])
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: SimpleNamespace(sha=next(commits)))
    config = composed("data=hub", "data.dataset=me/tiny", "tracking=disabled")
    run = Run(config, tmp_path, [])
    assert run.config.data.revision == COMMIT
    resumed, newer = Run(run.config, tmp_path, []), Run(config, tmp_path, [])
    assert resumed.fingerprint == run.fingerprint != newer.fingerprint
    assert resumed.corpus_fingerprint == run.corpus_fingerprint != newer.corpus_fingerprint


def test_a_data_set_or_column_that_the_hub_does_not_have_is_one_line(tmp_path):
    with serving(type("Tiny", (Repository,), {"files": FILES})) as server:
        absent = read(server, tmp_path, "data.dataset=me/absent")
        column = read(server, tmp_path, "data.dataset=me/tiny", "data.text_column=words")
    assert absent[0] == column[0] == "Refused"
    assert absent[1].startswith("data.dataset=me/absent cannot be read from the Hugging Face hub")
    assert "has no column 'words'; its columns: text, n" in column[1]


def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    kind, line = read("http://127.0.0.1:9", tmp_path, "data.dataset=me/tiny")
    assert kind == "Refused"
    assert "try again when the hub answers" in line
    assert "\n" not in line
