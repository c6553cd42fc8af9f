"""A thread that delivers a run's journal while the run goes on, and never lets it wait."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from unroll.errors import Refused, first_line
from unroll.tracking.config import MLflowConfig
from unroll.tracking.delivery import Delivery
from unroll.tracking.journal import Journal, say
from unroll.tracking.store import Unavailable

THREAD = "tracking"
PERIOD = 10.0
"""Seconds between two deliveries to a store that works."""
FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds between two tries while the store fails: each time twice as many."""
QUIET = 5.0
"""Seconds for which the store may fail before a line says so."""
ANSWER = 30.0
"""Seconds that a run waits, once, for the id that the store gives it."""


class Courier:
    """Delivers an open journal in the background, and closes it."""

    def __init__(self, journal: Journal, config: MLflowConfig) -> None:
        self.journal = journal
        self.delivery = Delivery(journal, config)
        self.refused: Refused | None = None
        """Why the store, which works, does not take the run."""
        self._tried = threading.Event()
        self._wake = threading.Event()
        self._closing = False
        self._ending = threading.Lock()
        self._abandoned = self._ended = False  # of two that end, the later one closes the journal
        self._end = threading.Event()
        self._reason = "it has not answered yet"
        self._failing_since: float | None = None
        self._said = False
        self._started = time.monotonic()
        # a daemon: a store that hangs does not keep the process
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def run_id(self, key: str) -> str | None:
        """The id that the store gave the run with this id in the journal.

        Waits for it while the first try goes on, but not longer than ``ANSWER`` seconds from the
        start; None if there is no answer by then.

        Raises:
            Refused: the store works, and does not take the run.
        """
        self._tried.wait(max(0.0, self._started + ANSWER - time.monotonic()))
        if self.refused is not None:
            raise self.refused
        return self.delivery.run_id(key)

    def close(self, patience: float) -> bool:
        """Deliver the rest, close the journal, and say what is left.

        Ends after ``patience`` seconds in which nothing arrived, or at Ctrl-C.

        Returns:
            Whether the store has everything.
        """
        self.journal.flush()
        self._closing = True
        self._wake.set()
        with suppress(KeyboardInterrupt):  # it ends the wait, not the run, whose work is done
            while not self._end.is_set():
                before = self.delivery.cursor
                self._end.wait(patience)
                begun = self._tried.is_set() or self.delivery.client is not None
                if begun and self.delivery.cursor == before:
                    break
        with self._ending:
            self._abandoned, ended = True, self._ended
        self._wake.set()
        if self.refused is None and self.delivery.left:
            say(
                f"{self.delivery.left} entries of this run are not in the tracking store "
                f"({self._reason}); they are kept in {self.journal.path}: deliver them with unroll "
                "task=sync"
            )
        if ended:  # else the journal stays locked, so that no other process delivers, until the
            self.journal.close()  # last request of the thread ends
        return self.delivery.left == 0

    def _run(self) -> None:
        try:
            self._deliver_all()
        finally:
            with self._ending:
                abandoned, self._ended = self._abandoned, True
            if abandoned:
                self.journal.close()
            self._end.set()

    def _deliver_all(self) -> None:
        pause = FIRST_RETRY
        while not self._abandoned:
            closing = self._closing  # before the delivery, so that what came before is part of it
            try:
                self.journal.sync()  # first, so that the store never has what the journal lost
                self.delivery.deliver()
                self._works()
                if closing:
                    break
                wait, pause = PERIOD, FIRST_RETRY
            except (Unavailable, OSError) as error:
                self._fails(error)
                wait, pause = FIRST_RETRY if closing else pause, min(2 * pause, LAST_RETRY)
            except Refused as error:
                if not self._tried.is_set():
                    self.refused = error
                    break
                self._fails(error)
                wait, pause = pause, LAST_RETRY
            finally:
                self._tried.set()
            self._wake.wait(wait)
            self._wake.clear()

    def _works(self) -> None:
        if self._said:
            say("the tracking store works again: it has everything that waited")
        self._failing_since, self._said = None, False

    def _fails(self, error: Exception) -> None:
        self._reason = first_line(error)
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        lasts = now - self._failing_since >= QUIET
        if lasts and not self._said and not self._abandoned:
            self._said = True
            say(f"{self._reason}. The run goes on; what is tracked waits in {self.journal.path}")
