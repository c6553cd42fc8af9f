"""RNN, LSTM and GRU at the same widths: how they learn, how they score, what they write."""

from __future__ import annotations

from experiments import speed, study
from experiments.study import CELLS, TEST, TUNED, Column, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, sentence
from unroll.report.verdict import ranking

BASE = study.PROFILE
JOBS = study.grid(BASE, TUNED)


def answer(results: Results) -> Answer:
    test = study.measures(results, CELLS, TEST)
    return Answer(
        [
            sentence("Test perplexity at the same widths: {}", ranking(test)),
            sentence(
                "Targets learned a second on one thread: {}",
                ranking(speed.speeds(results, list(CELLS)), "higher", ",.0f"),
            ),
            sentence(
                "The models have {} (RNN), {} (LSTM) and {} (GRU) parameters, with embedding and "
                "softmax, which are the same for all three.",
                *(study.param(results[cell], "model.parameters") for cell in CELLS),
            ),
        ],
        [
            study.drawn_curves(
                "cells_loss",
                "Training and validation loss, a line for each seed.",
                results,
                CELLS,
                study.LOSSES,
            ),
            plots.bars(
                "cells_perplexity",
                "Test perplexity: a bar at the mean, a mark for each seed.",
                "cell",
                "test perplexity",
                test,
            ),
            study.table(
                "cell",
                results,
                CELLS,
                [
                    study.PERPLEXITY,
                    study.BITS,
                    Column("validation perplexity", "valid/perplexity"),
                    study.EPOCHS,
                    study.LAST_GAIN,
                    study.PARAMETERS,
                ],
                "Seeds 4 and 5 are run where seeds 1 to 3 do not tell all cells apart; "
                "other sections have seeds 1 to 3 of them. " + speed.CAPTION,
                {speed.HEAD: lambda cell: speed.pace(results[speed.label(cell)])},
            ),
            study.texts(results, CELLS, 2),
        ],
        found=sentence("test perplexity: {}", ranking(test)),
    )


STUDY = Study(
    "cells",
    (*JOBS, *speed.CELL_JOBS),
    (
        Question(
            "cells",
            "RNN, LSTM and GRU",
            "Which cell models text best at the same widths, and at what cost?",
            answer,
        ),
    ),
    then=lambda results: study.more_seeds(results, BASE, TUNED, TEST),
)
