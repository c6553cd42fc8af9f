"""A disk that fills while a run writes: one line, code 1, and no file that is half written."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from unroll.errors import FAILED, explain
from unroll.training import checkpoint

TINY = ("tracking=disabled", "model.hidden_size=8", "model.embedding_size=8")
TINY += ("data=lee_news", "data.limit=40")
TINY += ("training.max_steps=3", "sampling.length=3", "data.batching.batch_size=8")

LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from unroll.app import main
main()
"""


@pytest.mark.parametrize("limit", [0, 1000, 20_000, 100_000])
def test_a_run_whose_files_cannot_grow_ends_in_one_line_and_leaves_no_part(
    tmp_path: Path, limit: int
) -> None:
    pytest.importorskip("resource", reason="needs a limit on the size of files")
    places = [f"tracking.directory={tmp_path}/mlruns", f"data.cache={tmp_path}/cache"]
    words = [*TINY, *places, f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == FAILED, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("unroll: cannot write")
    assert "File too large" in line or "temporary directory" in line
    streams = tmp_path / "cache" / "streams"
    assert not [path for path in streams.glob(".parts-*")]
    for path in (tmp_path / "run").rglob("*.safetensors"):
        checkpoint.read(path)
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "cannot write x: No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x"), "cannot write x: Disk quota exceeded"),
        (OSError(errno.EFBIG, "File too large"), "cannot write here: File too large"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "cannot write: I/O"),
        (RuntimeError("database or disk is full"), "cannot write: database or disk is full"),
    ],
)
def test_a_full_disk_is_one_line_whichever_library_writes(error: Exception, line: str) -> None:
    outer = RuntimeError("a library's own words")
    outer.__cause__ = error
    found, code = explain(outer)
    assert found is not None
    assert found.startswith(line)
    assert code == FAILED
