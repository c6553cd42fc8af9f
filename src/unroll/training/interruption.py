"""Ctrl-C and SIGTERM: the first one asks a training to end, a second one ends it at once.

After Ctrl-C the model is scored. SIGTERM comes from a machine that will soon be gone, so nothing
is done but to keep the state.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from unroll.errors import Terminated


class Interruption(threading.Event):
    """Set when a training is asked to end."""

    terminated = False
    """Whether by SIGTERM."""


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """An event that Ctrl-C or SIGTERM sets; a second signal raises ``KeyboardInterrupt``.

    Python handles signals in the main thread only: in any other thread the event is never set.
    """
    event = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def on_signal(number: int, frame: object) -> None:
        if event.is_set():
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        event.terminated = number == signal.SIGTERM
        event.set()

    before = {name: signal.signal(name, on_signal) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
