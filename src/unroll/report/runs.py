"""Runs as the tracking store holds them: the only thing a report is made from."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


class Record:
    """One finished run: params, last values of metrics, curves and artifacts."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client, self._run = client, run
        self.run_id = str(run.info.run_id)
        self.name = str(run.info.run_name)
        self.status = str(run.info.status)
        self.params: dict[str, str] = run.data.params
        self.tags: dict[str, str] = run.data.tags
        ended = run.info.end_time or run.info.start_time
        self.seconds = (ended - run.info.start_time) / 1000

    def metric(self, key: str) -> float:
        """The last value of a metric; nan where the run has none. What was infinite is so
        again: the store keeps the largest float in its place."""
        value = float(self._run.data.metrics.get(key, math.nan))
        return math.inf if value == sys.float_info.max else value

    def curve(self, key: str) -> list[tuple[float, float]]:
        """All points of a metric, ``(optimizer step, value)``."""
        points = self._client.get_metric_history(self.run_id, key)
        return sorted((float(point.step), float(point.value)) for point in points)

    def result(self) -> dict[str, Any]:
        """The run's result.json."""
        path = self._client.download_artifacts(self.run_id, "result.json")
        found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return found


@dataclass(frozen=True)
class Measured:
    """A figure over repeated runs: its mean, its spread, and the runs it comes from."""

    values: tuple[float, ...]
    runs: tuple[str, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Sample standard deviation; 0 for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


def measured(records: Sequence[Record], key: str) -> Measured:
    """A metric over repeated runs."""
    return derived(records, lambda record: record.metric(key))


def derived(records: Sequence[Record], measure: Callable[[Record], float]) -> Measured:
    """What ``measure`` makes of each of repeated runs."""
    return Measured(
        tuple(measure(record) for record in records), tuple(record.run_id for record in records)
    )


def fetch(client: MlflowClient, run_ids: Iterable[str]) -> dict[str, Record]:
    """Records by run id."""
    return {run_id: Record(client, client.get_run(run_id)) for run_id in run_ids}
