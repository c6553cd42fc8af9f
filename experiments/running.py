"""How studies run: finished runs are reused, equal jobs run once, timed jobs run alone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

import unroll
from experiments.study import Job, Results, Study
from unroll.app import compose, dispatch
from unroll.config import Config, fingerprint, restored
from unroll.errors import FAILED, explain, first_line
from unroll.folders import CONF, HOME
from unroll.registry import build
from unroll.report.page import Section
from unroll.report.runs import Record
from unroll.tracking.config import MLflowConfig
from unroll.tracking.family import STUDY, Family, reuse
from unroll.tracking.ledger import write_atomically
from unroll.tracking.store import all_finished, connect, experiment_id


@dataclass
class Failure:
    """Why a study has no results, and the exit code that goes with it."""

    reason: str
    code: int


@dataclass(frozen=True)
class Planned:
    """A job of a study, with the config that it makes."""

    study: Study
    job: Job
    config: Config
    fingerprint: str


@dataclass
class Session:
    """One call of ``make reproduce``.

    A run that finished before under the same fingerprint is reused, unless ``rerun``; a job that
    two studies ask for runs once in a session either way.
    """

    extra: Sequence[str]
    parallel: int
    rerun: bool = False
    failures: dict[str, Failure] = field(default_factory=dict)
    """By the name of the study."""
    _records: dict[str, Record] = field(default_factory=dict)
    """By fingerprint."""
    _families: dict[str, Family] = field(default_factory=dict)
    _errors: dict[str, Failure] = field(default_factory=dict)
    """By fingerprint."""
    _started: float = field(default_factory=time.monotonic)

    def run(self, studies: Sequence[Study]) -> dict[str, Results]:
        """Run the jobs of studies, then their follow-up jobs; the results by study.

        A study that fails is in ``failures`` and the others go on.
        """
        results: dict[str, Results] = {study.name: {} for study in studies}
        ended = "KILLED"
        try:
            first = {study.name: study.jobs for study in studies}
            self._carry_out(studies, first, results)
            then = [study for study in studies if study.then and study.name not in self.failures]
            later = {study.name: study.then(results[study.name]) for study in then if study.then}
            self._carry_out(then, later, results)
            ended = "FINISHED"
        finally:
            for name, family in self._families.items():
                family.finish("FAILED" if name in self.failures else ended)
        return {name: found for name, found in results.items() if name not in self.failures}

    def _carry_out(
        self,
        studies: Sequence[Study],
        jobs: dict[str, tuple[Job, ...]],
        results: dict[str, Results],
    ) -> None:
        planned: dict[str, list[Planned]] = {}
        for study in studies:
            with self._guarded(study):
                planned[study.name] = self._plan(study, jobs[study.name])
        every = [item for plan in planned.values() for item in plan]
        self._find(every)
        # of equal jobs the first is run, but one that must run alone wins
        unique = {item.fingerprint: item for item in reversed(every)}
        unique |= {item.fingerprint: item for item in every if item.job.alone}
        todo = [item for key, item in unique.items() if key not in self._records]
        todo.sort(key=every.index)
        if every:
            there = len(unique) - len(todo)
            print(f"{len(todo)} jobs to run, {there} are finished", flush=True)
        self._make(todo)
        for study in studies:
            plan = planned.get(study.name, [])
            failed = [self._errors[x.fingerprint] for x in plan if x.fingerprint in self._errors]
            if failed:
                self.failures.setdefault(study.name, failed[0])
                continue
            self._adopt(study, plan)
            for item in plan:
                record = self._records[item.fingerprint]
                results[study.name].setdefault(item.job.label, []).append(record)

    @contextlib.contextmanager
    def _guarded(self, study: Study) -> Iterator[None]:
        """Keep what stops one study from stopping the others."""
        try:
            yield
        except Exception as error:
            line, code = explain(error)
            if line is None:
                raise
            self.failures[study.name] = Failure(line, code)

    def _plan(self, study: Study, jobs: Sequence[Job]) -> list[Planned]:
        plan = []
        for job in study.planned(jobs, self.extra):
            config = composed(job.overrides)
            corpus: str = build("data", config.data).fingerprint()
            plan.append(Planned(study, job, config, fingerprint(config, corpus)))
        return plan

    def _find(self, planned: Sequence[Planned]) -> None:
        """Take the runs that finished before."""
        if self.rerun or not planned:
            return
        tracking = planned[0].config.tracking
        assert isinstance(tracking, MLflowConfig)
        place = Path(tracking.directory)
        client = connect(place)
        known = all_finished(client, experiment_id(client, place, tracking.experiment))
        for item in planned:
            if item.fingerprint in known:
                self._records[item.fingerprint] = Record(client, known[item.fingerprint])

    def _make(self, todo: Sequence[Planned]) -> None:
        """Run jobs: those side by side first, then one at a time those that measure time."""
        done = 0
        for alone in (False, True):
            group = [item for item in todo if item.job.alone == alone]
            workers = 1 if alone else self.parallel
            ended = Parallel(n_jobs=workers, return_as="generator")(
                delayed(_run)(item, index, self._family(item).run_id)
                for index, item in enumerate(group)
            )
            for item, (run_id, failure) in zip(group, ended, strict=True):
                done += 1
                spent = time.monotonic() - self._started
                print(
                    f"  {done}/{len(todo)} {item.study.name}: {item.job.label} ({spent:.0f} s)",
                    flush=True,
                )
                if failure is not None:
                    self._errors[item.fingerprint] = failure
                else:
                    client = self._family(item).client
                    self._records[item.fingerprint] = Record(client, client.get_run(run_id))

    def _family(self, item: Planned) -> Family:
        """The parent run of a study in the store, opened when the first job of it is run."""
        name = item.study.name
        if name not in self._families:
            tracking = item.config.tracking
            assert isinstance(tracking, MLflowConfig)
            self._families[name] = Family.open(tracking, f"study {name}", {STUDY: name})
        return self._families[name]

    def _adopt(self, study: Study, plan: Sequence[Planned]) -> None:
        """Tell a parent that was opened which of its study's runs another study made."""
        if study.name in self._families:
            family = self._families[study.name]
            for item in plan:
                reuse(family.client, family.run_id, self._records[item.fingerprint].run)


