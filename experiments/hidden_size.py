"""Cell by hidden size: what width gives, counted in units and in parameters."""

from __future__ import annotations

from experiments import cells, study
from experiments.study import CELLS, TEST, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, sentence
from unroll.report.verdict import verdict

SIZES = (64, 128, 256)
LABELS = {(cell, size): f"{cell}, {size} units" for cell in CELLS for size in SIZES}


def answer(results: Results) -> Answer:
    test = study.measures(results, LABELS.values(), TEST)
    small, large = SIZES[0], SIZES[-1]
    return Answer(
        [
            sentence(
                "{} units compared with {}, test perplexity: {}.",
                large,
                small,
                study.joined(
                    verdict(
                        (LABELS[cell, large], LABELS[cell, small]),
                        test[LABELS[cell, large]],
                        test[LABELS[cell, small]],
                    )
                    for cell in CELLS
                ),
            )
        ],
        [
            plots.lines(
                "hidden_size_lines",
                "Test perplexity against hidden size.",
                "hidden size (units)",
                SIZES,
                {
                    "test perplexity": {
                        cell: [test[LABELS[cell, size]] for size in SIZES] for cell in CELLS
                    }
                },
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
            study.table("cell", results, results, [study.PERPLEXITY, study.PARAMETERS]),
        ],
    )


STUDY = Study(
    "hidden_size",
    study.grid(
        cells.BASE,
        {
            label: f"{CELLS[cell]} model.hidden_size={size}"
            for (cell, size), label in LABELS.items()
        },
    ),
    (
        Question(
            "hidden_size",
            "Hidden size",
            "How does perplexity change with width, and is a wider cell or another cell the better "
            "use of parameters?",
            answer,
        ),
    ),
)
