"""What a task asks of the place where runs are kept, and the two places there are: MLflow, and the
run directory alone. Both write a journal."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unroll.errors import Refused, redacted
from unroll.tracking import ledger
from unroll.tracking.config import DisabledConfig, MLflowConfig
from unroll.tracking.courier import Courier
from unroll.tracking.delivery import Delivery
from unroll.tracking.family import Family, reuse
from unroll.tracking.inputs import DataInput as DataInput
from unroll.tracking.journal import BEGIN, Journal, all_entries, entries
from unroll.tracking.remote import fetch_checkpoint, fetch_training
from unroll.tracking.source import git_commit, source_tags
from unroll.tracking.store import (
    Unavailable,
    connect,
    experiment_id,
    find_run,
    finished,
    hide_credentials,
    is_shared,
    store_errors,
)

if TYPE_CHECKING:
    from mlflow.entities import Run

LONGEST_PARAM = 6000  # characters, as MLflow allows


class Tracker(Protocol):
    """What the tasks ask of the place where runs are kept."""

    every: int
    """Optimizer steps between two points of a curve."""

    @property
    def shared(self) -> bool:
        """Whether other machines can read what is kept."""

    @property
    def run_id(self) -> str:
        """The run that is written to. It stays the same, also where the store answers late."""

    def start(
        self,
        directory: Path,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        inputs: Sequence[DataInput] = (),
    ) -> None:
        """Begin a run and its journal in ``directory``."""

    def resume(self, directory: Path, step: int) -> None:
        """Go on with the run in ``directory`` from its checkpoint of ``step``: later points are
        forgotten, and those that are made again are not doubled."""

    def extend(self, directory: Path, run_id: str) -> bool:
        """Write to a run that exists, with a journal in ``directory``; False where nothing is
        kept. What is written leaves the run's status and times as they are; end with ``close``."""

    def reuse(self, config_fingerprint: str) -> str | None:
        """The newest run under this fingerprint that ended by itself, as a child of the parent if
        one is set; None if there is none."""

    def fetch(self, run_id: str, cache: Path) -> Path | None:
        """The checkpoint of a run of another machine; None if ``run_id`` is none, or there is no
        store that could know it."""

    def fetch_training(self, run_id: str) -> Path | None:
        """The run directory of a stopped training of another machine; None as ``fetch``."""

    def parent(self, directory: Path, name: str, tags: Mapping[str, str]) -> str | None:
        """Begin a run that has others as children; its id, or None where nothing is kept."""

    def children(self) -> Sequence[Run]:
        """The children of this run in the store, where those that were cut off are KILLED now."""

    def deliver(self, directory: Path) -> int:
        """Deliver the journal in a run directory; how many entries the store lacked."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Keep a point of each curve."""

    def log_text(self, text: str, name: str) -> None: ...

    def log_file(self, path: Path, folder: str | None = None) -> None: ...

    def param(self, name: str, value: Any) -> None: ...

    def tag(self, name: str, value: str) -> None: ...

    def checkpoint(self, step: int) -> None:
        """Mark the place of a checkpoint, which is written next: what was logged until now
        survives a power failure, and ``resume`` forgets what comes after."""

    def flush(self) -> None:
        """Make what was logged survive a power failure."""

    def finish(self, status: str = "FINISHED") -> None:
        """End the run as FINISHED, FAILED or KILLED, and close."""

    def close(self) -> None:
        """Close the journal; with a store, wait until it has everything, but not for long."""


