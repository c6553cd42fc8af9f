"""How long jobs will take: as long as they took when they were measured, corrected by the jobs that
this machine has ended since.

``seconds.json`` holds the seconds of one job by profile, study and label. ``make reproduce`` writes
those of its runs to ``report/seconds.json``, from where the file here was copied.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.study import FULL, Results
from unroll.folders import write_atomically

MEASURED = Path(__file__).parent / "seconds.json"
PROFILE = "full" if FULL else "quick"


def name(study: str, label: str) -> str:
    """Under which a job is found in the file."""
    return f"{study}: {label}"


def _read() -> dict[str, dict[str, float]]:
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}


@functools.cache
def measured() -> dict[str, float]:
    """Seconds of the jobs of this profile; those of the other one where nothing else is known."""
    found = _read()
    return {**found.get("quick", {}), **found.get("full", {}), **found.get(PROFILE, {})}


def seconds(study: str, label: str) -> float:
    """What a job is expected to take; the mean of all where it was never measured."""
    known = measured()
    return known.get(name(study, label), statistics.fmean(known.values()) if known else 1.0)


def total(beside: Iterable[float], alone: Iterable[float], parallel: int) -> float:
    """Seconds until all jobs have ended: those side by side, then those that run alone."""
    beside = list(beside)
    return max([sum(beside) / parallel, *beside]) + sum(alone)


class Clock:
    """How long the jobs that are left will take, by how long those that ended took."""

    def __init__(self, expected: float, jobs: int) -> None:
        self.jobs = jobs
        self._expected, self._ended, self._began = expected, 0.0, time.monotonic()

    def left(self, ended: float) -> float:
        """Seconds left.

        Args:
            ended: seconds that were expected for the job that has just ended.
        """
        self._ended += ended
        rate = (time.monotonic() - self._began) / self._ended
        return rate * max(self._expected - self._ended, 0.0)


def duration(seconds: float) -> str:
    """``40 s``, or ``25 min``."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def write(path: Path, results: Mapping[str, Results]) -> None:
    """Write what the runs of a report took, a mean for each label, beside what is known of other
    studies and of the other profile.

    A job that scores a run adds to it, and its own seconds are not known.
    """
    found = _read()
    known = {
        key: value
        for key, value in found.get(PROFILE, {}).items()
        if key.partition(": ")[0] not in results
    }
    for study, labels in results.items():
        seen: set[str] = set()
        for label, records in labels.items():
            if seen.isdisjoint(ids := {record.run_id for record in records}):
                mean = statistics.fmean(record.seconds for record in records)
                known[name(study, label)] = round(mean, 1)
            seen |= ids
    found[PROFILE] = dict(sorted(known.items()))
    write_atomically(path, json.dumps(found, indent=1) + "\n")
