"""Question 6 of the lab: how do the training losses of RNN and LSTM move, and why?

The runs are those of ``cells``.
"""

from __future__ import annotations

import statistics

from experiments import cells, study
from experiments.study import CELLS, Column, Question, Results, Study
from unroll.report.page import Answer, sentence, shown
from unroll.report.runs import Record
from unroll.report.verdict import verdict

LOSS = "train/loss"


def answer(results: Results) -> Answer:
    early, end, norm, train, valid = (
        study.measures(results, CELLS, figure)
        for figure in (_early, _end, _largest_norm, "train/epoch_loss", "valid/loss")
    )
    pair = ("RNN", "LSTM")

    def compared(found: dict, better: str = "lower", form: str = ".2f") -> object:  # type: ignore[type-arg]
        return verdict(pair, found["RNN"], found["LSTM"], better, form)

    return Answer(
        [
            sentence(
                "The training loss of the RNN is {} nats a tenth of the way and {} nats at the "
                "end, that of the LSTM {} and {}.",
                *(shown(found[cell], ".2f") for cell in pair for found in (early, end)),
            ),
            sentence("A tenth of the way, {}. At the end, {}.", compared(early), compared(end)),
            sentence(
                "Largest gradient norm before clipping over all steps: {}. The gates of an LSTM "
                "start half open and have to be learned; the RNN overwrites its whole state at "
                "each step.",
                compared(norm, "neither"),
            ),
            sentence(
                "Validation loss compared with the training loss of the last whole epoch: for the "
                "RNN, {}; for the LSTM, {}. The two are not the same measurement: the training "
                "loss is a mean over the epoch with dropout on, the validation loss is taken at "
                "its end with dropout off.",
                *(
                    verdict(("validation", "training"), valid[cell], train[cell], "neither", ".2f")
                    for cell in pair
                ),
            ),
        ],
        [
            study.drawn_curves(
                "training_curves",
                "Training loss and gradient norm, a line for each seed.",
                results,
                CELLS,
                {"training loss (nats)": LOSS, "largest gradient norm": "grad_norm_max"},
            ),
            study.table(
                "cell",
                results,
                CELLS,
                [
                    Column("loss a tenth of the way", _early, ".3f"),
                    Column("loss at the end", _end, ".3f"),
                    Column("training loss, last whole epoch", "train/epoch_loss", ".3f"),
                    Column("validation loss", "valid/loss", ".3f"),
                    Column("largest gradient norm", _largest_norm, ".2f"),
                ],
                "Nats per token. The end is the mean of the last five points.",
            ),
        ],
    )


def _early(record: Record) -> float:
    points = record.curve(LOSS)
    return points[len(points) // 10][1]


def _end(record: Record) -> float:
    return statistics.fmean(value for _, value in record.curve(LOSS)[-5:])


def _largest_norm(record: Record) -> float:
    return max(value for _, value in record.curve("grad_norm_max"))


STUDY = Study(
    "training_curves",
    cells.JOBS,
    (
        Question(
            "training_curves",
            "How the losses move",
            "How do the RNN's and the LSTM's training losses move, and why?",
            answer,
            lab=6,
        ),
    ),
)
