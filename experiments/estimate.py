"""How long jobs will take: as long as they took when they were measured, corrected by the jobs that
this machine has ended since.

``seconds.json`` holds the seconds of one job by profile, study and label. ``make reproduce`` writes
those of its runs to ``report/seconds.json``; the file here is that of the page in ``docs/report``.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.study import FULL, Results
from unroll.folders import write_atomically

MEASURED = Path(__file__).parent / "seconds.json"
PROFILE = "full" if FULL else "quick"


def name(study: str, label: str) -> str:
    """Under which a job is found in the file."""
    return f"{study}: {label}"


@functools.cache
def measured() -> dict[str, float]:
    """Seconds of the jobs of this profile; those of the other one where nothing else is known."""
    found = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
    return {**found.get("quick", {}), **found.get("full", {}), **found.get(PROFILE, {})}


def seconds(study: str, label: str) -> float:
    """What a job is expected to take; the mean of all where it was never measured."""
    known = measured()
    return known.get(name(study, label), statistics.fmean(known.values()) if known else 1.0)


def total(beside: Iterable[float], alone: Iterable[float], parallel: int) -> float:
    """Seconds until all jobs have ended: those side by side, then those that run alone."""
    beside = list(beside)
    return max([sum(beside) / parallel, *beside]) + sum(alone)


def words(seconds: float) -> str:
    """``40 s``, or ``25 min``."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def write(path: Path, results: Mapping[str, Results]) -> None:
    """Write what the runs of a report took, a mean for each label, beside what is known of the
    other profile."""
    found = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
    took = {
        name(study, label): round(statistics.fmean(record.seconds for record in records), 1)
        for study, labels in results.items()
        for label, records in labels.items()
    }
    found[PROFILE] = dict(sorted({**found.get(PROFILE, {}), **took}.items()))
    write_atomically(path, json.dumps(found, indent=1) + "\n")
