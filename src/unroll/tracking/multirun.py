"""The parent run of a multirun, and the table of its children."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from unroll.errors import BAD_INPUT, Refused, bounded
from unroll.registry import build, restore, schema
from unroll.tracking.naming import multirun_name

if TYPE_CHECKING:
    from mlflow.entities import Run

    from unroll.tracking.family import Family
    from unroll.tracking.tracker import Tracker

RESULTS = ("test/perplexity", "valid/perplexity", "train/perplexity", "tokens_per_second")
"""Metrics of trainings in the table; of other tasks it shows every metric."""


class Multirun(Callback):
    """Gives a multirun its parent run, named after its overrides."""

    family: Family | None = None

    def on_multirun_start(self, config: DictConfig, **keywords: Any) -> None:
        if not schema("task", config.task.name).makes_run:
            return
        from unroll.tracking.family import PARENT

        values = OmegaConf.to_container(config.tracking, resolve=True)
        overrides = list(config.hydra.overrides.task)
        tags = {"overrides": " ".join(overrides)}
        try:
            tracker: Tracker = build("tracking", restore("tracking", values))  # type: ignore[arg-type]
            Multirun.family = tracker.family(multirun_name(overrides), tags)
        except Refused as error:  # Hydra would turn it into a warning
            print(f"unroll: {bounded(str(error))}", file=sys.stderr)
            sys.exit(BAD_INPUT)
        if Multirun.family is not None:
            os.environ[PARENT] = Multirun.family.run_id

    @staticmethod
    def close(status: str) -> None:
        """End the parent run, if there is one, and write a table of its children's results."""
        from unroll.tracking.family import PARENT

        family, Multirun.family = Multirun.family, None
        if family is None:
            return
        os.environ.pop(PARENT, None)
        family.finish(status)
        table = children_table(family.children())
        family.client.log_text(family.run_id, table, "children.csv")
        print(f"\n{table}parent run {family.run_id}: {status.lower()}")


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
