"""Everything MLflow. Nothing else in the library imports mlflow, and this module imports it
only when a store is opened."""

from __future__ import annotations

import logging
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unroll.errors import Refused
from unroll.tracking.config import DisabledConfig, MLflowConfig

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

FLUSH_POINTS = 500
FLUSH_SECONDS = 10.0
LONGEST_PARAM = 6000
LARGEST_BATCH = 100  # params of one request, as MLflow allows
PARENT = "UNROLL_PARENT_RUN"
"""Environment variable by which a multirun tells its jobs, in whatever process, their parent."""


class Tracker(Protocol):
    """What the tasks ask of a store. ``run_id`` names the run that is being written, ``every``
    says how many optimizer steps lie between two points of a curve."""

    every: int

    @property
    def run_id(self) -> str: ...

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None: ...

    def resume(self, run_id: str) -> bool:
        """Write to a run that exists; False where the store has no such run."""

    def log(self, figures: dict[str, float], step: int) -> None: ...

    def log_text(self, text: str, name: str) -> None: ...

    def log_file(self, path: Path, folder: str | None = None) -> None: ...

    def param(self, name: str, value: Any) -> None: ...

    def tag(self, name: str, value: str) -> None: ...

    def finish(self, status: str = "FINISHED") -> None: ...


class DisabledTracker:
    """Keeps nothing; runs get an id of their own all the same."""

    def __init__(self, config: DisabledConfig) -> None:
        self.run_id = ""
        self.every = config.every

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self.run_id = uuid.uuid4().hex

    def resume(self, run_id: str) -> bool:
        return False

    def log(self, figures: dict[str, float], step: int) -> None:
        pass

    def log_text(self, text: str, name: str) -> None:
        pass

    def log_file(self, path: Path, folder: str | None = None) -> None:
        pass

    def param(self, name: str, value: Any) -> None:
        pass

    def tag(self, name: str, value: str) -> None:
        pass

    def finish(self, status: str = "FINISHED") -> None:
        pass


class MLflowTracker:
    """A run in MLflow. Points of curves are held back and written many at a time."""

    def __init__(self, config: MLflowConfig) -> None:
        self.config = config
        self.every = config.every
        self._run: Future[str] | None = None
        self._points: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """The store's client. While a run is being made in the background this waits for it:
        two threads that import mlflow at once stand in each other's way."""
        if self._run is not None:
            self._run.result()
        if self._client is None:
            self._client = connect(Path(self.config.directory))
        return self._client

    @property
    def run_id(self) -> str:
        """The run that is written to; waits until the store has made it.

        Raises:
            Refused: the store cannot be opened.
        """
        return "" if self._run is None else self._run.result()

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Make a run, in the background: importing mlflow takes as long as the first steps."""
        self._run = ThreadPoolExecutor(1).submit(self._create, name, params, tags)

    def _create(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        client = self._client = self._client or connect(Path(self.config.directory))
        from mlflow.entities import Param, RunTag

        experiment = experiment_id(client, Path(self.config.directory), self.config.experiment)
        parent = {"mlflow.parentRunId": self.config.parent} if self.config.parent else {}
        run_id = str(client.create_run(experiment, run_name=name, tags=parent).info.run_id)
        listed = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        for first in range(0, len(listed), LARGEST_BATCH):
            client.log_batch(run_id, params=listed[first : first + LARGEST_BATCH])
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        return run_id

    def reuse(self, config_fingerprint: str) -> str | None:
        """The run that finished before under this fingerprint, told to the parent; else None."""
        experiment = experiment_id(self.client, Path(self.config.directory), self.config.experiment)
        found = finished(self.client, experiment, config_fingerprint)
        if found is None:
            return None
        if self.config.parent:
            self.client.set_tag(self.config.parent, f"reused.{found.info.run_id}", "true")
        return str(found.info.run_id)

    def resume(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException:
            return False
        self._run = Future()
        self._run.set_result(run_id)
        return True

    def log(self, figures: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._points += [
            (name, value, now, step) for name, value in figures.items() if not math.isnan(value)
        ]
        due = time.monotonic() - self._flushed > FLUSH_SECONDS
        made = self._run is not None and self._run.done()
        if made and (due or len(self._points) >= FLUSH_POINTS):
            self.flush()

    def flush(self) -> None:
        """Write the points held back."""
        client, run_id = self.client, self.run_id
        from mlflow.entities import Metric

        while self._points:
            batch = self._points[:FLUSH_POINTS]
            client.log_batch(run_id, metrics=[Metric(*point) for point in batch])
            del self._points[: len(batch)]
        self._flushed = time.monotonic()

    def log_text(self, text: str, name: str) -> None:
        self.client.log_text(self.run_id, text, name)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.run_id, str(path), folder)

    def param(self, name: str, value: Any) -> None:
        self.client.log_param(self.run_id, name, value)

    def tag(self, name: str, value: str) -> None:
        self.client.set_tag(self.run_id, name, value)

    def finish(self, status: str = "FINISHED") -> None:
        self.flush()
        self.client.set_terminated(self.run_id, status)


def uri(directory: Path) -> str:
    """Where runs are kept: MLFLOW_TRACKING_URI, else the SQLite store in ``directory``."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return given or f"sqlite:///{(directory / 'mlflow.db').resolve()}"


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process at a time. MLflow creates its tables without a lock of its own, and of two
    that start at once on a new store one would fail."""
    from filelock import FileLock

    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / ".lock"):
        yield


def connect(directory: Path) -> MlflowClient:
    """A client of the store, which is made where it is not there yet.

    Raises:
        Refused: the store cannot be opened.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        with _locked(directory):
            from mlflow.tracking import MlflowClient

            for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            try:
                client = MlflowClient(uri(directory))
                client.search_experiments(max_results=1)
                return client
            except Exception as error:  # MLflow's, the database's or the network's
                raise Refused(
                    f"the tracking store {uri(directory)} cannot be opened: "
                    f"{str(error).splitlines()[0]}; mend it, set MLFLOW_TRACKING_URI, or take "
                    "tracking=disabled"
                ) from error
    except OSError as error:
        raise Refused(
            f"the tracking store in {directory} cannot be written: {error.strerror or error}; set "
            "tracking.directory"
        ) from error


