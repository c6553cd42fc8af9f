"""What became of the jobs of a multirun: a note for each, the wait for those that another process
runs, the table at the end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unroll.errors import FAILED, explain, first_line, redacted_value
from unroll.folders import write_atomically

NOTES = "jobs"
"""Folder of the notes, in the directory of a multirun."""
OUTCOMES = ("run", "resumed", "finished before", "pruned", "elsewhere", "failed")
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Note:
    """What became of one job."""

    number: int
    overrides: list[str]
    outcome: str
    """One of ``OUTCOMES``; pruned: a search stopped it; elsewhere: another process runs it."""
    reason: str = ""
    """Why it failed."""
    code: int = 0
    """Its exit code."""

    def write(self, sweep: Path) -> None:
        text = json.dumps(redacted_value(asdict(self)), ensure_ascii=False)
        write_atomically(sweep / NOTES / f"{self.number}.json", text)


def carry_out(
    number: int, overrides: list[str], work: Callable[[], Mapping[str, Any]]
) -> tuple[Note, Mapping[str, Any] | None]:
    """Do the work of a job; its note, and its result if it has one. An interruption is passed on,
    any other error is noted, so that the other jobs go on."""
    try:
        result = work()
    except Exception as error:
        line, code = explain(error)
        if line is None:
            line, code = f"{type(error).__name__}: {first_line(error)}", FAILED
        return Note(number, overrides, "failed", line, code), None
    return Note(number, overrides, outcome(result)), result


def outcome(result: Mapping[str, Any]) -> str:
    """Which of ``OUTCOMES`` the result of a job is."""
    if result.get("elsewhere"):
        return "elsewhere"
    if result.get("reused"):
        return "finished before"
    if result.get("pruned"):
        return "pruned"
    return "run" if result.get("resumed_at") is None else "resumed"


def notes(sweep: Path) -> list[Note]:
    """The notes of a multirun's jobs, in their order."""
    found = [
        Note(**json.loads(path.read_text(encoding="utf-8")))
        for path in (sweep / NOTES).glob("[!.]*.json")
    ]
    return sorted(found, key=lambda note: note.number)


def wait(sweep: Path, again: Callable[[Note], Mapping[str, Any]]) -> None:
    """Ask ``again`` for each job that another process runs, until that process has finished it or
    left it."""
    while waiting := [note for note in notes(sweep) if note.outcome == "elsewhere"]:
        for note in waiting:
            carry_out(note.number, note.overrides, partial(again, note))[0].write(sweep)
        if any(note.outcome == "elsewhere" for note in notes(sweep)):
            time.sleep(POLL_SECONDS)


def summary(found: list[Note]) -> str:
    """How many jobs came to which end, and a line for each that failed."""
    lines = [f"{len(found)} jobs: {counted(note.outcome for note in found)}"]
    lines += [
        f"job {note.number} ({' '.join(note.overrides)}): {note.reason}"
        for note in found
        if note.outcome == "failed"
    ]
    return "\n".join(lines)


def counted(outcomes: Iterable[str]) -> str:
    """How many jobs came to which end."""
    counts = Counter(outcomes)
    return ", ".join(f"{counts[each]} {each}" for each in OUTCOMES if counts[each])


def exit_code(found: list[Note]) -> int:
    """0 if no job failed; 2 if each that failed was refused; else 1."""
    codes = {note.code for note in found if note.outcome == "failed"}
    return 0 if not codes else min(codes)
