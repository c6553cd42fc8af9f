"""Runs as the tracking store or a run directory holds them: a report is made from nothing else."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Curve = list[tuple[float, float]]
"""Points ``(optimizer step, value)``."""


class Source(Protocol):
    """Where a run is read from: MLflow's client, or a run directory (``tracking.recorded``)."""

    def get_metric_history(self, run_id: str, key: str) -> Sequence[Any]: ...

    def download_artifacts(self, run_id: str, path: str) -> str: ...


class Record:
    """One finished run: params, last values of metrics, curves and artifacts."""

    def __init__(self, client: Source, run: Any) -> None:
        self._client, self.run = client, run
        self.run_id = str(run.info.run_id)
        self.params: dict[str, str] = run.data.params
        self.tags: dict[str, str] = run.data.tags
        self._curves: dict[str, Curve] = {}

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return float(self.run.info.end_time - self.run.info.start_time) / 1000

    def value(self, key: str) -> float:
        """A param as a number, else the last value of a metric; NaN where the run has neither.

        The store keeps the largest float in place of infinity; here it is infinity again.
        """
        if key in self.params:
            return float(self.params[key])
        value = float(self.run.data.metrics.get(key, math.nan))
        return math.inf if value == sys.float_info.max else value

    def curve(self, key: str) -> Curve:
        """All points of a metric, by step."""
        if key not in self._curves:
            points = self._client.get_metric_history(self.run_id, key)
            self._curves[key] = sorted((float(point.step), float(point.value)) for point in points)
        return self._curves[key]

    def result(self) -> dict[str, Any]:
        """The run's result.json."""
        path = self._client.download_artifacts(self.run_id, "result.json")
        found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return found


Figure = str | Callable[[Record], float]
"""A figure of a run: a param or metric by name, or a function."""


@dataclass(frozen=True)
class Measured:
    """A figure of repeated runs: a value for each, in the order of their seeds."""

    values: tuple[float, ...]
    runs: tuple[str, ...] = ()
    exact: bool = False
    """Whether every repetition gives the same value: counting, or a constant."""

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Sample standard deviation; 0 for a single value, NaN where one is NaN or infinite."""
        if not all(map(math.isfinite, self.values)):
            return math.nan
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


def measured(
    records: Sequence[Record], key: Figure, scale: float = 1.0, exact: bool = False
) -> Measured:
    """``scale`` times a param, metric or function of each of repeated runs."""
    return Measured(
        tuple(
            scale * (record.value(key) if isinstance(key, str) else key(record))
            for record in records
        ),
        tuple(record.run_id for record in records),
        exact,
    )


def mean_of(measures: Iterable[Measured]) -> Measured:
    """The mean of several figures of the same runs, run by run."""
    measures = list(measures)
    values = zip(*(measure.values for measure in measures), strict=True)
    runs = tuple(dict.fromkeys(run for measure in measures for run in measure.runs))
    return Measured(tuple(sum(row) / len(row) for row in values), runs)
