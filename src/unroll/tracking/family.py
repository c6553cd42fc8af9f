"""A parent run and its children: a multirun, or a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unroll.errors import require
from unroll.tracking.config import MLflowConfig
from unroll.tracking.journal import is_written
from unroll.tracking.source import UNKNOWN, source_tags
from unroll.tracking.store import connect, experiment_id, locked, search, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PARENT_TAG, REUSED, STUDY = "mlflow.parentRunId", "reused.", "study"
DIRECTORY = "directory"
"""Tag of a run: its run directory."""
PARENT_OF = "parent_of"
"""Tag of the parent of a study, which a run that only names its study does not have."""


@dataclass(frozen=True)
class Family:
    """A parent run and its children.

    A parent is RUNNING from the start of a child until ``finish``.
    """

    client: MlflowClient
    experiment: str
    run_id: str

    @classmethod
    def open(cls, config: MLflowConfig, name: str, tags: Mapping[str, str]) -> Family:
        """The one parent with the same tag ``study``, which is created if it does not exist. One
        that exists keeps its status until a child starts.

        Raises:
            Refused: the store cannot be opened, or the study's name holds a quotation mark.
        """
        study = tags[STUDY]
        require("'" not in study, f"study {study!r}: a study's name must not contain '")
        directory = Path(config.directory)
        client = connect(directory)
        with locked(directory), store_errors(directory):
            experiment = experiment_id(client, directory, config.experiment)
            found = search(client, experiment, f"tags.{PARENT_OF} = '{study}'")
            if found:
                return cls(client, experiment, str(found[-1].info.run_id))
            # its children come from many commits: each of them names its own
            tags = source_tags(UNKNOWN) | dict(tags) | {PARENT_OF: study}
            run = client.create_run(experiment, run_name=name, tags=tags)
        return cls(client, experiment, str(run.info.run_id))

    def children(self) -> list[Run]:
        """The children, oldest first, and with them the runs that were reused as children."""
        made = self._made()
        tags = self.client.get_run(self.run_id).data.tags
        reused = {tag.removeprefix(REUSED) for tag in tags if tag.startswith(REUSED)}
        reused -= {run.info.run_id for run in made}
        if reused:
            listed = ", ".join(f"'{run_id}'" for run_id in sorted(reused))
            made += search(self.client, self.experiment, f"attributes.run_id IN ({listed})")
        return sorted(made, key=lambda run: run.info.start_time)

    def _made(self) -> list[Run]:
        """The children that were run for this parent."""
        return search(self.client, self.experiment, f"tags.`{PARENT_TAG}` = '{self.run_id}'")

    def end_children(self) -> bool:
        """End the children that were cut off as KILLED. A child that a process of this machine is
        still writing is left alone.

        Returns:
            Whether all have ended.
        """
        ended = True
        for run in self._made():
            if run.info.status == "RUNNING":
                directory = run.data.tags.get(DIRECTORY)
                if directory is not None and is_written(Path(directory)):
                    ended = False
                else:
                    self.client.set_terminated(run.info.run_id, "KILLED")
        return ended

    def finish(self, status: str) -> None:
        """End the children that were cut off as KILLED, and the parent with ``status``, unless no
        child was started since it ended. While another process runs a child, the parent is left to
        that process."""
        ended = self.end_children()
        if ended and self.client.get_run(self.run_id).info.status == "RUNNING":
            self.client.set_terminated(self.run_id, status)


def reuse(client: MlflowClient, parent: str, run: Run) -> None:
    """Name a run of another family among the children of ``parent``."""
    if run.data.tags.get(PARENT_TAG) != parent:
        client.set_tag(parent, f"{REUSED}{run.info.run_id}", "true")
