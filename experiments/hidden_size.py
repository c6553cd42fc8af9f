"""Cell by hidden size: what width gives, counted in units and in parameters."""

from __future__ import annotations

import math
import statistics

from experiments import cells, study
from experiments.study import CELLS, TEST, TUNED, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, sentence
from unroll.report.runs import Measured
from unroll.report.verdict import verdict

SIZES = (32, 64, 128)
DROPOUT = dict(zip(SIZES, (0.0, 0.05, 0.1), strict=True))
"""A wider model can be dropped more of; at 128 units it is that of the other studies."""
NONE = Measured((0.0,), exact=True)
LABELS = {(cell, size): f"{cell}, {size} units" for cell in CELLS for size in SIZES}


def slope(results: Results, cell: str) -> Measured:
    """Change of the test perplexity when the hidden size doubles: the slope of a line through the
    sizes, fitted for each seed by least squares."""
    runs = [results[LABELS[cell, size]] for size in SIZES]
    doublings = [math.log2(size) for size in SIZES]
    values = tuple(
        statistics.linear_regression(doublings, [run.value(TEST) for run in row]).slope
        for row in zip(*runs, strict=True)
    )
    return Measured(values, tuple(run.run_id for row in runs for run in row))


def answer(results: Results) -> Answer:
    test = study.measures(results, LABELS.values(), TEST)
    small, large = SIZES[0], SIZES[-1]
    ends = [(LABELS[cell, large], LABELS[cell, small]) for cell in CELLS]
    compared = study.joined(verdict((a, b), test[a], test[b]) for a, b in ends)
    return Answer(
        [
            sentence("{} units compared with {}, test perplexity: {}.", large, small, compared),
            sentence(
                "Change of the test perplexity when the width doubles, the slope of a line fitted "
                "for each seed, compared with none: {}.",
                study.joined(
                    verdict((cell, "no change"), slope(results, cell), NONE) for cell in CELLS
                ),
            ),
        ],
        [
            plots.lines(
                "hidden_size_lines",
                "Test perplexity against hidden size; dropout "
                f"{', '.join(map(str, DROPOUT.values()))}.",
                "hidden size (units)",
                SIZES,
                "test perplexity",
                {cell: [test[LABELS[cell, size]] for size in SIZES] for cell in CELLS},
                log_x=True,
            ),
            plots.scatter(
                "hidden_size_parameters",
                "Test perplexity against parameters, a mark for each run.",
                "parameters (millions)",
                "test perplexity",
                {
                    cell: [
                        (run.value("model.parameters") / 1e6, run.value(TEST))
                        for size in SIZES
                        for run in results[LABELS[cell, size]]
                    ]
                    for cell in CELLS
                },
            ),
            plots.heat_map(
                "hidden_size_map",
                "Mean test perplexity by cell and hidden size.",
                "test perplexity",
                ("cell", list(CELLS)),
                ("hidden size (units)", [str(size) for size in SIZES]),
                [[test[LABELS[cell, size]].mean for size in SIZES] for cell in CELLS],
                ".1f",
            ),
            study.table(
                "cell",
                results,
                results,
                [study.PERPLEXITY, study.PARAMETERS],
                "Dropout is set by the width, as the figure says; the learning rate was chosen at "
                "128 units.",
            ),
        ],
        found=sentence(
            "test perplexity, {} units compared with {}: {}.",
            large,
            small,
            compared,
        ),
    )


STUDY = Study(
    "hidden_size",
    study.grid(
        cells.BASE,
        {
            label: f"{TUNED[cell]} model.hidden_size={size} training.dropout={DROPOUT[size]}"
            for (cell, size), label in LABELS.items()
        },
    ),
    (
        Question(
            "hidden_size",
            "Hidden size",
            "How does perplexity change with the width of a cell?",
            answer,
        ),
    ),
)
