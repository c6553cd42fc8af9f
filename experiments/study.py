"""A study: the runs that answer one or more questions of the report, and how to answer them."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from unroll.report import plots
from unroll.report.page import Answer, Drawing, Table, Text, linked, number, shown
from unroll.report.plots import Panel
from unroll.report.runs import Curve, Figure, Measured, Record, measured
from unroll.report.verdict import UNDECIDED, verdict

SEEDS = (1, 2, 3)
MORE_SEEDS = (4, 5)
"""Where three seeds do not tell two models apart."""
FULL = bool(os.environ.get("FULL"))
CHOSEN = "study" if FULL else "study/news"
"""The folder of the overlays that `make tune` wrote for the profile."""


def tuned(model: str) -> str:
    """A model as `make tune` has set it."""
    return f"experiment={CHOSEN}/{model}"


CELLS = {"RNN": "model=rnn", "LSTM": "model=lstm", "GRU": "model=gru"}
TUNED = {cell: tuned(cell.lower()) for cell in CELLS}
CORPUS = "data=wikipedia" if FULL else "data=lee_news"
"""The text of the profile: six hundred thousand subwords, which a training reads six times, or a
seventh of that, four times."""
TOKENIZER = f"data/tokenizer=subword data.tokenizer.size={4000 if FULL else 2000}"
PROFILE = f"{CORPUS} {TOKENIZER}"
TEST = "test/perplexity"
LOSSES = {"training loss (nats)": "train/loss", "validation loss (nats)": "valid/loss"}

Results = dict[str, list[Record]]
"""Runs by label, in the order of the jobs."""


@dataclass(frozen=True)
class Job:
    """One run of a study. Jobs that differ only in the seed share a label."""

    label: str
    overrides: tuple[str, ...]
    alone: bool = False
    """Whether it measures time, so that no other job may run beside it."""
    fixed: bool = False
    """Whether the overrides of the command leave it alone."""

    @property
    def reads_runs(self) -> bool:
        """Whether model and data come from runs that exist."""
        return any(word.startswith(("run=", "task.runs=")) for word in self.overrides)


def perplexity_of(way: str | None) -> str:
    """The test perplexity with what adapts, such as ``cache_and_mixture``; None: with nothing."""
    return TEST if way is None else f"test/{way}/perplexity"


def grid(
    base: str, variants: Mapping[str, str], seeds: Iterable[int] = SEEDS, alone: bool = False
) -> tuple[Job, ...]:
    """A job for each variant and seed; ``base`` and the variants are overrides with spaces."""
    return tuple(
        Job(label, (*base.split(), *words.split(), f"seed={seed}"), alone)
        for label, words in variants.items()
        for seed in seeds
    )


@dataclass(frozen=True)
class Question:
    """A section of the report."""

    name: str
    title: str
    question: str
    answer: Callable[[Results], Answer]
    lab: int | None = None
    """The number of the lab's question that it answers."""
    first: bool = False
    """Whether it stands before the lab's questions."""


@dataclass(frozen=True)
class Study:
    """What ``make reproduce`` runs under one name."""

    name: str
    jobs: tuple[Job, ...]
    questions: tuple[Question, ...]
    then: Callable[[Results], tuple[Job, ...]] | None = None
    """Jobs that need the runs of the first ones."""
    own_data: bool = False
    """Whether the study brings its own data: overrides meant for other studies do not apply."""
    constants: tuple[str, ...] = ()
    """Keys that its answers take as they are, so that an override of them is refused."""
    corpus: str | None = None
    """The corpus without which the study is skipped: an option of ``data``. The environment
    variable of that name in capitals gives its path."""

    def missing(self) -> str | None:
        """What is missing and how to give it, or None where nothing is."""
        if self.corpus is None or os.environ.get(self.corpus.upper()):
            return None
        return f"needs a text: make reproduce {self.corpus.upper()}=PATH"

    def words(self, extra: Sequence[str]) -> list[str]:
        """The overrides that every job gets, out of those that the command gave."""
        if self.corpus is None and not self.own_data:
            return list(extra)
        path = [] if self.corpus is None else [f"data.path={os.environ[self.corpus.upper()]}"]
        return [*places(extra), *path]

    def with_overrides(self, job: Job, extra: Sequence[str]) -> Job:
        """A job with the overrides of the command, which win over its own."""
        words = self.words(extra)
        if job.fixed or job.reads_runs:
            words = places(words)
        return replace(job, overrides=(*job.overrides, *words))


