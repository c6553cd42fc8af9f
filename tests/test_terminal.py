"""Output whose reader leaves: the command goes on without it, quietly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unroll.terminal import PIPE_CLOSED

TINY = ("model.hidden_size=8", "model.embedding_size=8", "sampling.length=3", "data.limit=20")
TINY += (
    "data=lee_news",
    "data.vocabulary.min_frequency=2",
    "data.batching.batch_size=8",
    "training.max_steps=2",
)


def closed_pipe() -> int:
    """A descriptor to write to that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return write


def unread(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and standard error of a command whose standard output nobody reads."""
    places = [f"tracking.directory={folder}/mlruns", f"data.cache={folder}/cache"]
    places += [f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"]
    stdout = closed_pipe()
    done = subprocess.run(
        [sys.executable, "-m", "unroll", *words, *places],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=200,
        check=False,
    )
    os.close(stdout)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", [("--help",), ("--cfg", "job"), ("--info", "config")])
def test_a_listing_that_nobody_reads_ends_quietly(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert unread(tmp_path, *words) == (PIPE_CLOSED, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("mlruns")
def test_a_training_goes_on_and_keeps_its_result_when_its_output_is_closed(tmp_path: Path) -> None:
    assert unread(tmp_path, *TINY) == (PIPE_CLOSED, "")
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["steps"] == 2
    from unroll.tracking.store import connect

    (run,) = connect(tmp_path / "mlruns").search_runs(["1"])
    assert (run.info.status, run.info.run_id) == ("FINISHED", result["run_id"])


def test_the_jobs_of_a_multirun_go_on_when_their_output_is_closed(tmp_path: Path) -> None:
    words = ("-m", "hydra/launcher=joblib", "seed=1,2", "tracking=disabled")
    assert unread(tmp_path, *TINY, *words) == (PIPE_CLOSED, "")
    assert len(list((tmp_path / "sweep").glob("*/result.json"))) == 2


def test_an_error_keeps_its_exit_code_when_nobody_reads_it(tmp_path: Path) -> None:
    stderr = closed_pipe()
    command = [sys.executable, "-m", "unroll", "model=ltsm"]
    done = subprocess.run(command, stdout=stderr, stderr=stderr, timeout=60, cwd=tmp_path)
    os.close(stderr)
    assert done.returncode == 2


def test_output_that_is_read_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unroll", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("task:\n  name: train\n")
    assert "rerun: false\n" in done.stdout
