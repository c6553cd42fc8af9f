"""A study: a question, the runs that answer it, and how its section of the report is drawn."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from joblib import Parallel, delayed

from unroll.app import compose, dispatch
from unroll.config import HOME, Config, fingerprint
from unroll.data.token_stream import encode
from unroll.registry import build
from unroll.report.page import Section
from unroll.report.runs import Record, fetch
from unroll.tracking.config import MLflowConfig
from unroll.tracking.store import Family, finished

PLACES = ("tracking", "data.cache")
"""Overrides that say where things are kept and not what is run."""


@dataclass(frozen=True)
class Job:
    """One run of a study. Jobs that differ in nothing but the seed share a label."""

    label: str
    overrides: tuple[str, ...]


Results = dict[str, list[Record]]
"""Runs by label, in the order of the jobs."""


@dataclass(frozen=True)
class Study:
    """What ``make reproduce`` runs under one name."""

    name: str
    jobs: tuple[Job, ...]
    draw: Callable[[Results], Section]
    own_data: bool = False
    """The study makes the data that its question needs, so that it stays as it is whatever the
    overrides of the command say, save where things are kept."""

    def asked(self, extra: Sequence[str]) -> tuple[Job, ...]:
        """The jobs with what the overrides of the command change in them."""
        if self.own_data:
            extra = [word for word in extra if word.startswith(PLACES)]
        return tuple(replace(job, overrides=(*job.overrides, *extra)) for job in self.jobs)


@dataclass(frozen=True)
class Done:
    """A study with its runs."""

    study: Study
    results: Results

    def section(self) -> Section:
        """The section of the report, with the runs listed behind it."""
        section = self.study.draw(self.results)
        section.jobs = [
            (label, record) for label, records in self.results.items() for record in records
        ]
        return section


def run(study: Study, extra: Sequence[str], parallel: int, rerun: bool) -> Done:
    """Run what has not finished before, ``parallel`` jobs at a time, one thread each.

    The last words of ``extra`` win over those of a job. A job is its config: two studies that
    ask for the same run share it.

    Raises:
        Refused: a job cannot be run as asked.
        RuntimeError: a job failed.
    """
    jobs = study.asked(extra)
    configs = [compose([*job.overrides, "threads=1"]) for job in jobs]
    tracking = configs[0].tracking
    assert isinstance(tracking, MLflowConfig)
    family = Family.start(tracking, f"study {study.name}", {"study": study.name})
    status = "FAILED"
    try:
        ids = [None if rerun else _finished(family, config) for config in configs]
        todo = [index for index, found in enumerate(ids) if found is None]
        for index, found in enumerate(ids):
            if found is not None:
                family.client.set_tag(family.run_id, f"reused.{found}", "true")
                print(
                    f"  {study.name}: {jobs[index].label} has finished before: {found}", flush=True
                )
        start = time.monotonic()
        fresh = Parallel(n_jobs=parallel, return_as="generator")(
            delayed(_run)(study.name, index, jobs[index], family.run_id) for index in todo
        )
        for done, (index, run_id) in enumerate(zip(todo, fresh, strict=True), start=1):
            ids[index] = run_id
            print(
                f"  {study.name}: {done}/{len(todo)} {jobs[index].label} "
                f"({time.monotonic() - start:.0f} s)",
                flush=True,
            )
        records = fetch(family.client, [run_id for run_id in ids if run_id is not None])
        status = "FINISHED"
    finally:
        family.finish(status)
    results: Results = {}
    for job, run_id in zip(jobs, ids, strict=True):
        assert run_id is not None
        results.setdefault(job.label, []).append(records[run_id])
    return Done(study, results)


def _finished(family: Family, config: Config) -> str | None:
    encoded = encode(config.data, build("data", config.data))
    found = finished(
        family.client, family.experiment, fingerprint(config, encoded.corpus_fingerprint)
    )
    return None if found is None else str(found.info.run_id)


def _run(study: str, index: int, job: Job, parent: str) -> str:
    """One job, in a worker process; what it prints goes to a file in its run directory."""
    overrides = [*job.overrides, "threads=1"]
    config = compose([*overrides, f"tracking.parent={parent}"])
    stamp = time.strftime("%Y-%m-%d/%H-%M-%S")
    directory = HOME / "outputs" / "studies" / f"{stamp}-{study}-{index}-{os.getpid()}"
    directory.mkdir(parents=True)
    with (
        (directory / "log.txt").open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
    ):
        return str(dispatch(config, directory, overrides, reuse=False)["run_id"])
