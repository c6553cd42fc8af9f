"""A run as its directory holds it, with the answers that MLflow's client would give."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

from unroll.errors import require
from unroll.tracking.journal import STOP_TAGS, Cursor, entries, points


@dataclass(frozen=True)
class Measurement:
    """A point of a curve, with the names that MLflow gives its parts."""

    value: float
    timestamp: int
    step: int


@dataclass
class Info:
    run_id: str
    run_name: str
    start_time: int
    status: str = "RUNNING"
    end_time: int | None = None


@dataclass
class Data:
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)
    """The last value of each curve."""


class Recorded:
    """The run in a directory, read from its journal. It needs no store.

    ``Record(recorded, recorded)`` of the report is a record of it.

    Raises:
        Refused: there is no journal with the start of a run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        found = entries(directory)
        starts = [entry for entry in found if entry["kind"] == "start"]
        require(starts, f"{directory} has no journal with the start of a run")
        start = starts[0]
        ids = [entry["run_id"] for entry in found if entry["kind"] == "id"]
        run_id = ids[-1] if ids else Cursor.read(directory).run or start["key"]
        self.info = Info(run_id, start["name"], start["time"])
        self.data = Data(dict(start["params"]), dict(start["tags"]))
        self._curves: dict[str, list[Measurement]] = {}
        for entry in found:
            if entry["kind"] == "metrics":
                for point in points(entry):
                    made = Measurement(_finite(point.value), point.time, point.step)
                    self._curves.setdefault(point.key, []).append(made)
            elif entry["kind"] == "param":
                self.data.params[entry["name"]] = entry["value"]
            elif entry["kind"] == "tag":
                self.data.tags[entry["name"]] = entry["value"]
            elif entry["kind"] == "finish":
                self.info.status, self.info.end_time = entry["status"], entry["time"]
            elif entry["kind"] == "resume":
                self.info.status, self.info.end_time = "RUNNING", None
                for tag in STOP_TAGS:
                    self.data.tags.pop(tag, None)
        for key, curve in self._curves.items():
            last = max(curve, key=lambda point: (point.step, point.timestamp, point.value))
            self.data.metrics[key] = last.value

    def get_metric_history(self, run_id: str, key: str) -> list[Measurement]:
        """All points of a curve, in the order in which they were logged."""
        return self._curves.get(key, [])

    def download_artifacts(self, run_id: str, path: str) -> str:
        """The place of a file of the run directory."""
        return str(self.directory / path)


def _finite(value: float) -> float:
    """A value as MLflow's database keeps it: the largest float in place of infinity."""
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value
