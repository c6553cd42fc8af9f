"""The journal of a run: all that is tracked, in one append-only file of the run directory.

Each line is a checksum and an entry as JSON: its number ``n``, its ``kind``, its ``time`` in
milliseconds since 1970, and the fields of its kind. A line whose checksum does not fit, such as the
torn last line of a process that was killed, is passed over.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unroll.errors import bounded, require
from unroll.folders import write_atomically

NAME, LOCK, DELIVERED = "tracking.journal", ".tracking.lock", "tracking.delivered"
"""Files of a run directory: the journal, who writes it, and what the store has of it."""
CHUNK = 1 << 20  # bytes that are read at once
ASKED_SECONDS = 0.2  # in which another process may only ask whether the run is written
RETRY_SECONDS = 1.0  # between two tries to write to a full disk

BEGIN = ("start", "extend")
"""Kinds of the first entry of a run: of a new one, and of additions to one that exists."""

STOP_TAGS = {"interrupted", "failure", "outcome"}
"""Tags that say why a run stopped, which a run that goes on loses."""

NOT_REPEATED = "gradient_flow/"
"""Start of the names of curves that a resumed run does not make again as they were: their steps
are distances, and the model behind them is another one."""

Entry = dict[str, Any]


class Point(NamedTuple):
    """A row of the metric history."""

    key: str
    value: float
    step: int
    time: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Cursor:
    """How much of a journal the store has."""

    store: str = ""
    """The address of the store, without a password."""
    key: str = ""
    """The id that the journal gave the run."""
    run: str | None = None
    """The id that MLflow gave the run."""
    number: int = 0
    """The last entry that was delivered."""

    @classmethod
    def read(cls, directory: Path) -> Cursor:
        """The cursor in a run directory; one at the start where there is none, or a damaged one."""
        try:
            return cls(**json.loads((directory / DELIVERED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, directory: Path) -> None:
        """Write the cursor into a run directory."""
        write_atomically(directory / DELIVERED, json.dumps(asdict(self)))


def framed(entry: Entry) -> bytes:
    """An entry as a line."""
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def parsed(line: bytes) -> Entry | None:
    """The entry of a line; None if the line is damaged."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        entry: Entry = json.loads(text)
    except ValueError:
        return None
    return entry


