"""A study: the runs that answer a question, and how its sections of the report are drawn."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from joblib import Parallel, delayed

import unroll
from unroll.app import compose, dispatch
from unroll.config import CONF, HOME, Config, fingerprint, restored
from unroll.registry import build
from unroll.report.page import Section
from unroll.report.runs import Record, fetch
from unroll.tracking.config import MLflowConfig
from unroll.tracking.family import Family
from unroll.tracking.ledger import write_atomically
from unroll.tracking.store import finished


@dataclass(frozen=True)
class Job:
    """One run of a study. Jobs that differ in nothing but the seed share a label."""

    label: str
    overrides: tuple[str, ...]
    alone: bool = False
    """Whether it measures time, so that no other job may run beside it."""

    @property
    def reads_runs(self) -> bool:
        """Whether model and data come from runs that have been made."""
        return any(word.startswith(("run=", "task.runs=")) for word in self.overrides)


Results = dict[str, list[Record]]
"""Runs by label, in the order of the jobs."""


@dataclass(frozen=True)
class Study:
    """What ``make reproduce`` runs under one name."""

    name: str
    jobs: tuple[Job, ...]
    draw: Callable[[Results], list[Section]]
    then: Callable[[Results], tuple[Job, ...]] | None = None
    """Jobs that read the runs of the first ones."""
    own_data: bool = False
    """Whether the study brings its own data, so that overrides meant for others leave it alone."""
    corpus: str | None = None
    """The corpus without which the study is skipped: an option of ``data``. Its place is given
    by the environment variable of that name in capitals."""

    def missing(self) -> str | None:
        """How to give the corpus that is not given, or None where nothing is missing."""
        if self.corpus is None or os.environ.get(self.corpus.upper()):
            return None
        return f"{self.corpus.upper()}=PATH"

    def words(self, extra: Sequence[str]) -> list[str]:
        """The overrides that every job gets, out of those that the command gave."""
        if self.corpus is None and not self.own_data:
            return list(extra)
        path = [] if self.corpus is None else [f"data.path={os.environ[self.corpus.upper()]}"]
        return [*_places(extra), *path]


def _places(words: Sequence[str]) -> list[str]:
    """The overrides that say where things are kept, not what is run."""
    return [word for word in words if word.startswith(("tracking.", "data.cache="))]


@dataclass(frozen=True)
class Done:
    """A study with its runs."""

    study: Study
    results: Results

    def sections(self) -> list[Section]:
        """The sections of the report, with the runs listed behind them."""
        sections = self.study.draw(self.results)
        for section in sections:
            section.jobs = [
                (label, record) for label, records in self.results.items() for record in records
            ]
        return sections


def run(study: Study, extra: Sequence[str], parallel: int, rerun: bool) -> Done:
    """Run what has not finished before, ``parallel`` jobs at a time, one thread each.

    The last words of ``extra`` win over those of a job. A job is its config: two studies that
    ask for the same run share it.

    Raises:
        Refused: a job cannot be run as asked.
        RuntimeError: a job failed.
    """
    words = study.words(extra)
    tracking = composed([*study.jobs[0].overrides, *words]).tracking
    assert isinstance(tracking, MLflowConfig)
    family = Family.start(tracking, f"study {study.name}", {"study": study.name})
    status = "FAILED"
    try:
        results = _carry_out(study.name, study.jobs, words, family, parallel, rerun)
        if study.then is not None:
            later = study.then(results)
            results |= _carry_out(study.name, later, words, family, parallel, rerun)
        status = "FINISHED"
    finally:
        family.finish(status)
    return Done(study, results)


def _carry_out(
    study: str,
    jobs: Sequence[Job],
    words: Sequence[str],
    family: Family,
    parallel: int,
    rerun: bool,
) -> Results:
    jobs = [
        replace(job, overrides=(*job.overrides, *(_places(words) if job.reads_runs else words)))
        for job in jobs
    ]
    ids = [None if rerun else _finished(family, composed(job.overrides)) for job in jobs]
    for found in filter(None, ids):
        family.client.set_tag(family.run_id, f"reused.{found}", "true")
    if any(ids):
        print(f"  {study}: {len(ids) - ids.count(None)} of {len(ids)} are there", flush=True)
    start = time.monotonic()
    for alone in (False, True):
        todo = [
            index for index, found in enumerate(ids) if not found and jobs[index].alone == alone
        ]
        fresh = Parallel(n_jobs=1 if alone else parallel, return_as="generator")(
            delayed(_run)(study, index, jobs[index], family.run_id) for index in todo
        )
        for index, run_id in zip(todo, fresh, strict=True):
            ids[index] = run_id
            spent = time.monotonic() - start
            print(f"  {study}: {jobs[index].label} ({spent:.0f} s)", flush=True)
    records = fetch(family.client, [run_id for run_id in ids if run_id is not None])
    results: Results = {}
    for job, run_id in zip(jobs, ids, strict=True):
        assert run_id is not None
        results.setdefault(job.label, []).append(records[run_id])
    return results


def composed(words: Sequence[str]) -> Config:
    """The config of a job, remembered on disk: Hydra takes a third of a second for each, and a
    report is made of more than a hundred.

    Raises:
        Refused: as the command line would.
    """
    recipe = repr((list(words), str(HOME), _schema())).encode()
    digest = hashlib.blake2b(recipe, digest_size=16)
    place = HOME / ".cache" / "composed" / f"{digest.hexdigest()}.json"
    if place.is_file():
        return restored(json.loads(place.read_text(encoding="utf-8")))
    config = compose([*words, "threads=1"])
    write_atomically(place, json.dumps(asdict(config)))
    return config


@functools.cache
def _schema() -> str:
    """A hash of everything that says what words mean."""
    digest = hashlib.blake2b()
    for path in sorted([*CONF.rglob("*.yaml"), *Path(unroll.__file__).parent.rglob("config.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _finished(family: Family, config: Config) -> str | None:
    corpus: str = build("data", config.data).fingerprint()
    found = finished(family.client, family.experiment, fingerprint(config, corpus))
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
