"""What a task asks of the place where runs are kept, and the two places there are: MLflow, and
none."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unroll.tracking.config import DisabledConfig, MLflowConfig
from unroll.tracking.family import Family, adopt, reuse
from unroll.tracking.store import connect, experiment_id, finished, require_store, store_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FLUSH_POINTS = 500
FLUSH_SECONDS = 10.0
LARGEST_BATCH = 100  # params of one request, as MLflow allows
LONGEST_PARAM = 6000  # characters, as MLflow allows
LONGEST_DIGEST = 36


@dataclass(frozen=True)
class DataInput:
    """A data set that a run reads, as MLflow's column Dataset shows it."""

    name: str
    digest: str
    """The corpus fingerprint."""
    path: str | None
    """null: it is generated, or comes with a package."""
    splits: Mapping[str, Mapping[str, int]]
    """Documents and tokens of each split."""


class Tracker(Protocol):
    """What the tasks ask of the place where runs are kept."""

    every: int
    """Optimizer steps between two points of a curve."""

    @property
    def run_id(self) -> str:
        """The run that is written to."""

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        inputs: Sequence[DataInput] = (),
    ) -> None:
        """Create a run and write to it."""

    def resume(self, run_id: str) -> bool:
        """Write to a run that exists; False if the store has no such run. What is written leaves
        its status and times as they are, until ``finish``."""

    def reuse(self, config_fingerprint: str) -> str | None:
        """The newest run under this fingerprint that ended by itself, as a child of the parent if
        one is set; None if there is none."""

    def family(self, name: str, tags: Mapping[str, str]) -> Family | None:
        """A new parent run; None where nothing is kept."""

    def log(self, figures: dict[str, float], step: int) -> None:
        """Keep a point of each curve."""

    def log_text(self, text: str, name: str) -> None: ...

    def log_file(self, path: Path, folder: str | None = None) -> None: ...

    def param(self, name: str, value: Any) -> None: ...

    def tag(self, name: str, value: str) -> None: ...

    def flush(self) -> None:
        """Write the points that are held back."""

    def finish(self, status: str = "FINISHED") -> None:
        """End the run as FINISHED, FAILED or KILLED."""


class DisabledTracker:
    """Keeps nothing. Each run gets an id of its own nevertheless."""

    def __init__(self, config: DisabledConfig) -> None:
        self.run_id = ""
        self.every = config.every

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        inputs: Sequence[DataInput] = (),
    ) -> None:
        self.run_id = uuid.uuid4().hex

    def resume(self, run_id: str) -> bool:
        return False

    def reuse(self, config_fingerprint: str) -> str | None:
        return None

    def family(self, name: str, tags: Mapping[str, str]) -> Family | None:
        return None

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

    def flush(self) -> None:
        pass

    def finish(self, status: str = "FINISHED") -> None:
        pass