class Reader:
    """Reads a journal from its start, part by part, while another thread appends to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> list[Entry]:
        """The next entries; none at the end. A line without its end is read when it has one."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            chunk = file.read(CHUNK)
            if len(chunk) == CHUNK:
                chunk += file.readline()
        whole = chunk[: chunk.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = (parsed(line) for line in whole.splitlines(keepends=True))
        return [entry for entry in found if entry is not None]


def all_entries(directory: Path) -> list[Entry]:
    """All entries of a run directory's journal; none if it has no journal."""
    reader, found = Reader(directory / NAME), []
    with suppress(FileNotFoundError):
        while part := reader.read():
            found += part
    return found


def entries(directory: Path) -> list[Entry]:
    """The entries of the run in a directory: of the last one, where an earlier one was cut off
    before it had a result and another was started in its place."""
    found = all_entries(directory)
    begins = [place for place, entry in enumerate(found) if entry["kind"] in BEGIN]
    return found[begins[-1] :] if begins else found


def points(entry: Entry) -> list[Point]:
    """The points of an entry of kind ``metrics``."""
    step, now = entry["step"], entry["time"]
    return [Point(key, value, step, now) for key, value in entry["values"].items()]


def history(directory: Path) -> list[Point]:
    """The metric history of a run directory, in the order in which it was logged."""
    return [
        point
        for entry in entries(directory)
        if entry["kind"] == "metrics"
        for point in points(entry)
    ]


class Journal:
    """The journal of a run directory, open for one process.

    Entries are numbered, and their times increase, also where the clock jumps back. An entry that
    cannot be written, as on a full disk, stays in memory and is written when that is possible
    again; it is lost, with a warning, only if the run ends before.

    Raises:
        Refused: another process writes this journal.
        OSError: the journal cannot be created.
    """

    def __init__(self, directory: Path) -> None:
        from filelock import FileLock, Timeout

        self.directory, self.path = directory, directory / NAME
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(directory / LOCK, timeout=ASKED_SECONDS, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            require(False, f"another process is writing the run in {directory}: wait for its end")
        self._open()

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        found = all_entries(self.directory)
        self.number = max((entry["n"] for entry in found), default=0)
        self._time = max((entry["time"] for entry in found), default=0)
        self._repeated = repeated(entries(self.directory))
        # a line may be torn: the next one must not be part of it
        self._held: list[bytes] = [b"\n"] if found or os.fstat(self._file).st_size else []
        self._retry = 0.0
        self._warned = False

    def append(self, kind: str, **fields: Any) -> None:
        """Add an entry. It is in the operating system's hands when this returns."""
        self._time = max(self._time + 1, int(time.time() * 1000))
        self.number += 1
        self._held.append(framed({"n": self.number, "kind": kind, "time": self._time} | fields))
        if time.monotonic() >= self._retry:
            self._write()

    def add_points(self, figures: Mapping[str, float], step: int) -> None:
        """Add a point of each curve; NaN is left out.

        A point that a rewind forgot, and that a resumed run makes again, gets the time that it had
        at first. So the store can tell that it has it.
        """
        groups: dict[int | None, dict[str, float]] = {}
        for key, value in figures.items():
            if not math.isnan(value):
                times = None if key.startswith(NOT_REPEATED) else self._repeated.get((key, step))
                groups.setdefault(times.pop(0) if times else None, {})[key] = float(value)
        for first_time, values in groups.items():
            again = {} if first_time is None else {"time": first_time, "again": True}
            self.append("metrics", step=step, values=values, **again)

    def _write(self) -> None:
        data = b"".join(self._held)
        end = os.lseek(self._file, 0, os.SEEK_END)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, end)
            self._held = [b"\n" + data.lstrip(b"\n")]
            self._retry = time.monotonic() + RETRY_SECONDS
            if not self._warned:
                self._warned = True
                say(f"{self.path} cannot be written ({error.strerror}): points wait in memory")
        else:
            self._held, self._retry, self._warned = [], 0.0, False

    def flush(self) -> None:
        """Write what is held back, and make all of it survive a power failure."""
        self._write()
        self.sync()

    def sync(self) -> None:
        """Make what was written survive a power failure. Any thread may call it."""
        with suppress(OSError):  # of a full disk; the next write tells
            os.fsync(self._file)

    def rewind(self, step: int) -> None:
        """Forget, durably, the points logged after the checkpoint of ``step``, which the resumed
        run makes again: those after its mark, or those of later steps where it has no mark."""
        found, run = all_entries(self.directory), entries(self.directory)
        marks = [e["n"] for e in run if e["kind"] == "checkpoint" and e["step"] == step]
        last = marks[-1] if marks else None

        def later(entry: Entry) -> bool:
            if entry["kind"] not in ("metrics", "checkpoint") or entry["n"] < run[0]["n"]:
                return False
            return bool(entry["step"] > step if last is None else entry["n"] > last)

        forgotten = [p for e in found if later(e) and e["kind"] == "metrics" for p in points(e)]
        times = [(point.key, point.step, point.time) for point in forgotten]
        # the number goes on, because the store may have the entries that are forgotten
        rewound = {"n": self.number + 1, "kind": "rewound", "time": self._time, "times": times}
        writing = self.path.with_name(f".{NAME}.{os.getpid()}")
        with writing.open("wb") as file:
            file.writelines(framed(entry) for entry in found if not later(entry))
            file.write(framed(rewound))
            file.flush()
            os.fsync(file.fileno())
        os.replace(writing, self.path)
        flush_to_disk(self.directory)
        os.close(self._file)
        self._open()

    def close(self) -> None:
        """Write what is held back, and let other processes write. May be called twice."""
        if self._file < 0:
            return
        self.flush()
        if self._held:
            say(f"{self.path} could not be written: its last entries are lost")
        os.close(self._file)
        self._file = -1
        self._lock.release()

    def discard(self) -> None:
        """Close the journal of a run that was refused, and leave nothing of it, except where an
        earlier run wrote it too."""
        self.close()
        if entries(self.directory) == all_entries(self.directory):
            for name in (NAME, LOCK, DELIVERED):
                (self.directory / name).unlink(missing_ok=True)


def is_written(directory: Path) -> bool:
    """Whether a process, this one included, is writing the run in a directory."""
    from filelock import FileLock, Timeout

    if not (directory / LOCK).is_file():
        return False
    lock = FileLock(directory / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def repeated(found: Iterable[Entry]) -> dict[tuple[str, int], list[int]]:
    """The first times of the points that rewinds forgot and that were not made again, by key and
    step."""
    times: dict[tuple[str, int], list[int]] = {}
    for entry in found:
        if entry["kind"] == "rewound":
            forgotten: dict[tuple[str, int], list[int]] = {}
            for key, step, first_time in entry["times"]:
                forgotten.setdefault((key, step), []).append(first_time)
            times |= forgotten
        elif entry.get("again"):
            for point in points(entry):
                with suppress(KeyError, ValueError):  # where the line of the rewind is damaged
                    times[point.key, point.step].remove(point.time)
    return times


def flush_to_disk(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def say(line: str) -> None:
    """Print a line about tracking, which is no part of a task's output."""
    print(f"unroll: {bounded(line)}", file=sys.stderr, flush=True)
