"""How studies run: finished runs are reused, those that were cut off go on, equal jobs run once,
also where two processes ask for them, and timed jobs run alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from joblib import Parallel, delayed

from experiments import estimate
from experiments.composing import compose_ahead, composed
from experiments.study import Job, Question, Results, Study, places
from unroll import sweep
from unroll.app import dispatch
from unroll.config import Config, fingerprint, flat
from unroll.errors import FAILED, explain, first_line, redacted, require
from unroll.folders import HOME
from unroll.registry import build
from unroll.report.page import Section
from unroll.report.runs import Record
from unroll.tasks.run import resolved
from unroll.tracking.config import MLflowConfig
from unroll.tracking.family import STUDY, Family, reuse
from unroll.tracking.store import FINGERPRINT, all_finished, connect, experiment_id

KEY = "job."
"""Begin of the tags of a run that hold the keys of the jobs it serves: the one it was made for, and
those that scored it later."""


@dataclass
class Failure:
    """Why a study has no results, and the exit code that goes with it."""

    reason: str
    code: int


class Ended(NamedTuple):
    """A job that has ended: its place in its group, how, its run or why it failed."""

    place: int
    outcome: str
    run_id: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Planned:
    """A job of a study, with the config that it makes."""

    study: Study
    job: Job
    config: Config
    key: str
    """Equal for jobs that one run can serve. A job that measures time is served by a run that was
    alone on this machine; one that reads runs by a run of the same words."""

    @property
    def seconds(self) -> float:
        """What it is expected to take."""
        return estimate.seconds(self.study.name, self.job.label)


def _seconds(items: Sequence[Planned]) -> list[float]:
    return [item.seconds for item in items]


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
    """By key."""
    _families: dict[str, Family] = field(default_factory=dict)
    _errors: dict[str, Failure] = field(default_factory=dict)
    """By key."""
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
            later: dict[str, tuple[Job, ...]] = {}
            for study in studies:
                if study.then is not None and study.name not in self.failures:
                    with self._guarded(study):
                        later[study.name] = study.then(results[study.name])
            then = [study for study in studies if study.name in later]
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
        asked: dict[str, list[Job]] = {}
        planned: dict[str, list[Planned]] = {}
        for study in studies:
            with self._guarded(study):
                require_varied(study, jobs[study.name], study.words(self.extra))
                asked[study.name] = [
                    study.with_overrides(job, self.extra) for job in jobs[study.name]
                ]
        compose_ahead((job.overrides for row in asked.values() for job in row), self.parallel)
        for study in studies:
            if study.name in asked:
                with self._guarded(study):
                    planned[study.name] = self._plan(study, asked[study.name])
        every = [item for plan in planned.values() for item in plan]
        self._find(every)
        unique: dict[str, Planned] = {}
        for item in every:
            unique.setdefault(item.key, item)
        todo = [item for key, item in unique.items() if key not in self._records]
        if every:
            print(f"{len(todo)} jobs to run, {len(unique) - len(todo)} are finished", flush=True)
        self._make(todo)
        for study in studies:
            plan = planned.get(study.name, [])
            failed = [self._errors[x.key] for x in plan if x.key in self._errors]
            if failed:
                self.failures.setdefault(study.name, failed[0])
                continue
            self._adopt(study, plan)
            for item in plan:
                record = self._records[item.key]
                results[study.name].setdefault(item.job.label, []).append(record)

    @contextlib.contextmanager
    def _guarded(self, study: Study) -> Iterator[None]:
        """Keep what stops one study from stopping the others."""
        try:
            yield
        except Exception as error:
            line, code = explain(error)
            line = line or f"{type(error).__name__}: {first_line(error)}"
            self.failures[study.name] = Failure(line, code)

    def _plan(self, study: Study, jobs: Sequence[Job]) -> list[Planned]:
        """Jobs with the overrides of the command, and what they make."""
        plan = []
        for job in jobs:
            config = composed(job.overrides)
            corpus: str = build("data", config.data).fingerprint()
            key = fingerprint(resolved(config), corpus)
            if job.alone:
                key = f"alone on {platform.node()}: {key}"
            plan.append(Planned(study, job, config, key))
        return plan

    def _find(self, planned: Sequence[Planned]) -> None:
        """Take the runs that finished before."""
        if self.rerun or not planned:
            return
        tracking = planned[0].config.tracking
        assert isinstance(tracking, MLflowConfig)
        place = Path(tracking.directory)
        client = connect(place)
        runs = all_finished(client, experiment_id(client, place, tracking.experiment))
        known = {
            value: run
            for run in runs
            for tag, value in run.data.tags.items()
            if tag == FINGERPRINT or tag.startswith(KEY)
        }
        for item in planned:
            if item.key in known:
                self._records[item.key] = Record(client, known[item.key])

    def _make(self, todo: Sequence[Planned]) -> None:
        """Run jobs side by side, the longest first, then those that measure time, one by one."""
        outcomes: list[str] = []
        beside = [item for item in todo if not item.job.alone]
        beside.sort(key=lambda item: -item.seconds)
        alone = [item for item in todo if item.job.alone]
        expected = estimate.total(_seconds(beside), _seconds(alone), self.parallel)
        if todo and estimate.measured():
            print(f"about {estimate.duration(expected)} on the machine of experiments/seconds.json")
        clock = estimate.Clock(expected, len(todo))
        while beside:  # those that another process runs are asked for again after the others
            beside = self._make_group(beside, self.parallel, outcomes, clock)
            if beside:
                time.sleep(sweep.POLL_SECONDS)
        self._make_group(alone, 1, outcomes, clock)
        if todo:
            print(f"{len(todo)} jobs: {sweep.counted(outcomes)}", flush=True)

    def _make_group(
        self,
        group: Sequence[Planned],
        workers: int,
        outcomes: list[str],
        clock: estimate.Clock,
    ) -> list[Planned]:
        """Run jobs, ``workers`` at a time, and note how each ended; those run elsewhere."""
        ended = Parallel(n_jobs=workers, return_as="generator_unordered")(
            delayed(_run)(item, index, self._family(item).run_id, not self.rerun)
            for index, item in enumerate(group)
        )
        elsewhere = []
        for place, outcome, run_id, failure in ended:
            item = group[place]
            if outcome == "elsewhere":
                elsewhere.append(item)
                continue
            outcomes.append(outcome)
            left = clock.left(item.seconds / workers)
            print(
                f"  {len(outcomes)}/{clock.jobs} {item.study.name}: {item.job.label} "
                f"({time.monotonic() - self._started:.0f} s, about {estimate.duration(left)} left)",
                flush=True,
            )
            if failure is not None:
                self._errors[item.key] = failure
            else:
                client = self._family(item).client
                tag = KEY + hashlib.sha256(item.key.encode()).hexdigest()
                client.set_tag(run_id, tag, item.key)
                self._records[item.key] = Record(client, client.get_run(run_id))
        return elsewhere

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
                reuse(family.client, family.run_id, self._records[item.key].run)


def _run(item: Planned, index: int, parent: str, reuse: bool) -> Ended:
    """One job, in a worker process.

    What it prints goes to log.txt in its run directory. A job that measures time begins anew: a run
    that was cut off was not measured as a whole.
    """
    study, job = item.study.name, item.job
    places: Any = {"parent": parent, "study": study, "label": job.label}
    config = replace(item.config, tracking=replace(item.config.tracking, **places))
    stamp = f"{time.strftime('%Y-%m-%d/%H-%M-%S')}-{time.time_ns() % 10**9:09d}"
    directory = HOME / "outputs" / "studies" / f"{stamp}-{study}-{index}-{os.getpid()}"
    directory.mkdir(parents=True)
    log_path = directory / "log.txt"
    with log_path.open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        try:
            overrides = [*job.overrides, "threads=1"]
            result = dispatch(config, directory, overrides, reuse=reuse and not job.alone)
            outcome = sweep.outcome(result)
            if outcome == "elsewhere":  # it is asked for again, each time in a folder of its own
                shutil.rmtree(directory)
            return Ended(index, outcome, str(result["run_id"]))
        except Exception as error:
            log.write(redacted(traceback.format_exc()))
            line, code = explain(error)
            reason = line or f"{type(error).__name__}: {first_line(error)}; see {log_path}"
            failure = Failure(f"{job.label}: {reason}", code if line else FAILED)
            return Ended(index, "failed", "", failure)


def require_varied(study: Study, jobs: Sequence[Job], words: Sequence[str]) -> None:
    """Raise ``Refused`` for an override that would make jobs alike, or change what the answers of
    the study take as given.

    Jobs are compared by what they compose to. Those that measure time are a group of their own.
    """
    for word in words:
        key = word.lstrip("+~").partition("=")[0].replace("/", ".")
        require(
            key not in study.constants,
            f"{word} sets {key}, which study {study.name} needs as it is: leave it out, or leave "
            "the study out with STUDIES=",
        )
        for alone in (False, True):
            values = {
                str(composed_value(study.with_overrides(job, places(words)), key))
                for job in jobs
                if job.alone == alone and not (job.fixed or job.reads_runs)
            }
            require(
                len(values) < 2,
                f"{word} sets {key}, which study {study.name} varies: leave it out, or leave the "
                "study out with STUDIES=",
            )


def composed_value(job: Job, key: str) -> object:
    """The value of a key, or the name of what a group selects, in the config of a job."""
    values = flat(composed(job.overrides))
    return values.get(key, values.get(f"{key}.name"))


def sections(study: Study, results: Results) -> list[Section]:
    """The sections of a study. One that cannot be made has the reason in place of its answer."""
    found = []
    jobs = [(label, record) for label, records in results.items() for record in records]
    for question in study.questions:
        section = _section(question)
        section.jobs = jobs
        try:
            section.answer = question.answer(results)
        except Exception as error:  # whatever its numbers did to it, the others are shown
            section.failure = f"{type(error).__name__}: {first_line(error)}"
        found.append(section)
    return found


def _section(question: Question, failure: str = "") -> Section:
    """A section without its answer."""
    return Section(
        question.name,
        question.title,
        question.question,
        None,
        failure,
        question.lab,
        question.first,
    )


def failed_sections(study: Study, failure: Failure) -> list[Section]:
    """The sections of a study without results: the reason in place of each."""
    return [_section(each, failure.reason) for each in study.questions]