class JournalTracker:
    """Writes the journal of a run."""

    def __init__(self, config: DisabledConfig | MLflowConfig) -> None:
        self.every = config.every
        self._journal: Journal | None = None
        self._resumed = False
        self._key = ""
        self._run_id: str | None = None

    @property
    def journal(self) -> Journal:
        assert self._journal is not None, "the run was not started"
        return self._journal

    @property
    def run_id(self) -> str:
        return self._key

    def start(
        self,
        directory: Path,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        inputs: Sequence[DataInput] = (),
    ) -> None:
        self._open(directory, uuid.uuid4().hex, name)
        self.journal.append(
            "start",
            key=self._key,
            name=storable(name),
            params={key: storable(value) for key, value in params.items()},
            tags={key: storable(value) for key, value in tags.items()},
            inputs=[asdict(item) | {"path": _kept(item.path)} for item in inputs],
            **self._belonging(),
        )
        self._begin()

    def resume(self, directory: Path, step: int) -> None:
        found = entries(directory)
        start = next((entry for entry in found if entry["kind"] == "start"), None)
        if start is None:
            raise Refused(f"{directory} has no journal with the start of a run")
        self._resumed = True
        self._open(directory, start["key"], start["name"])
        self.journal.rewind(step)
        self.journal.append("resume")
        self._run_id = next((entry["run_id"] for entry in found if entry["kind"] == "id"), None)
        self._begin()

    def _open(self, directory: Path, key: str, name: str) -> None:
        self._journal, self._key = Journal(directory), key

    def _give_up(self, journal: Journal) -> None:
        """Close the journal of a run that the store refused. Of a run that was resumed it stays."""
        if self._resumed:
            journal.close()
        else:
            journal.discard()

    def _begin(self) -> None:
        """What happens when the journal has its first entry."""

    def _belonging(self) -> dict[str, str | None]:
        """Where in a store the run belongs."""
        return {"experiment": None, "parent": None}

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self.journal.add_points(figures, step)

    def log_text(self, text: str, name: str) -> None:
        self.journal.append("text", text=storable(text, None), name=name)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        directory, path = self.journal.directory.resolve(), path.resolve()
        inside = path.is_relative_to(directory)
        kept = path.relative_to(directory) if inside else path
        self.journal.append("file", path=str(kept), folder=folder)

    def param(self, name: str, value: Any) -> None:
        self.journal.append("param", name=name, value=storable(value))

    def tag(self, name: str, value: str) -> None:
        self.journal.append("tag", name=name, value=storable(value))

    def checkpoint(self, step: int) -> None:
        self.journal.append("checkpoint", step=step)
        self.journal.flush()

    def flush(self) -> None:
        self.journal.flush()

    def finish(self, status: str = "FINISHED") -> None:
        if self._journal is not None:
            self.journal.append("finish", status=status)
        self.close()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        self._journal = None


class DisabledTracker(JournalTracker):
    """Keeps runs in their run directories only. ``task=sync run=`` can deliver one later."""

    shared = False

    def __init__(self, config: DisabledConfig) -> None:
        super().__init__(config)
        self.store = Path(config.directory)

    def extend(self, directory: Path, run_id: str) -> bool:
        return False

    def reuse(self, config_fingerprint: str) -> str | None:
        found = ledger.finished(self.store, config_fingerprint)
        return None if found is None else found.run_id

    def fetch(self, run_id: str, cache: Path) -> Path | None:
        return None

    def fetch_training(self, run_id: str) -> Path | None:
        return None

    def parent(self, directory: Path, name: str, tags: Mapping[str, str]) -> str | None:
        return None

    def children(self) -> Sequence[Run]:
        return []

    def deliver(self, directory: Path) -> int:
        raise Refused("tracking=disabled has no store to deliver to: leave it out")


