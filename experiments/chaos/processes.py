"""Commands of Unroll in processes of their own, which are killed at an instant."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.chaos.evidence import URI
from unroll.tracking import journal, ledger

POLL = 0.0005  # seconds between two looks for the instant to kill
LONGEST = 300.0  # seconds of a command

Moment = Callable[[], bool]
"""Whether it is the instant to kill a process."""


class Command:
    """``unroll`` with some words, in a process group of its own, so that a kill reaches every
    worker.

    Args:
        log: what it prints is added to this file.
        server: address of the tracking store; the folder of ``tracking.directory`` if empty.
    """

    def __init__(self, words: Sequence[str], log: Path, server: str = "") -> None:
        environment = {key: value for key, value in os.environ.items() if key != URI}
        environment |= {"OMP_NUM_THREADS": "1"} | ({URI: server} if server else {})
        with log.open("ab") as file:
            self.process = subprocess.Popen(  # noqa: S603 - this Python, and words of ours
                [sys.executable, "-m", "unroll", *words],
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )

    def kill_at(self, moment: Moment) -> bool:
        """Kill all of it with SIGKILL at a moment; False if it ended before.

        The processes are stopped first: they are killed only if the moment is not over then.
        """
        deadline = time.monotonic() + LONGEST
        while self.process.poll() is None and time.monotonic() < deadline:
            if moment():
                self._signal(signal.SIGSTOP)
                if moment():
                    break
                self._signal(signal.SIGCONT)
            time.sleep(POLL)
        ended = self.process.poll() is not None
        self._signal(signal.SIGKILL)
        self.process.wait()
        return not ended

    def end(self) -> int:
        """Wait for its end; the exit code."""
        try:
            return self.process.wait(LONGEST)
        finally:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


def after(seconds: float) -> Moment:
    """Some time after now."""
    start = time.monotonic()
    return lambda: time.monotonic() >= start + seconds


def writing_a_state(directory: Path, seconds: float) -> Moment:
    """Inside the writing of a saved state, some time after the first one."""
    late = after_growth(directory, seconds)
    folder = directory / ledger.CHECKPOINTS
    return lambda: late() and any(folder.glob(".state-*"))


def after_growth(directory: Path, seconds: float) -> Moment:
    """Some time after the journal has begun to grow."""
    begun: list[float] = []

    def moment() -> bool:
        if not begun and _size(directory) > 0:
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() >= begun[0] + seconds

    return moment


def logging(directory: Path, seconds: float) -> Moment:
    """As soon as the journal has grown, some time after it has begun to."""
    late = after_growth(directory, seconds)
    before: list[int] = []

    def moment() -> bool:
        if not late():
            return False
        size = _size(directory)
        before.append(size)
        return size > before[0]

    return moment


def _size(directory: Path) -> int:
    try:
        return (directory / journal.NAME).stat().st_size
    except OSError:
        return 0


def jobs_begun(folder: Path, jobs: int, seconds: float) -> Moment:
    """Some time after so many jobs of the multiruns in a folder have a saved state."""
    begun: list[float] = []

    def moment() -> bool:
        if not begun and len({path.parent for path in folder.glob(STATES)}) >= jobs:
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() >= begun[0] + seconds

    return moment


STATES = f"*/*/{ledger.CHECKPOINTS}/state-*"

MOMENTS = ("any time", "state", "log", "any time", "start")


def drawn(kind: str, directory: Path, generator: random.Random, seconds: float) -> Moment:
    """A random instant of a kind. A training takes about ``seconds`` after its start."""
    wait = generator.uniform(0, seconds)
    if kind == "state":
        return writing_a_state(directory, wait)
    if kind == "log":
        return logging(directory, wait)
    if kind == "start":
        return after(generator.uniform(0, START))
    return after_growth(directory, wait)


START = 5.0
"""Seconds in which a command imports and reads its text."""
