"""Which model to take for a given wait: validation perplexity against seconds of training.

The runs are those of ``models``. Their seconds are the targets learned so far, divided by the speed
of the same model in jobs that ran alone on one thread; validation and loading are left out.
"""

from __future__ import annotations

import math

from experiments import models, speed, study
from experiments.models import NEURAL, NGRAM, TRANSFORMER
from experiments.study import Question, Results, Study
from unroll.report import plots
from unroll.report.figures import Points
from unroll.report.page import Answer, Table, linked, number, sentence, shown, written
from unroll.report.plots import Panel
from unroll.report.runs import Measured, Record
from unroll.report.verdict import best, ranking

VALID = "valid/perplexity"
COUNTED = {NGRAM: models.COUNTED[NGRAM]}
EVERY = (*NEURAL, NGRAM)
WAITS = 5
"""How many waits the table has, from the first validation of the slowest model to its last one."""


def learned(record: Record, name: str, step: float) -> float:
    """Targets learned up to an optimizer step."""
    if name == NGRAM:
        return float(record.result()["tokens"])
    size = record.value("data.batching.batch_size") * record.value("data.batching.length")
    return step * size


def timed_curve(record: Record, name: str, rate: float) -> Points:
    """Seconds and validation perplexity at each validation."""
    return [(learned(record, name, step) / rate, value) for step, value in record.curve(VALID)]


def best_by(curve: Points, seconds: float) -> float:
    """The best perplexity after that wait; NaN before the first validation."""
    return min((value for second, value in curve if second <= seconds), default=math.nan)


def answer(results: Results) -> Answer:
    rates = speed.speeds(results, EVERY)
    curves = {
        name: [timed_curve(record, name, rates[name].mean) for record in results[name]]
        for name in EVERY
    }
    known = [curve for name in NEURAL for curve in curves[name]]
    first = max((curve[0][0] for curve in known if curve), default=math.nan)
    longest = max((curve[-1][0] for curve in known if curve), default=math.nan)
    between = [(longest / first) ** (step / (WAITS - 1)) for step in range(1, WAITS - 1)]
    waits = [first, *(first * factor for factor in between), longest]

    def after(name: str, wait: float) -> Measured:
        values = tuple(best_by(curve, wait) for curve in curves[name])
        return Measured(values, tuple(run.run_id for run in results[name]), exact=name == NGRAM)

    found = [{name: after(name, wait) for name in EVERY} for wait in waits]
    links = rates["LSTM"].runs
    choices = sentence(
        "Validation perplexity chooses, after so many seconds, with what trainings that had ended "
        "by then had reached: {}.",
        study.joined(
            sentence(
                "{}: {}", number(wait, links, ".0f"), linked(" or ".join(best(reached)), links)
            )
            for wait, reached in zip(waits, found, strict=True)
        ),
    )
    return Answer(
        [choices]
        + [
            sentence(
                "{} seconds after the start, computed from targets and speed on one thread, what "
                "each had reached in validation perplexity by then: {}",
                number(wait, links, ".0f"),
                ranking(reached),
            )
            for wait, reached in ((waits[0], found[0]), (waits[-1], found[-1]))
        ],
        [
            plots.curves(
                "equal_time",
                "Validation perplexity against seconds of training on one thread, a line for each "
                "seed; the 5-gram is counted once. A line ends with its training, whose learning "
                "rate reaches zero there: trainings planned for a longer or a shorter wait were "
                "not made.",
                [
                    Panel(
                        "seconds (log scale)",
                        "validation perplexity (log scale)",
                        curves,
                        log_x=True,
                        log_y=True,
                    )
                ],
            ),
            Table(
                [
                    "model",
                    *(f"after {written(wait, '.0f')} s" for wait in waits),
                    "targets a second",
                ],
                [
                    [
                        name,
                        *(shown(reached[name]) for reached in found),
                        speed.pace(results[speed.label(name)]),
                    ]
                    for name in EVERY
                ],
                "The minimum of the validation perplexity at the validations until then, mean ± "
                "standard deviation "
                "over seeds. " + speed.CAPTION,
            ),
        ],
        found=choices,
    )


STUDY = Study(
    "equal_time",
    (
        *models.STUDY.jobs,
        *speed.CELL_JOBS,
        *speed.timed(study.PROFILE, {TRANSFORMER: study.tuned("transformer")}),
        *speed.timed(f"{study.PROFILE} model=ngram", COUNTED, seeds=(1,)),
    ),
    (
        Question(
            "equal_time",
            "Equal time",
            "Which model is worth taking for a given wait?",
            answer,
        ),
    ),
)