class MLflowTracker(JournalTracker):
    """A run in MLflow. Whatever the store does, the work goes on: the journal keeps everything,
    and a thread delivers it.

    Raises:
        Refused: the folder of the store cannot be written; from ``log`` and ``run_id``: the store
            works, and does not take the run, as where the experiment was deleted.
    """

    def __init__(self, config: MLflowConfig) -> None:
        super().__init__(config)
        hide_credentials()  # before anything is written
        self.config, self.store = config, Path(config.directory)
        self._courier: Courier | None = None

    @property
    def shared(self) -> bool:
        return is_shared(self.store)

    @property
    def run_id(self) -> str:
        """MLflow's id if the store has answered, else one that the run gives itself."""
        if self._run_id is None and self._courier is not None:
            self._run_id = self._courier.run_id(self._key) or self._key
            self.journal.append("id", run_id=self._run_id)
        return self._run_id or ""

    def _belonging(self) -> dict[str, str | None]:
        return {"experiment": self.config.experiment, "parent": self.config.parent}

    def _open(self, directory: Path, key: str, name: str) -> None:
        super()._open(directory, key, name)
        try:
            ledger.owe(self.store, key, storable(name), directory, time.time())
        except OSError as error:
            self._give_up(self.journal)
            raise Refused(
                f"the tracking store in {self.store} cannot be written: "
                f"{error.strerror or error}; set tracking.directory"
            ) from error
        self._run_id, self._courier = None, Courier(self.journal, self.config)

    def _begin(self) -> None:
        assert self._courier is not None
        self._courier.start()

    def extend(self, directory: Path, run_id: str) -> bool:
        self._open(directory, uuid.uuid4().hex, f"addition to {run_id}")
        self.journal.append("extend", key=self._key, run=run_id)
        self._run_id = run_id
        self._begin()
        return True

    def reuse(self, config_fingerprint: str) -> str | None:
        known = ledger.finished(self.store, config_fingerprint)
        if known is not None and known.directory in {e.directory for e in ledger.owed(self.store)}:
            with suppress(Refused):  # it was killed before the store had all of it
                self.deliver(Path(known.directory))
        try:
            client = connect(self.store)
            with store_errors(self.store):
                experiment = experiment_id(client, self.store, self.config.experiment)
                found = finished(client, experiment, config_fingerprint)
                if found is None:
                    return None
                parent = find_run(client, self.config.parent) if self.config.parent else None
                if parent is not None:
                    reuse(client, parent.info.run_id, found)
                return str(found.info.run_id)
        except Unavailable:
            return None if known is None else known.run_id

    def fetch(self, run_id: str, cache: Path) -> Path | None:
        return fetch_checkpoint(self.store, run_id, cache)

    def fetch_training(self, run_id: str) -> Path | None:
        return fetch_training(self.store, run_id)

    def parent(self, directory: Path, name: str, tags: Mapping[str, str]) -> str | None:
        self.start(directory, name, {}, source_tags(git_commit()) | dict(tags))
        return self.run_id

    def children(self) -> Sequence[Run]:
        run_id = self._courier.run_id(self._key) if self._courier is not None else None
        if run_id is None:
            raise Unavailable("the parent run is not in the tracking store yet")
        client = connect(self.store)
        with store_errors(self.store):
            experiment = experiment_id(client, self.store, self.config.experiment)
            family = Family(client, experiment, run_id)
            family.end_children()
            return family.children()

    def deliver(self, directory: Path) -> int:
        journal = Journal(directory)
        try:
            delivery = Delivery(journal, self.config)
            lacked = delivery.left
            delivery.deliver()
        finally:
            journal.close()
        for entry in all_entries(directory):
            if entry["kind"] in BEGIN:
                ledger.settle(self.store, entry["key"])
        return lacked

    def log(self, figures: Mapping[str, float], step: int) -> None:
        if self._courier is not None and self._courier.refused is not None:
            raise self._courier.refused  # now, not at the end of a long training
        super().log(figures, step)

    def close(self) -> None:
        courier, self._courier, self._journal = self._courier, None, None
        if courier is None:
            return
        if courier.close(self.config.wait_seconds):
            ledger.settle(self.store, self._key)
        elif courier.refused is not None:
            ledger.settle(self.store, self._key)
            self._give_up(courier.journal)
        self._run_id = self._run_id or courier.delivery.run_id(self._key) or self._key


def storable(value: Any, longest: int | None = LONGEST_PARAM) -> str:
    """A value as text that the store takes: without secrets, not too long, and without half a
    character of what could not be decoded, such as a file name of another encoding."""
    return redacted(str(value)).encode("utf-8", "replace").decode()[:longest]


def _kept(path: str | None) -> str | None:
    return None if path is None else storable(path)
