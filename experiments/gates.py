"""Question 8 of the lab: the GRU has one gate less than the LSTM. What does that buy and cost?

At equal units, and at equal parameters: there the width of the GRU is computed from the parameters
of the LSTM.
"""

from __future__ import annotations

import math

from experiments import cells, speed, study
from experiments.study import CELLS, TEST, TUNED, Column, Job, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, sentence
from unroll.report.runs import Record
from unroll.report.verdict import verdict

GATES = {"GRU": 3, "LSTM": 4}
"""Matrices that a cell stacks."""
TIED = (
    "layers",
    "bias",
    "tie_weights",
    "one_hot",
    "bidirectional",
    "softmax",
    "implementation",
    "embedding_size",
)
"""Keys of the model that ``width`` counts on."""
EQUAL = "GRU, parameters of the LSTM"


def width(record: Record) -> int:
    """Units at which a GRU has as many parameters as this LSTM, embedding and softmax included.

    With g matrices, a vocabulary of V and one table for embedding and softmax, a model of h units
    has V (h + 1) + 2 g h (h + 1) parameters; the integer nearest to the root is taken.
    """
    total, vocabulary = (
        int(record.value(key)) for key in ("model.parameters", "data.vocabulary_size")
    )
    gates = GATES["GRU"]
    linear = vocabulary + 2 * gates
    constant = vocabulary - total
    return round((math.sqrt(linear**2 - 8 * gates * constant) - linear) / (4 * gates))


def equal_parameters(results: Results) -> tuple[Job, ...]:
    return study.grid(
        cells.BASE,
        {EQUAL: f"{TUNED['GRU']} model.hidden_size={width(results['LSTM'][0])}"},
    )


def answer(results: Results) -> Answer:
    labels = [*CELLS, EQUAL]
    test = study.measures(results, labels, TEST)
    rate = speed.speeds(results, list(CELLS))
    return Answer(
        [
            sentence(
                "One gate less is three matrices in place of four, in parameters and in products "
                "of the cell: {:.0%} of them are gone. The whole model has {} parameters with the "
                "GRU and {} with the LSTM, because embedding and softmax stay as they are.",
                1 - GATES["GRU"] / GATES["LSTM"],
                study.param(results["GRU"], "model.parameters"),
                study.param(results["LSTM"], "model.parameters"),
            ),
            sentence(
                "Targets learned a second on one thread: {}.",
                verdict(("GRU", "LSTM"), rate["GRU"], rate["LSTM"], "higher", ",.0f"),
            ),
            sentence(
                "Test perplexity, where a price would show as the LSTM in front. At equal units: "
                "{}. At equal parameters, the GRU with {} units: {}.",
                verdict(("GRU", "LSTM"), test["GRU"], test["LSTM"]),
                study.param(results[EQUAL], "model.hidden_size"),
                verdict(("GRU", "LSTM"), test[EQUAL], test["LSTM"]),
            ),
            sentence(
                "Where the LSTM is not in front, no price was found on this text; where it is, "
                "why was not tested. The sections Memory and Context compare LSTM and GRU where "
                "something has to be kept for long."
            ),
        ],
        [
            plots.scatter(
                "gates",
                "Test perplexity against parameters, a mark for each seed.",
                "parameters (millions)",
                "test perplexity",
                {
                    label: [
                        (run.value("model.parameters") / 1e6, run.value(TEST))
                        for run in results[label]
                    ]
                    for label in labels
                },
            ),
            study.table(
                "cell",
                results,
                labels,
                [Column("units", "model.hidden_size", ".0f"), study.PARAMETERS, study.PERPLEXITY],
            ),
        ],
        found=sentence(
            "test perplexity at equal units: {}; targets learned a second: {}.",
            verdict(("GRU", "LSTM"), test["GRU"], test["LSTM"]),
            verdict(("GRU", "LSTM"), rate["GRU"], rate["LSTM"], "higher", ",.0f"),
        ),
    )


STUDY = Study(
    "gates",
    cells.STUDY.jobs,
    (
        Question(
            "gates",
            "One gate less",
            "The GRU has one gate less than the LSTM: what does it gain, and what does it cost?",
            answer,
            lab=8,
        ),
    ),
    then=equal_parameters,
    constants=tuple(f"model.{key}" for key in TIED),
)
