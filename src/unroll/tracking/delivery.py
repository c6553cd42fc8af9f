"""From the journal to MLflow: each entry once, in order, however often the store fails.

What was delivered is noted beside the journal after each request. A request whose answer did not
arrive may have been carried out; so before its points are sent again, the store is asked which of
them it has. The same holds for points that a resumed run makes again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unroll.errors import first_line, require
from unroll.tracking import inputs, ledger
from unroll.tracking.config import MLflowConfig
from unroll.tracking.family import PARENT_TAG
from unroll.tracking.journal import (
    BEGIN,
    STOP_TAGS,
    Cursor,
    Entry,
    Journal,
    Reader,
    points,
    say,
)
from unroll.tracking.store import (
    ABSENT,
    KEY_TAG,
    REJECTED,
    Unavailable,
    address,
    connect,
    experiment_id,
    find_run,
    store_errors,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LARGEST_BATCH = 50  # params and tags of one request, as MLflow allows
POINTS = 500
"""Points of one request."""


class Delivery:
    """Delivers a journal, which must be open, to the store of ``config``."""

    def __init__(self, journal: Journal, config: MLflowConfig) -> None:
        self.journal, self.config, self.store = journal, config, Path(config.directory)
        self.client: MlflowClient | None = None
        self.cursor = Cursor.read(journal.directory)
        place = address(self.store)
        if self.cursor.store != place:
            self.cursor = Cursor(place)
        self._reader = Reader(journal.path)
        self._read: list[Entry] = []
        self._suspect = journal.number
        self._known: dict[str, set[tuple[int, int]]] = {}
        self._rejected = False

    def run_id(self, key: str) -> str | None:
        """The id that the store gave the run with this id in the journal, if it did."""
        return self.cursor.run if self.cursor.key == key else None

    def _late(self, entry: Entry) -> bool:
        """Whether an earlier try to deliver this entry failed, or its answer got lost."""
        return bool(entry["n"] <= self._suspect)

    @property
    def left(self) -> int:
        """How many entries the store lacks."""
        return self.journal.number - self.cursor.number

    def deliver(self) -> None:
        """Deliver all that the journal holds.

        Raises:
            Unavailable: the store failed; what it lacks can be delivered later.
            Refused: the store works, and the run cannot be created in it.
        """
        while group := self._next_group():
            try:
                with store_errors(self.store):
                    self.connected()
                    self._apply(group)
            except BaseException:
                self._suspect = max(self._suspect, group[-1]["n"])
                self._known.clear()
                self.client = None
                raise
            self._move(number=group[-1]["n"])
            del self._read[: len(group)]

    def connected(self) -> MlflowClient:
        """The client of the store, opened if it is not open."""
        if self.client is None:
            self.client = connect(self.store)
        return self.client

    def _next_group(self) -> list[Entry]:
        """The next entries that one request can deliver: points of many entries, or one entry."""
        while len(self._read) < POINTS and (more := self._reader.read()):
            self._read += [entry for entry in more if entry["n"] > self.cursor.number]
        group: list[Entry] = []
        count = 0
        for entry in self._read:
            if entry["kind"] != "metrics":
                return group or [entry]
            count += len(entry["values"])
            if group and count > POINTS:
                break
            group.append(entry)
        return group

    def _move(self, **changes: Any) -> None:
        self.cursor = replace(self.cursor, **changes)
        self.cursor.write(self.journal.directory)

    def _apply(self, group: list[Entry]) -> None:
        """Carry out what a group of entries says. What the store rejects for good is left out."""
        kind = group[0]["kind"]
        if kind not in BEGIN and self.cursor.run is None:
            return  # it adds to a run that the store does not have
        try:
            if act := self.ACTIONS.get(kind):  # the others only the journal needs
                act(self, group)
        except Exception as error:
            code = getattr(error, "error_code", None)
            if code == ABSENT and kind != "extend":
                self._start_anew()
            if code != REJECTED or kind == "start":
                raise
            if len(group) > 1:
                for entry in group:
                    self._apply([entry])
            else:
                self._leave_out(group[0], first_line(error))

    def _start_anew(self) -> None:
        """Deliver the whole journal again: the store has lost the run."""
        self._move(run=None, key="", number=0)
        self._reader, self._read = Reader(self.journal.path), []

    def _leave_out(self, entry: Entry, reason: str) -> None:
        if not self._rejected:
            self._rejected = True
            say(f"the store does not take entry {entry['n']} of {self.journal.path}: {reason}")

    def _start(self, group: list[Entry]) -> None:
        (entry,) = group
        run_id = self.run_id(entry["key"]) or self._created(entry) or self._create(entry)
        self._move(run=run_id, key=entry["key"])
        from mlflow.entities import Param, RunTag

        client = self.connected()
        params = [Param(key, value) for key, value in entry["params"].items()]
        tags = [RunTag(key, value) for key, value in entry["tags"].items()]
        for first in range(0, max(len(params), len(tags)), LARGEST_BATCH):
            part = slice(first, first + LARGEST_BATCH)
            client.log_batch(run_id, params=params[part], tags=tags[part])
        inputs.log_inputs(client, run_id, [inputs.DataInput(**item) for item in entry["inputs"]])

    def _created(self, entry: Entry) -> str | None:
        """The run, if an earlier try created it."""
        found = find_run(self.connected(), entry["key"]) if self._late(entry) else None
        return None if found is None else str(found.info.run_id)

    def _create(self, entry: Entry) -> str:
        client = self.connected()
        experiment = experiment_id(
            client, self.store, entry["experiment"] or self.config.experiment
        )
        tags = {KEY_TAG: entry["key"]} | self._parent_tag(entry)
        run = client.create_run(experiment, entry["time"], tags, entry["name"])
        return str(run.info.run_id)

    def _parent_tag(self, entry: Entry) -> dict[str, str]:
        """The tag of a child of the parent, which is RUNNING from now on. If the child is late, the
        parent may have ended long ago and stays as it is, or may be gone."""
        client, given, late = self.connected(), entry["parent"], self._late(entry)
        found = find_run(client, given) if given else None
        if found is not None and found.info.lifecycle_stage != "deleted":
            if not late:
                client.update_run(found.info.run_id, status="RUNNING")
            return {PARENT_TAG: str(found.info.run_id)}
        if given:
            self._require_settled(given)
            require(
                late,
                f"tracking.parent={given} is no run that can have children: leave it out",
            )
        return {}

    def _require_settled(self, key: str) -> None:
        """Raise ``Unavailable`` while the run with this id is only in a journal."""
        owed = {entry.run_id for entry in ledger.owed(self.store)}
        if key in owed:
            raise Unavailable(f"run {key}, which this one belongs to, is not delivered yet")

    def _extend(self, group: list[Entry]) -> None:
        """Write to a run that exists. A run that the store does not have gets nothing."""
        found = find_run(self.connected(), group[0]["run"])
        if found is None:
            self._require_settled(group[0]["run"])
            run_id = None
        else:
            deleted = found.info.lifecycle_stage == "deleted"
            run_id = None if deleted else str(found.info.run_id)
        self._move(run=run_id, key=group[0]["key"])

    def _metrics(self, group: list[Entry]) -> None:
        from mlflow.entities import Metric

        rows = [point for entry in group for point in points(entry)]
        if self._late(group[0]) or any(entry.get("again") for entry in group):
            rows = [row for row in rows if (row.step, row.time) not in self._stored(row.key)]
        for first in range(0, len(rows), POINTS):
            batch = [
                Metric(row.key, row.value, row.time, row.step)
                for row in rows[first : first + POINTS]
            ]
            self.connected().log_batch(self._run, metrics=batch)

    @property
    def _run(self) -> str:
        assert self.cursor.run is not None
        return self.cursor.run

    def _stored(self, key: str) -> set[tuple[int, int]]:
        """Step and time of each point of a curve that the store has."""
        if key not in self._known:
            found = self.connected().get_metric_history(self._run, key)
            self._known[key] = {(point.step, point.timestamp) for point in found}
        return self._known[key]

    def _param(self, group: list[Entry]) -> None:
        self.connected().log_param(self._run, group[0]["name"], group[0]["value"])

    def _tag(self, group: list[Entry]) -> None:
        self.connected().set_tag(self._run, group[0]["name"], group[0]["value"])

    def _text(self, group: list[Entry]) -> None:
        self.connected().log_text(self._run, group[0]["text"], group[0]["name"])

    def _file(self, group: list[Entry]) -> None:
        path = self.journal.directory / group[0]["path"]
        if path.is_file():
            self.connected().log_artifact(self._run, str(path), group[0]["folder"])
        else:
            self._leave_out(group[0], f"{path} does not exist any more")

    def _finish(self, group: list[Entry]) -> None:
        self.connected().set_terminated(self._run, group[0]["status"], group[0]["time"])

    def _resume(self, group: list[Entry]) -> None:
        """RUNNING again, without the tags of the stop."""
        client = self.connected()
        tags = client.get_run(self._run).data.tags
        client.update_run(self._run, status="RUNNING")
        for tag in STOP_TAGS & set(tags):
            client.delete_tag(self._run, tag)

    ACTIONS: ClassVar[dict[str, Callable[[Delivery, list[Entry]], None]]] = {
        "start": _start,
        "extend": _extend,
        "metrics": _metrics,
        "param": _param,
        "tag": _tag,
        "text": _text,
        "file": _file,
        "finish": _finish,
        "resume": _resume,
    }
