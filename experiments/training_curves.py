"""Question 6 of the lab: how do the training losses of RNN and LSTM move, and why?

The cells as ``cells`` trains them, on fewer articles; the LSTM with its forget gate open at the
start; and both without dropout, past the end of learning.
"""

from __future__ import annotations

import math
import statistics

from experiments import cells, study
from experiments.study import TUNED, Column, Question, Results, Study
from unroll.report import plots
from unroll.report.figures import Points
from unroll.report.page import Answer, sentence, shown
from unroll.report.plots import Panel
from unroll.report.runs import Measured, Record, measured
from unroll.report.verdict import Verdict, verdict

LOSS = "train/loss"
PAIR = ("RNN", "LSTM")
OPEN = "LSTM, forget gate open"
COUNTS = "counts of single tokens"
FREE = {cell: f"{cell} without dropout" for cell in PAIR}
LIMIT = 30 if study.FULL else 100
"""Articles; fewer of them are overfitted sooner."""
BASE = f"{cells.BASE} data.limit={LIMIT}"
PART = f", on the first {LIMIT} articles"
PAST = "training.dropout=0 training.patience=3 training.epochs=12 optimizer/schedule=constant"
"""Three epochs past the best one, at one learning rate."""


def answer(results: Results) -> Answer:
    early, end, norm, train, valid = (
        study.measures(results, [*PAIR, OPEN], figure)
        for figure in (_early, _end, _largest_norm, "train/epoch_loss", "valid/loss")
    )
    best, last = (
        study.measures(results, [*PAIR, *FREE.values()], figure)
        for figure in (_best_valid, "valid/loss")
    )

    counted = measured(results[COUNTS], LOSS, exact=True)

    def blind(run: Record) -> float:
        return math.log(run.value("data.vocabulary_size"))

    def without_context(run: Record) -> float:
        return 100 * (blind(run) - counted.mean) / (blind(run) - _end(run))

    def compared(found: dict[str, Measured], better: str = "lower") -> Verdict:
        return verdict(PAIR, found["RNN"], found["LSTM"], better, ".2f")

    return Answer(
        [
            sentence(
                "The training loss of the RNN is {} nats a tenth of the way and {} nats at the "
                f"end, that of the LSTM {{}} and {{}}{PART}.",
                *(shown(found[cell], ".2f") for cell in PAIR for found in (early, end)),
            ),
            sentence("A tenth of the way, {}. At the end, {}.", compared(early), compared(end)),
            sentence(
                "What there is to learn: a model that takes all {} tokens for equally likely has "
                "{} nats, and one that knows only how often each occurs {}. That first part, {}% "
                "of all that the LSTM learns in nats, needs no context; the rest does. A tenth of "
                "the way, compared with those counts: {}; {}. The learning rate climbs over the "
                "first 100 steps, and each cell has its own.",
                study.param(results["LSTM"], "data.vocabulary_size"),
                shown(measured(results["LSTM"], blind), ".2f"),
                shown(counted, ".2f"),
                shown(measured(results["LSTM"], without_context), ".0f"),
                *(verdict((cell, "the counts"), early[cell], counted, form=".2f") for cell in PAIR),
            ),
            sentence(
                "Why the cells may differ: an RNN overwrites its whole state at each step, an LSTM "
                "has gates, which start half open and have to be learned. If that held the "
                "LSTM back, a forget gate that is open at the start (bias 1) would put an LSTM in "
                "front of one whose gate starts half open. A tenth of the way, {}; at the end, {}. "
                "Only where the open gate is in front is this shown to play a part. No other "
                "reason was tested.",
                *(
                    verdict((OPEN, "LSTM"), found[OPEN], found["LSTM"], form=".2f")
                    for found in (early, end)
                ),
            ),
            sentence(
                "Largest gradient norm before clipping over all steps: {}.",
                compared(norm, "neither"),
            ),
            sentence(
                "Validation loss compared with the training loss of the last whole epoch: for the "
                "RNN, {}; for the LSTM, {}. The two are not the same measurement: the training "
                "loss is a mean over the epoch with dropout on, the validation loss is taken at "
                "its end with dropout off.",
                *(
                    verdict(("validation", "training"), valid[cell], train[cell], "neither", ".2f")
                    for cell in PAIR
                ),
            ),
            sentence(
                "Without dropout, at one learning rate and for up to twelve epochs, training "
                "three epochs past the minimum of the validation loss: that minimum and the last "
                "are {} and {} for the RNN, {} and {} for the LSTM. The minimum with dropout and a "
                "schedule compared with that without: for the RNN, {}; for the LSTM, {}. These "
                "trainings differ in dropout, in schedule and in epochs.",
                *(shown(found[FREE[cell]], ".2f") for cell in PAIR for found in (best, last)),
                *(
                    verdict(("with", "without"), best[cell], best[FREE[cell]], form=".2f")
                    for cell in PAIR
                ),
            ),
        ],
        [
            plots.curves(
                "training_curves_overfitting",
                "Mean training loss of each epoch, with dropout on where there is any, and "
                f"validation loss after it{PART}, a line for each seed.",
                [
                    Panel(
                        "epochs",
                        "nats per token",
                        {
                            kind: [_by_epoch(run, key) for run in results[label]]
                            for kind, key in (
                                ("training", "train/epoch_loss"),
                                ("validation", "valid/loss"),
                            )
                        },
                        label,
                    )
                    for label in (*PAIR, *FREE.values())
                ],
                columns=2,
                width=4.2,
            ),
            study.drawn_curves(
                "training_curves",
                f"Training loss and gradient norm{PART}, a line for each seed.",
                results,
                PAIR,
                {"training loss (nats)": LOSS, "largest gradient norm": "grad_norm_max"},
            ),
            study.table(
                "cell",
                results,
                [*PAIR, OPEN],
                [
                    Column("loss a tenth of the way", _early, ".3f"),
                    Column("loss at the end", _end, ".3f"),
                    Column("training loss, last whole epoch", "train/epoch_loss", ".3f"),
                    Column("validation loss", "valid/loss", ".3f"),
                    Column("largest gradient norm", _largest_norm, ".2f"),
                ],
                f"Nats per token{PART}. The end is the mean of the last five points.",
            ),
        ],
        found=sentence(
            f"training loss in nats{PART}, with dropout on, a tenth of the way: {{}}; at the end: "
            "{}; validation loss: {}.",
            compared(early),
            compared(end),
            compared(valid),
        ),
    )