def experiment_id(client: MlflowClient, directory: Path, name: str) -> str:
    """The id of an MLflow experiment, made where it is not there yet."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        local = not os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = (directory / "artifacts").resolve().as_uri() if local else None
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # made by another process in between
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise Refused(
            f"the MLflow experiment '{name}' has been deleted: restore it, or set "
            "tracking.experiment to another name"
        )
    return str(experiment.experiment_id)


@dataclass(frozen=True)
class Family:
    """A parent run and its children: a multirun, or a study."""

    client: MlflowClient
    experiment: str
    run_id: str

    @classmethod
    def start(cls, config: MLflowConfig, name: str, tags: Mapping[str, str]) -> Family:
        directory = Path(config.directory)
        client = connect(directory)
        experiment = experiment_id(client, directory, config.experiment)
        run = client.create_run(experiment, run_name=name, tags=dict(tags))
        return cls(client, experiment, str(run.info.run_id))

    def children(self) -> list[Run]:
        """The children, oldest first. A finished run that was reused is among them by a tag."""
        tags = self.client.get_run(self.run_id).data.tags
        reused = [tag.removeprefix("reused.") for tag in tags if tag.startswith("reused.")]
        others = [self.client.get_run(run_id) for run_id in reused]
        return sorted([*self._made(), *others], key=lambda run: run.info.start_time)

    def _made(self) -> list[Run]:
        """The children that were run for this parent."""
        return search(self.client, self.experiment, f"tags.`mlflow.parentRunId` = '{self.run_id}'")

    def finish(self, status: str) -> None:
        """End the parent, and with it any child that was cut off."""
        for run in self._made():
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")
        self.client.set_terminated(self.run_id, status)


def search(client: MlflowClient, experiment: str, condition: str) -> list[Run]:
    """All runs of an experiment that meet a condition."""
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment], condition, max_results=1000, order_by=["start_time ASC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def finished(client: MlflowClient, experiment: str, fingerprint: str) -> Run | None:
    """The newest run that finished whole under this config fingerprint."""
    found = search(
        client,
        experiment,
        f"attributes.status = 'FINISHED' and tags.config_fingerprint = '{fingerprint}'",
    )
    whole = [run for run in found if run.data.tags.get("interrupted") != "true"]
    return whole[-1] if whole else None
