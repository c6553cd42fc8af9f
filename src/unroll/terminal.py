"""Standard output and standard error whose reader may close the pipe, as ``head`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

PIPE_CLOSED = 141
"""Exit code of a command that ends because its pipe was closed: 128 + SIGPIPE."""


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