def _best_valid(record: Record) -> float:
    return min(value for _, value in record.curve("valid/loss"))


def _by_epoch(record: Record, key: str) -> Points:
    return [(float(epoch), value) for epoch, (_, value) in enumerate(record.curve(key), 1)]


def _early(record: Record) -> float:
    points = record.curve(LOSS)
    return points[len(points) // 10][1]


def _end(record: Record) -> float:
    return statistics.fmean(value for _, value in record.curve(LOSS)[-5:])


def _largest_norm(record: Record) -> float:
    return max(value for _, value in record.curve("grad_norm_max"))


STUDY = Study(
    "training_curves",
    (
        *study.grid(BASE, {cell: TUNED[cell] for cell in PAIR}),
        *study.grid(f"{BASE} model=ngram", {COUNTS: "model.order=1"}, seeds=(1,)),
        *study.grid(BASE, {OPEN: f"{TUNED['LSTM']} model.forget_gate_bias=1"}),
        *study.grid(BASE, {label: f"{TUNED[cell]} {PAST}" for cell, label in FREE.items()}),
    ),
    (
        Question(
            "training_curves",
            "How the losses move",
            "How do the RNN's and the LSTM's training losses move, and why?",
            answer,
            lab=6,
        ),
    ),
    constants=("data.limit",),
)
