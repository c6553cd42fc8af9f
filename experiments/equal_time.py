"""Which model to take for a given wait: test bits per character against seconds of training.

Each network is trained for one epoch, for two, and for those of ``models``. Seconds are the targets
learned, divided by the speed of the same model in jobs that ran alone on one thread; validation and
loading are left out.
"""

from __future__ import annotations

import statistics

from experiments import models, speed, study
from experiments.models import NEURAL, NGRAM
from experiments.study import BITS, Question, Results, Study
from unroll.report import plots
from unroll.report.figures import Points
from unroll.report.page import Answer, number, sentence
from unroll.report.plots import Panel
from unroll.report.runs import Measured, measured
from unroll.report.verdict import best, chosen, ranking

COUNTED = {NGRAM: models.COUNTED[NGRAM]}
EVERY = (*NEURAL, NGRAM)
SHORT = {
    (name, epochs): f"{name}, {words}"
    for name in NEURAL
    for epochs, words in {1: "one epoch", 2: "two epochs"}.items()
}
TRAININGS = {
    name: [*(label for (model, _), label in SHORT.items() if model == name), name] for name in EVERY
}
"""The labels of the trainings of each model, from the shortest to the longest."""
MODEL_OF = {label: name for name, labels in TRAININGS.items() for label in labels}
WAITS = 5
"""How many waits are compared: from where each model has a training that ended, to where all have
ended."""


def seconds_of(results: Results, speeds: dict[str, Measured]) -> dict[str, float]:
    """What each training takes: its targets divided by the median speed of its model."""
    return {
        label: results[label][0].result()["tokens"] / statistics.median(speeds[name].values)
        for label, name in MODEL_OF.items()
    }


def waits_of(seconds: dict[str, float]) -> list[float]:
    """The waits that are compared, each longer than the one before by the same factor."""
    first = max(seconds[labels[0]] for labels in TRAININGS.values())
    longest = max(seconds.values())
    steps = WAITS - 1
    return [*(first * (longest / first) ** (step / steps) for step in range(steps)), longest]


def within(wait: float, seconds: dict[str, float]) -> dict[str, str]:
    """The longest training of each model that ends within a wait."""
    return {
        name: [label for label in labels if seconds[label] <= wait][-1]
        for name, labels in TRAININGS.items()
    }


def answer(results: Results) -> Answer:
    speeds = speed.speeds(results, EVERY)
    runs = [run for measure in speeds.values() for run in measure.runs]
    seconds = seconds_of(results, speeds)
    waits = waits_of(seconds)
    bits = {
        label: measured(results[label], BITS.figure, exact=label == NGRAM) for label in MODEL_OF
    }
    reached = {
        wait: {name: bits[label] for name, label in within(wait, seconds).items()} for wait in waits
    }

    choices = sentence(
        "Test bits per character choose, with the longest training of each model that ends within "
        "so many computed seconds: {}.",
        study.joined(
            sentence("{}: {}", number(wait, runs, ",.1f"), chosen(best(found), found))
            for wait, found in reached.items()
        ),
    )
    return Answer(
        [choices]
        + [
            sentence(
                "Within {} computed seconds, test bits per character: {}",
                number(wait, runs, ",.1f"),
                ranking(reached[wait], form=".3f"),
            )
            for wait in (waits[0], waits[-1])
        ],
        [
            plots.curves(
                "equal_time",
                "Test bits per character against seconds of training: targets learned, divided by "
                "the speed on one thread, without validation and loading. Each mark is a training "
                "of its own, whose learning rate reaches zero at its end; a line joins those of "
                "one seed. Trainings of other lengths were not made. The 5-gram is counted once.",
                [
                    Panel(
                        "computed seconds (log scale)",
                        "test bits per character",
                        {
                            name: lines_by_seed(
                                [seconds[label] for label in labels],
                                [bits[label].values for label in labels],
                            )
                            for name, labels in TRAININGS.items()
                        },
                        log_x=True,
                    )
                ],
            ),
            study.table(
                "training",
                results,
                MODEL_OF,
                [study.EPOCHS, study.PERPLEXITY, BITS],
                "The learning rate of a model was chosen once, not for each of its trainings. "
                + speed.CAPTION,
                {
                    "computed seconds": lambda label: number(
                        seconds[label], [run.run_id for run in results[label]], ",.2f"
                    ),
                    speed.HEAD: lambda label: speed.pace(results[speed.label(MODEL_OF[label])]),
                },
            ),
        ],
        found=choices,
    )


def lines_by_seed(places: list[float], values: list[tuple[float, ...]]) -> list[Points]:
    """A line for each seed through the trainings of a model."""
    return [list(zip(places, row, strict=True)) for row in zip(*values, strict=True)]


STUDY = Study(
    "equal_time",
    (
        *models.STUDY.jobs,
        *study.grid(
            study.PROFILE,
            {
                label: f"{models.TUNED[name]} training.epochs={epochs}"
                for (name, epochs), label in SHORT.items()
            },
        ),
        *speed.timed(study.PROFILE, models.TUNED),
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