def _run(item: Planned, index: int, parent: str) -> tuple[str, Failure | None]:
    """One job, in a worker process: its run id, or why it failed.

    What it prints goes to log.txt in its run directory.
    """
    study, job = item.study.name, item.job
    places: Any = {"parent": parent, "study": study, "label": job.label}
    config = replace(item.config, tracking=replace(item.config.tracking, **places))
    stamp = time.strftime("%Y-%m-%d/%H-%M-%S")
    directory = HOME / "outputs" / "studies" / f"{stamp}-{study}-{index}-{os.getpid()}"
    directory.mkdir(parents=True)
    log_path = directory / "log.txt"
    with log_path.open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        try:
            overrides = [*job.overrides, "threads=1"]
            return str(dispatch(config, directory, overrides, reuse=False)["run_id"]), None
        except Exception as error:
            traceback.print_exc(file=log)
            line, code = explain(error)
            reason = line or f"{type(error).__name__}: {first_line(error)}; see {log_path}"
            return "", Failure(f"{job.label}: {reason}", code if line else FAILED)


def sections(study: Study, results: Results) -> list[Section]:
    """The sections of a study. One that cannot be made has the reason in place of its answer."""
    found = []
    jobs = [(label, record) for label, records in results.items() for record in records]
    for question in study.questions:
        section = Section(question.name, question.title, question.question, None, lab=question.lab)
        section.jobs = jobs
        try:
            section.answer = question.answer(results)
        except Exception as error:  # whatever its numbers did to it, the others are shown
            section.failure = f"{type(error).__name__}: {first_line(error)}"
        found.append(section)
    return found


def failed_sections(study: Study, failure: Failure) -> list[Section]:
    """The sections of a study without results: the reason in place of each."""
    return [
        Section(each.name, each.title, each.question, None, failure.reason, each.lab)
        for each in study.questions
    ]


def composed(words: Sequence[str]) -> Config:
    """The config of a job, cached on disk: Hydra takes a third of a second for each, and a report
    is made of more than a hundred.

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
    """A hash of everything that decides what an override means."""
    digest = hashlib.blake2b()
    for path in sorted([*CONF.rglob("*.yaml"), *Path(unroll.__file__).parent.rglob("config.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
