"""What every task needs around its work: a seed, a device, a run in the store, a result."""

from __future__ import annotations

import json
import math
import random
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unroll.config import CHECKOUT, Config, fingerprint, flat
from unroll.errors import require
from unroll.registry import build
from unroll.tracking import ledger
from unroll.tracking.store import MLflowTracker, Tracker

Result = dict[str, Any]

RESULT = "result.json"
UNNAMED = ("tracking", "hydra", "data.path", "data.cache", "threads")
"""Overrides that a run's name leaves out."""


class Run:
    """A run that is about to be made: its name, its directory, its place in the store."""

    def __init__(self, config: Config, directory: Path, overrides: list[str]) -> None:
        self.config, self.directory, self.overrides = config, directory, overrides
        self.name = run_name(config, overrides)
        self.tracker: Tracker = build("tracking", config.tracking)
        self.corpus_fingerprint: str = build("data", config.data).fingerprint()
        self.fingerprint = fingerprint(config, self.corpus_fingerprint)

    def finished_before(self, reuse: bool) -> Result | None:
        """What stands for this run, where ``reuse`` is allowed and one has finished before."""
        if not (reuse and isinstance(self.tracker, MLflowTracker)):
            return None
        found = self.tracker.reuse(self.fingerprint)
        if found is None:
            return None
        say(f"run {found} has finished with this very config: not run again (rerun=true would)")
        return {"task": self.config.task.name, "run_id": found, "reused": True}

    @contextmanager
    def recorded(self, params: Mapping[str, Any] | None = None) -> Iterator[Tracker]:
        """The run in the store while the work goes on. It ends finished, failed or killed, as
        the work does; an error goes on its way.

        Raises:
            Refused: the run directory holds another run.
        """
        require_empty(self.directory)
        tracker = self.tracker
        tags = {
            "git_commit": git_commit(),
            "corpus_fingerprint": self.corpus_fingerprint,
            "config_fingerprint": self.fingerprint,
            "overrides": " ".join(self.overrides),
            "directory": str(self.directory.resolve()),
        }
        tracker.start(self.name, flat(self.config) | dict(params or {}), tags)
        try:
            say(f"run: {self.name} in {self.directory}")
            yield tracker
            tracker.finish()
        except BaseException as error:
            tracker.tag("failure", " ".join(f"{type(error).__name__}: {error}".split())[:500])
            tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def keep(self, result: Result, figures: Mapping[str, float], step: int = 0) -> Result:
        """Write the result, with its figures, into the run directory and the store."""
        result = {"task": self.config.task.name, "run_id": self.tracker.run_id} | result
        self.tracker.log(dict(figures), step)
        write_result(self.directory, result)
        self.tracker.log_file(self.directory / RESULT)
        return result


def require_empty(directory: Path) -> None:
    """Raise ``Refused`` where the run directory holds a run: it would be lost."""
    taken = [name for name in (ledger.CHECKPOINTS, RESULT) if (directory / name).exists()]
    require(
        not taken,
        f"hydra.run.dir={directory} holds a run already ({', '.join(taken)}): name another "
        "folder, or leave hydra.run.dir out",
    )


def prepare(config: Config) -> None:
    """Seed every generator, and take the threads that were asked for."""
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    if config.threads is not None:
        torch.set_num_threads(config.threads)


def device(config: Config) -> torch.device:
    """The device asked for, or with ``auto`` the fastest there is.

    Raises:
        Refused: there is no such device here.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if config.device == "auto":
        return torch.device(next(name for name, usable in there.items() if usable))
    usable = ", ".join(name for name in there if there[name])
    require(there[config.device], f"device={config.device} is not to be had here: {usable} is")
    return torch.device(config.device)


def run_name(config: Config, overrides: list[str]) -> str:
    """Data and model of a training, or the task and what it describes, and what else the command
    line says, in a name without spaces."""
    given = getattr(config.tracking, "run_name", None)
    if given:
        return str(given)
    trained = [config.data.name, config.model.name]
    task = config.task.name
    said = {"train": trained, "describe": [task, *trained]}.get(task, [task])
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key in ("model", "data", "task") or key.startswith(UNNAMED):
            continue
        said.append(f"{key.rpartition('.')[2].rpartition('/')[2]}={value}")
    return "-".join("_".join(part.split()) for part in said)[:120]


def git_commit() -> str:
    """The checkout's commit, or 'unknown' outside of one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


def write_result(directory: Path, result: Result) -> None:
    """Write result.json whole; what JSON has no number for becomes null."""
    text = json.dumps(_finite(result), ensure_ascii=False, indent=2)
    ledger.write_atomically(directory / RESULT, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def say(line: str) -> None:
    """Tell the person at the terminal."""
    print(line, flush=True)