def places(words: Iterable[str]) -> list[str]:
    """The overrides that say where things are stored, not what is run."""
    kept = ("tracking.directory=", "tracking.experiment=", "data.cache=")
    return [word for word in words if word.startswith(kept)]


@dataclass(frozen=True)
class Column:
    """A column of a table: what is read from a run, and how it is written."""

    head: str
    figure: Figure
    """A param, a metric, or a function of a run."""
    form: str = ".1f"
    scale: float = 1.0


PARAMETERS = Column("parameters", "model.parameters", ",.0f")
PERPLEXITY = Column("test perplexity", TEST)
EPOCHS = Column("epochs", lambda record: len(record.curve("train/epoch_loss")), ".0f")
LAST_GAIN = Column("gain of the last epoch (%)", lambda record: _last_gain(record), ".1f")
"""How far a training is from its plateau."""
BITS = Column("bits per character", "test/bits_per_character", ".3f")


def _last_gain(record: Record) -> float:
    """By how much the last epoch brought the validation perplexity down, in per cent."""
    values = [value for _, value in record.curve("valid/perplexity")]
    return 100 * (1 - values[-1] / values[-2]) if len(values) > 1 else math.nan


def table(
    head: str,
    results: Results,
    labels: Iterable[str],
    columns: Sequence[Column],
    caption: str = "",
    more: Mapping[str, Callable[[str], object]] | None = None,
) -> Table:
    """A row for each label; ``more`` adds columns that are made from the label."""
    rows = {label: results[label] for label in labels}
    more = more or {}
    cells = [
        [
            label,
            *(shown(measured(runs, col.figure, col.scale), col.form) for col in columns),
            *(make(label) for make in more.values()),
        ]
        for label, runs in rows.items()
    ]
    counts = " or ".join(map(str, sorted({len(runs) for runs in rows.values()})))
    caption = f"{caption} Mean ± standard deviation; runs for each row: {counts}.".strip()
    return Table([head, *(column.head for column in columns), *more], cells, caption)


def measures(
    results: Results, labels: Iterable[str], key: Figure, scale: float = 1.0
) -> dict[str, Measured]:
    """A figure of each of these labels."""
    return {label: measured(results[label], key, scale) for label in labels}


def listed(found: Mapping[str, Measured], form: str = ".1f") -> Markup:
    """Figures by name, in one line."""
    return Markup(", ").join(
        Markup("{} {}").format(name, shown(measure, form)) for name, measure in found.items()
    )


def joined(clauses: Iterable[object]) -> Markup:
    """Clauses with semicolons between them."""
    return Markup("; ").join(Markup("{}").format(clause) for clause in clauses)


def more_seeds(
    results: Results, base: str, variants: Mapping[str, str], figure: Figure
) -> tuple[Job, ...]:
    """Two more seeds of every variant, where the seeds so far do not tell all of them apart."""
    found = measures(results, variants, figure)
    near = any(
        verdict((a, b), found[a], found[b]).relation == UNDECIDED
        for a, b in itertools.combinations(variants, 2)
    )
    return grid(base, variants, MORE_SEEDS) if near else ()


def curves_of(results: Results, labels: Iterable[str], key: str) -> dict[str, list[Curve]]:
    """The curves of a metric by label, one for each run."""
    return {label: [record.curve(key) for record in results[label]] for label in labels}


def drawn_curves(
    name: str,
    caption: str,
    results: Results,
    labels: Iterable[str],
    metrics: Mapping[str, str],
    log: Sequence[str] = (),
) -> Drawing:
    """Metrics against optimizer steps, a line for each run: ``metrics`` has the name of a y axis
    and its metric, ``log`` the names of logarithmic axes."""
    labels = list(labels)
    panels = [
        Panel("optimizer steps", y, curves_of(results, labels, metric), log_y=y in log)
        for y, metric in metrics.items()
    ]
    return plots.curves(name, caption, panels)


def texts(results: Results, labels: Iterable[str], count: int) -> Text:
    """The first samples of the first run of each label."""
    return Text(
        [
            (linked(label, [results[label][0].run_id]), sample["prefix"], sample["text"])
            for label in labels
            for sample in results[label][0].result()["samples"][:count]
        ]
    )


def setting(records: Sequence[Record], key: str) -> str:
    """A param as the runs have it, for a caption."""
    return records[0].params[key]


def param(records: Sequence[Record], key: str, form: str = ",.0f") -> Markup:
    """A param or metric of the first of repeated runs, linked to them."""
    return number(records[0].value(key), [record.run_id for record in records], form)
