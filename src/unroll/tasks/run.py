"""What every task needs around its work: a seed, a device, a run in the store, a result."""

from __future__ import annotations

import ctypes
import json
import math
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unroll import processes
from unroll.config import Config, fingerprint, flat
from unroll.data.address import is_address
from unroll.data.config import CorpusConfig
from unroll.data.corpus import Corpus
from unroll.data.token_stream import Encoded
from unroll.errors import redacted, redacted_value, require
from unroll.folders import write_atomically
from unroll.models.precision import resolve_precision
from unroll.registry import build
from unroll.tracking import ledger
from unroll.tracking.naming import run_name
from unroll.tracking.source import git_commit, source_tags
from unroll.tracking.tracker import DataInput, Tracker

Result = dict[str, Any]

RESULT = ledger.RESULT
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Options of mallopt, as numbered in malloc.h."""


class Run:
    """A run before, while and after its work is done: its name, its directory, its place in the
    store."""

    def __init__(self, config: Config, directory: Path, overrides: list[str]) -> None:
        config = resolved(config)
        corpus: Corpus = build("data", config.data)
        config = replace(config, data=corpus.pinned())
        self.config, self.directory, self.overrides = config, directory, overrides
        self.started = time.time()
        self.name = run_name(config, overrides)
        self.resumed_at: int | None = None
        """The step that the run goes on from; None: it begins."""
        self.raised: dict[str, Any] = {}
        """Bounds that are other than when it began."""
        self.tracker: Tracker = build("tracking", config.tracking)
        self.corpus_fingerprint = corpus.fingerprint()
        self.fingerprint = fingerprint(config, self.corpus_fingerprint)
        self.status = "FINISHED"

    def finished_before(self, reuse: bool) -> Result | None:
        """The result of a run with the same fingerprint, if ``reuse`` allows it."""
        found = self.tracker.reuse(self.fingerprint) if reuse else None
        if found is None:
            return None
        say(
            f"run {found} already finished with this config and is reused; rerun=true runs it again"
        )
        return {"task": self.config.task.name, "run_id": found, "reused": True}

    @contextmanager
    def recorded(
        self, params: Mapping[str, Any] | None = None, encoded: Encoded | None = None
    ) -> Iterator[Tracker]:
        """The run in the store during the work. It ends as FINISHED, FAILED or KILLED, as the
        work does; an error is passed on.

        Args:
            params: what is logged besides the config.
            encoded: the text that is read, logged as the run's data set.

        Raises:
            Refused: the run directory holds another run.
        """
        tracker, step = self.tracker, self.resumed_at
        if step is None:
            require_empty(self.directory)
            inputs = [] if encoded is None else [data_input(self.config.data, encoded)]
            values = flat(self.config) | dict(params or {})
            tracker.start(self.directory, self.name, values, self._tags(), inputs)
        else:
            tracker.resume(self.directory, step)
            tracker.tag("config_fingerprint", self.fingerprint)
            for key, bound in self.raised.items():  # params cannot change
                tracker.tag(f"raised.{key}", str(bound))
        try:
            going_on = "" if step is None else f", going on from step {step:,}"
            precision = self.config.precision
            say(f"run: {self.name} in {self.directory}, precision {precision}{going_on}")
            yield tracker
            tracker.finish(self.status)
        except BaseException as error:
            with suppress(Exception):  # the store may be what failed
                tracker.tag("failure", " ".join(f"{type(error).__name__}: {error}".split())[:500])
                tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
            raise

    def interrupt(self) -> None:
        """Mark a run that Ctrl-C or SIGTERM cuts short: it ends as KILLED, and is not reused."""
        self.tracker.tag("interrupted", "true")
        self.status = "KILLED"

    def prune(self) -> None:
        """Mark a run that is stopped because others do better: it ends as KILLED."""
        self.tracker.tag("outcome", "PRUNED")
        self.status = "KILLED"

    def _tags(self) -> dict[str, str]:
        commit, tracking = git_commit(), self.config.tracking
        groups = {"study": tracking.study, "label": tracking.label}
        tags = {
            "git_commit": commit,
            "corpus_fingerprint": self.corpus_fingerprint,
            "config_fingerprint": self.fingerprint,
            "overrides": " ".join(self.overrides),
            "directory": str(self.directory.resolve()),
        }
        tags |= {key: value for key, value in groups.items() if value is not None}
        if processes.size() > 1:
            tags["processes"] = str(processes.size())
        return source_tags(commit) | tags

    def keep(self, result: Result, figures: Mapping[str, float], step: int = 0) -> Result:
        """Write the result, with its figures, into the run directory and the store."""
        result = {"task": self.config.task.name, "run_id": self.tracker.run_id} | result
        self.tracker.log(dict(figures), step)
        write_result(self.directory, result)
        self.tracker.log_file(self.directory / RESULT)
        return result


def data_input(data: CorpusConfig, encoded: Encoded) -> DataInput:
    """A corpus as the store names it: with its digest, its place and the size of its splits."""
    path = asdict(data).get("path")
    sizes = {
        split: {"documents": stream.documents, "tokens": len(stream)}
        for split, stream in encoded.streams.items()
    }
    place = path if path is None else absolute(path)
    return DataInput(data.name, encoded.corpus_fingerprint, place, sizes)


def absolute(path: str) -> str:
    """A path that can be read from any folder; an address stays as it is."""
    return path if is_address(path) else os.path.abspath(path)


def require_empty(directory: Path) -> None:
    """Raise ``Refused`` if the run directory holds a run, which would be overwritten."""
    taken = [name for name in (ledger.CHECKPOINTS, RESULT) if (directory / name).exists()]
    require(
        not taken,
        f"hydra.run.dir={directory} holds a run already ({', '.join(taken)}): name another "
        "folder, or leave hydra.run.dir out",
    )


def prepare(config: Config) -> None:
    """Seed every generator, set the number of threads, keep freed memory."""
    keep_freed_memory()
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    if config.threads is not None:
        torch.set_num_threads(config.threads)


def resolved(config: Config) -> Config:
    """The config with the precision that ``auto`` means on its device, so that a fingerprint, and
    what a run records, name the precision that was used.

    Raises:
        Refused: the device is not available.
    """
    return replace(config, precision=resolve_precision(config.precision, device(config)))


def keep_freed_memory() -> None:
    """Let the C library keep large blocks of freed memory for the next tensors.

    glibc gives them back to the system, and then a fresh tensor costs a page fault for every 4 KB,
    which takes longer than many products. Without glibc there is nothing to set.
    """
    with suppress(AttributeError, OSError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(MMAP_THRESHOLD, 1 << 30)
        set_option(TRIM_THRESHOLD, (1 << 31) - 1)


def device(config: Config) -> torch.device:
    """The device that the config names, or with ``auto`` the fastest that is available.

    Raises:
        Refused: the device is not available.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if config.device == "auto":
        return torch.device(next(name for name, usable in available.items() if usable))
    usable = ", ".join(name for name in available if available[name])
    require(
        available[config.device], f"device={config.device} is not available; available: {usable}"
    )
    return torch.device(config.device)


def write_result(directory: Path, result: Result) -> None:
    """Write result.json, without secrets; NaN and infinity, which JSON does not have, become
    null."""
    text = json.dumps(_finite(redacted_value(result)), ensure_ascii=False, indent=2)
    write_atomically(directory / RESULT, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def say(line: str) -> None:
    """Print a line at once, without secrets."""
    print(redacted(line), flush=True)
