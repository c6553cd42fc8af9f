"""A store in memory, with the calls of MLflow's client, that fails where a test says."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from unroll.tracking.store import KIND, KIND_TAG

BEFORE, HALF, AFTER = "before", "half", "after"
"""When a call fails: before it does anything, in the middle of a batch, or after it did all, so
that only its answer is lost."""


class FakeStore:
    """Appends every point that it is sent, also one that it has, as MLflow's file store does.

    Args:
        failures: for each call in turn, when it fails, or None; later calls work.
    """

    def __init__(self, failures: Iterable[str | None] = ()) -> None:
        self.failures = iter(failures)
        self.runs: dict[str, Any] = {}
        self.rows: list[tuple[str, int, float]] = []
        self.calls = 0

    def working(self) -> None:
        """From now on no call fails."""
        self.failures = iter(())

    def _fail(self, when: str, failing: str | None) -> None:
        if failing == when:
            raise MlflowException(f"the store failed {when}")

    def _next(self) -> str | None:
        self.calls += 1
        failing = next(self.failures, None)
        self._fail(BEFORE, failing)
        return failing

    def search_experiments(self) -> list[Any]:
        self._next()
        return [SimpleNamespace(experiment_id="1")]

    def get_experiment_by_name(self, name: str) -> Any:
        self._next()
        return SimpleNamespace(experiment_id="1", lifecycle_stage="active", tags={KIND_TAG: KIND})

    def create_run(self, experiment: str, start_time: int, tags: Any, run_name: str) -> Any:
        failing = self._next()
        run_id = f"{len(self.runs):032x}"
        info = SimpleNamespace(run_id=run_id, lifecycle_stage="active", status="RUNNING")
        data = SimpleNamespace(tags=dict(tags), params={})
        self.runs[run_id] = SimpleNamespace(info=info, data=data)
        self._fail(AFTER, failing)
        return self.runs[run_id]

    def get_run(self, run_id: str) -> Any:
        self._next()
        if run_id not in self.runs:
            raise MlflowException("no such run", RESOURCE_DOES_NOT_EXIST)
        return self.runs[run_id]

    def search_runs(self, experiments: list[str], condition: str, *_: Any, **__: Any) -> list[Any]:
        self._next()
        key = condition.split("'")[1]
        return [run for run in self.runs.values() if key in run.data.tags.values()]

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        failing = self._next()
        run = self.get_run_now(run_id)
        for place, metric in enumerate(metrics):
            if place == len(metrics) // 2:
                self._fail(HALF, failing)
            self.rows.append((metric.key, metric.step, metric.value))
            run.data.params.setdefault("points", []).append(metric)
        run.data.params |= {param.key: param.value for param in params}
        run.data.tags |= {tag.key: tag.value for tag in tags}
        self._fail(AFTER, failing)

    def get_run_now(self, run_id: str) -> Any:
        if run_id not in self.runs:
            raise MlflowException("no such run", RESOURCE_DOES_NOT_EXIST)
        return self.runs[run_id]

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        self._next()
        points = self.get_run_now(run_id).data.params.get("points", [])
        return [point for point in points if point.key == key]

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        failing = self._next()
        self.get_run_now(run_id).data.tags[key] = value
        self._fail(AFTER, failing)

    def delete_tag(self, run_id: str, key: str) -> None:
        failing = self._next()
        del self.runs[run_id].data.tags[key]
        self._fail(AFTER, failing)

    def update_run(self, run_id: str, status: str) -> None:
        failing = self._next()
        self.runs[run_id].info.status = status
        self._fail(AFTER, failing)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        failing = self._next()
        self.get_run_now(run_id).info.status = status
        self._fail(AFTER, failing)
