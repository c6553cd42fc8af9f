"""Standard output and standard error: of a command whose reader may close the pipe, as ``head``
does, and of the processes of a run, of which only the first prints."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

from unroll import processes

PIPE_CLOSED = 141
"""Exit code of a command that ends because its pipe was closed: 128 + SIGPIPE."""

GRACE_SECONDS = 10.0
"""After a failure of another process than the first: most often the first fails in the same way,
and says so, and the launcher then ends all."""


class UntilClosed:
    """A text stream that discards what is written after its pipe was closed.

    A closed pipe must not end a training: its result goes to files, not to the pipe.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.was_closed = stream, False

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        """Point the descriptor to the null device, so that Python's flush at exit works too."""
        self.was_closed = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def until_closed() -> Iterator[list[UntilClosed]]:
    """Standard output and standard error as ``UntilClosed``, flushed at the end."""
    before = sys.stdout, sys.stderr
    streams = [UntilClosed(stream) for stream in before]
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def silently(command: Callable[[], int]) -> int:
    """Carry out a command in another process than the first. It prints nothing, except that it
    failed where the first one did not; the exit code."""
    errors = io.StringIO()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(errors):
        code = command()
    lines = errors.getvalue().splitlines()
    if code and lines:
        with suppress(KeyboardInterrupt):
            time.sleep(GRACE_SECONDS)
            print(f"process {processes.rank()}: {lines[-1]}", file=sys.stderr, flush=True)
    return code