class MLflowTracker:
    """A run in MLflow. Points of curves are held back and written many at a time.

    Raises:
        Refused: the store does not answer; each method, if it stopped working.
    """

    def __init__(self, config: MLflowConfig) -> None:
        self.config = config
        self.every = config.every
        self.directory = Path(config.directory)
        self._run: Future[str] | None = None
        self._points: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()
        self._client: MlflowClient | None = None
        require_store(self.directory)

    @property
    def client(self) -> MlflowClient:
        """The store's client. While a run is created in the background this waits for it: two
        threads must not import mlflow at the same time."""
        if self._run is not None:
            self._run.result()
        if self._client is None:
            self._client = connect(self.directory)
        return self._client

    @property
    def run_id(self) -> str:
        """The run that is written to; waits until the store has created it."""
        return "" if self._run is None else self._run.result()

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        inputs: Sequence[DataInput] = (),
    ) -> None:
        """Create a run, in the background: importing mlflow takes as long as the first steps."""
        self._run = ThreadPoolExecutor(1).submit(self._create, name, params, tags, inputs)

    def _create(
        self,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        inputs: Sequence[DataInput],
    ) -> str:
        client = self._client = self._client or connect(self.directory)
        with store_errors(self.directory):
            from mlflow.entities import Param, RunTag

            experiment = experiment_id(client, self.directory, self.config.experiment)
            parent = adopt(client, self.config.parent) if self.config.parent else {}
            run = client.create_run(experiment, run_name=storable(name), tags=parent)
            run_id = str(run.info.run_id)
            listed = [Param(key, storable(value)) for key, value in params.items()]
            for first in range(0, len(listed), LARGEST_BATCH):
                client.log_batch(run_id, params=listed[first : first + LARGEST_BATCH])
            listed_tags = [RunTag(key, storable(value)) for key, value in tags.items()]
            client.log_batch(run_id, tags=listed_tags)
            log_inputs(client, run_id, inputs)
        return run_id

    def resume(self, run_id: str) -> bool:
        client = self.client
        with store_errors(self.directory):
            from mlflow.exceptions import MlflowException
            from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

            try:
                run = client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                    raise
                return False
        if run.info.lifecycle_stage == "deleted":
            return False
        self._run = Future()
        self._run.set_result(run_id)
        return True

    def reuse(self, config_fingerprint: str) -> str | None:
        client = self.client
        with store_errors(self.directory):
            experiment = experiment_id(client, self.directory, self.config.experiment)
            found = finished(client, experiment, config_fingerprint)
            if found is None:
                return None
            if self.config.parent:
                reuse(client, self.config.parent, found)
            return str(found.info.run_id)

    def family(self, name: str, tags: Mapping[str, str]) -> Family | None:
        return Family.start(self.config, name, tags)

    def log(self, figures: dict[str, float], step: int) -> None:
        """Hold a point of each curve back until many can be written at once; NaN is left out."""
        now = int(time.time() * 1000)
        self._points += [
            (name, value, now, step) for name, value in figures.items() if not math.isnan(value)
        ]
        if self._run is None or not self._run.done():
            return
        self._run.result()  # a run that could not be created ends the work now, not much later
        due = time.monotonic() - self._flushed > FLUSH_SECONDS
        if due or len(self._points) >= FLUSH_POINTS:
            self.flush()

    def flush(self) -> None:
        client, run_id = self.client, self.run_id
        with store_errors(self.directory):
            from mlflow.entities import Metric

            while self._points:
                batch = self._points[:FLUSH_POINTS]
                client.log_batch(run_id, metrics=[Metric(*point) for point in batch])
                del self._points[: len(batch)]
        self._flushed = time.monotonic()

    def log_text(self, text: str, name: str) -> None:
        self._write("log_text", text, name)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        self._write("log_artifact", str(path), folder)

    def param(self, name: str, value: Any) -> None:
        self._write("log_param", name, storable(value))

    def tag(self, name: str, value: str) -> None:
        self._write("set_tag", name, storable(value))

    def finish(self, status: str = "FINISHED") -> None:
        self.flush()
        self._write("set_terminated", status)

    def _write(self, method: str, *arguments: Any) -> None:
        """Call a method of the client with the run and these arguments."""
        client, run_id = self.client, self.run_id
        with store_errors(self.directory):
            getattr(client, method)(run_id, *arguments)


def storable(value: Any) -> str:
    """A value as text that the store takes: not too long, and without half a character of what
    could not be decoded, such as a file name of another encoding."""
    return str(value).encode("utf-8", "replace").decode()[:LONGEST_PARAM]


def log_inputs(client: MlflowClient, run_id: str, inputs: Sequence[DataInput]) -> None:
    """Name the data sets that a run reads."""
    if not inputs:
        return
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    context = InputTag("mlflow.data.context", "training")
    listed = [DatasetInput(_dataset(item), [context]) for item in inputs]
    try:
        client.log_inputs(run_id, listed)
    except MlflowException:  # another process may have entered the same data set meanwhile
        client.log_inputs(run_id, listed)


def _dataset(item: DataInput) -> Any:
    from mlflow.entities import Dataset

    column = {"name": "text", "type": "string", "required": True}
    sizes = {
        "num_rows": sum(split["documents"] for split in item.splits.values()),
        "num_elements": sum(split["tokens"] for split in item.splits.values()),
    }
    source = {"tags": {"data": item.name}} if item.path is None else {"uri": storable(item.path)}
    return Dataset(
        name=item.name,
        digest=item.digest[:LONGEST_DIGEST],
        source_type="code" if item.path is None else "local",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_colspec": [column]}),
        profile=json.dumps(sizes | {"splits": item.splits}),
    )
