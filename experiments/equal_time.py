"""Which model to take for a given wait: test bits per character against seconds of training.

Each network is trained for one epoch, for two, and for those of ``models``. Seconds are the targets
learned, divided by the speed of the same model in jobs that ran alone on one thread; validation and
loading are left out.
"""

from __future__ import annotations

from experiments import models, speed, study
from experiments.models import NEURAL, NGRAM, TRANSFORMER
from experiments.study import Question, Results, Study
from unroll.report import plots
from unroll.report.figures import Points
from unroll.report.page import Answer, linked, number, sentence, shown
from unroll.report.plots import Panel
from unroll.report.runs import Measured, Record, measured
from unroll.report.verdict import best, ranking

COUNTED = {NGRAM: models.COUNTED[NGRAM]}
EVERY = (*NEURAL, NGRAM)
TUNED = {**study.TUNED, TRANSFORMER: study.tuned("transformer")}
BRIEF = {
    (name, epochs): f"{name}, {words}"
    for name in NEURAL
    for epochs, words in {1: "one epoch", 2: "two epochs"}.items()
}
BITS = "test/bits_per_character"
WAITS = 5
"""How many waits are compared: from where each model has a training that ended, to where all have
ended."""


def trainings(name: str) -> list[str]:
    """The labels of what a model was trained for, from the shortest to the longest."""
    return [label for (model, _), label in BRIEF.items() if model == name] + [name]


def targets(record: Record, label: str) -> float:
    """Targets learned to the end of a training; of a count, the tokens counted."""
    if label == NGRAM:
        return float(record.result()["tokens"])
    size = record.value("data.batching.batch_size") * record.value("data.batching.length")
    return record.curve("valid/perplexity")[-1][0] * size


def answer(results: Results) -> Answer:
    rates = speed.speeds(results, EVERY)
    seconds = {
        label: targets(results[label][0], label) / rates[name].mean
        for name in EVERY
        for label in trainings(name)
    }
    bits = {label: measured(results[label], BITS, exact=label == NGRAM) for label in seconds}
    first = max(seconds[trainings(name)[0]] for name in EVERY)
    longest = max(seconds.values())
    steps = WAITS - 1
    waits = [*(first * (longest / first) ** (step / steps) for step in range(steps)), longest]

    def after(wait: float) -> dict[str, Measured]:
        """What the longest training of each model that ended by then has reached."""
        ended = {
            name: [label for label in trainings(name) if seconds[label] <= wait] for name in EVERY
        }
        return {name: bits[labels[-1]] for name, labels in ended.items()}

    links = rates["LSTM"].runs
    choices = sentence(
        "Test bits per character choose, with the longest training of each model that ends within "
        "so many seconds: {}.",
        study.joined(
            sentence(
                "{}: {}",
                number(wait, links, ".0f"),
                linked(" or ".join(best(after(wait))), links),
            )
            for wait in waits
        ),
    )
    return Answer(
        [choices]
        + [
            sentence(
                "Within {} seconds, test bits per character: {}",
                number(wait, links, ".0f"),
                ranking(after(wait), form=".3f"),
            )
            for wait in (waits[0], waits[-1])
        ],
        [
            plots.curves(
                "equal_time",
                "Test bits per character against seconds of training on one thread. Each mark is a "
                "training of its own, whose learning rate reaches zero at its end; a line joins "
                "those of one seed. The 5-gram is counted once.",
                [
                    Panel(
                        "seconds (log scale)",
                        "test bits per character",
                        {name: lines(results, seconds, trainings(name)) for name in EVERY},
                        log_x=True,
                    )
                ],
            ),
            study.table(
                "training",
                results,
                seconds,
                [study.EPOCHS, study.PERPLEXITY],
                "Seconds are computed from targets and speed. " + speed.CAPTION,
                {
                    "test bits per character": lambda label: shown(bits[label], ".3f"),
                    "seconds": lambda label: number(
                        seconds[label], [run.run_id for run in results[label]], ",.0f"
                    ),
                    speed.HEAD: lambda label: speed.pace(results[speed.label(label.split(",")[0])]),
                },
            ),
        ],
        found=choices,
    )


def lines(results: Results, seconds: dict[str, float], labels: list[str]) -> list[Points]:
    """A line for each seed through the trainings of a model."""
    return [
        [(seconds[label], run.value(BITS)) for label, run in zip(labels, runs, strict=True)]
        for runs in zip(*(results[label] for label in labels), strict=True)
    ]


STUDY = Study(
    "equal_time",
    (
        *models.STUDY.jobs,
        *study.grid(
            study.PROFILE,
            {
                label: f"{TUNED[name]} training.epochs={epochs}"
                for (name, epochs), label in BRIEF.items()
            },
        ),
        *speed.CELL_JOBS,
        *speed.timed(study.PROFILE, {TRANSFORMER: TUNED[TRANSFORMER]}),
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
