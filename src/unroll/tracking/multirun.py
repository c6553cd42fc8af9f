"""The parent run of a multirun, and the table of its children."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from unroll.errors import Refused, bounded, refuse_in_hydra
from unroll.registry import build, restore, schema
from unroll.tracking.naming import multirun_name

if TYPE_CHECKING:
    from mlflow.entities import Run

    from unroll.tracking.tracker import Tracker

PARENT = "UNROLL_PARENT_RUN"
"""Environment variable that gives the jobs of a multirun, in any process, their parent."""
RESULTS = ("test/perplexity", "valid/perplexity", "train/perplexity", "tokens_per_second")
"""Metrics of trainings in the table; of other tasks it shows every metric."""


class Multirun(Callback):
    """Gives a multirun its parent run, named after its overrides."""

    tracker: Tracker | None = None
    """Writes the parent run, while there is one."""

    def on_multirun_start(self, config: DictConfig, **keywords: Any) -> None:
        if not schema("task", config.task.name).makes_run:
            return
        values = OmegaConf.to_container(config.tracking, resolve=True)
        overrides = list(config.hydra.overrides.task)
        tags = {"overrides": " ".join(overrides)}
        try:
            tracker: Tracker = build("tracking", restore("tracking", values))  # type: ignore[arg-type]
            directory = Path(config.hydra.sweep.dir)
            parent = tracker.parent(directory, multirun_name(overrides), tags)
        except Refused as error:
            refuse_in_hydra(str(error))
        if parent is not None:
            Multirun.tracker, os.environ[PARENT] = tracker, parent

    @staticmethod
    def adopt(run_ids: Iterable[str]) -> None:
        """Name runs of an earlier multirun among the children."""
        from unroll.tracking.family import REUSED

        if Multirun.tracker is not None:
            for run_id in run_ids:
                Multirun.tracker.tag(f"{REUSED}{run_id}", "true")

    @staticmethod
    def keep(path: Path) -> None:
        """Keep a file with the parent run."""
        if Multirun.tracker is not None:
            Multirun.tracker.log_file(path)

    @staticmethod
    def close(status: str) -> None:
        """End the parent run, if there is one, and write a table of its children's results."""
        tracker, Multirun.tracker = Multirun.tracker, None
        if tracker is None:
            return
        os.environ.pop(PARENT, None)
        try:
            table = children_table(tracker.children())
            tracker.log_text(table, "children.csv")
            print(f"\n{table}", end="")
        except Refused as error:
            print(f"unroll: no table of the runs: {bounded(str(error))}", file=sys.stderr)
        tracker.finish(status)
        print(f"parent run {tracker.run_id}: {status.lower()}")


def children_table(children: Sequence[Run]) -> str:
    """CSV: a row for each child with the params in which the children differ, and the results."""
    logged = {key for run in children for key in run.data.metrics}
    results = [key for key in RESULTS if key in logged] or sorted(logged)
    varied = [
        key
        for key in sorted({key for run in children for key in run.data.params})
        if len({run.data.params.get(key) for run in children}) > 1
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run_id", "name", "status", *varied, *results])
    for run in children:
        values = [run.data.params.get(key, "") for key in varied]
        figures = [
            f"{run.data.metrics[key]:.6g}" if key in run.data.metrics else "" for key in results
        ]
        writer.writerow([run.info.run_id, run.info.run_name, run.info.status, *values, *figures])
    return text.getvalue()
