"""Training speed: a few jobs that run alone, on one thread, and are timed step by step.

The figure of a run is the median over its optimizer steps after the warm-up. A speed on the page
comes from here, never from a job that ran beside others.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from experiments import study
from experiments.study import Job, Results
from unroll.report.page import number, written
from unroll.report.runs import Measured, Record, measured

SPEED = "speed/median"
STEPS = 60


def label(name: str) -> str:
    """The label of the jobs that time ``name``."""
    return f"speed of {name}"


def timed(
    base: str,
    variants: Mapping[str, str],
    steps: int = STEPS,
    seeds: Iterable[int] = study.SEEDS,
) -> tuple[Job, ...]:
    """Jobs that time so many optimizer steps of each variant, alone."""
    named = {label(name): words for name, words in variants.items()}
    brief = f"{base} training.max_steps={steps} sampling.length=1"
    return study.grid(brief, named, seeds, alone=True)


def speeds(results: Results, names: Sequence[str]) -> dict[str, Measured]:
    """Targets learned a second, a median for each run."""
    return {name: measured(results[label(name)], SPEED) for name in names}


def pace(records: Sequence[Record]) -> Markup:
    """The median over runs, with the quartiles over steps: ``7,405 (7,100 to 7,600)``."""
    median, low, high = (
        statistics.median(record.value(f"speed/{key}") for record in records)
        for key in ("median", "lower_quartile", "upper_quartile")
    )
    text = number(median, [record.run_id for record in records], ",.0f")
    ends = (written(end, ",.0f") for end in (low, high))
    return Markup("{} <small>({} to {})</small>").format(text, *ends)


CAPTION = (
    "Targets learned a second: median and quartiles over the optimizer steps after the warm-up, of "
    "jobs that ran alone on one thread."
)
HEAD = "targets a second"
CELL_JOBS = timed(study.PROFILE, study.TUNED)
