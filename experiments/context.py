"""What gates are for, on real text: how far back the cells of ``cells`` make use of what they read
(beside ``gates`` and ``memory``; the protocol of Khandelwal et al. 2018)."""

from __future__ import annotations

import math

from experiments import cells, study
from experiments.study import CELLS, Job, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Table, sentence, shown
from unroll.report.runs import Measured, Record, measured
from unroll.report.verdict import verdict

CONTEXTS = (1, 2, 5, 10, 20, 50, 100, 200)
TOKENS = 2000
NEAR, FAR = 10, 200
CURVE, WHOLE = "test/context/perplexity", "test/context_whole/perplexity"


def label(cell: str) -> str:
    return f"{cell}, context cut"


def score(results: Results) -> tuple[Job, ...]:
    words = (
        f"evaluation.contexts=[{','.join(map(str, CONTEXTS))}]",
        f"evaluation.context_tokens={TOKENS}",
    )
    return tuple(
        Job(label(cell), ("task=evaluate", f"run={record.run_id}", *words))
        for cell in CELLS
        for record in results[cell]
    )


def at(results: Results, cell: str, context: int) -> Measured:
    """Perplexity after so many tokens."""

    def figure(record: Record) -> float:
        return dict(record.curve(CURVE)).get(float(context), math.nan)

    return measured(results[label(cell)], figure)


def drop(results: Results, cell: str) -> Measured:
    """By how much the perplexity falls from ``NEAR`` to ``FAR`` tokens, in per cent."""
    near, far = (at(results, cell, context) for context in (NEAR, FAR))
    values = tuple(100 * (1 - b / a) for a, b in zip(near.values, far.values, strict=True))
    return Measured(values, near.runs)


def answer(results: Results) -> Answer:
    drops = {cell: drop(results, cell) for cell in CELLS}
    whole = {cell: measured(results[label(cell)], WHOLE) for cell in CELLS}
    pairs = (("LSTM", "RNN"), ("GRU", "RNN"), ("GRU", "LSTM"))
    compared = study.joined(verdict((a, b), drops[a], drops[b], "higher", ".1f") for a, b in pairs)
    return Answer(
        [
            sentence(
                "The same {} tokens of the test text, each after {} tokens and after {}: by how "
                "many per cent the perplexity drops: {}.",
                TOKENS,
                NEAR,
                FAR,
                compared,
            ),
            sentence(
                "The state carried through the whole split, compared with {} tokens of it: {}.",
                FAR,
                study.joined(
                    verdict(
                        (f"{cell}, everything", f"{FAR} tokens"),
                        whole[cell],
                        at(results, cell, FAR),
                    )
                    for cell in CELLS
                ),
            ),
            sentence(
                "Gates are there to keep what was read, where a cell without them overwrites its "
                "whole state at each step. It shows on this text only where a cell with gates is "
                "in front of the RNN. The models were trained with the state carried and gradients "
                "over {} tokens, and are cut off only here; tokens before may be of another "
                "article.",
                study.setting(results["LSTM"], "data.batching.length"),
            ),
        ],
        [
            plots.lines(
                "context",
                "Test perplexity against the number of tokens that a model may look back; bars: "
                "spread over seeds.",
                "tokens back",
                CONTEXTS,
                "test perplexity (log scale)",
                {cell: [at(results, cell, context) for context in CONTEXTS] for cell in CELLS},
                log_x=True,
                log_y=True,
            ),
            Table(
                ["cell", *map(str, CONTEXTS), "everything"],
                [
                    [
                        cell,
                        *(shown(at(results, cell, context)) for context in CONTEXTS),
                        shown(whole[cell]),
                    ]
                    for cell in CELLS
                ],
                f"Test perplexity of {TOKENS} tokens by tokens back, mean ± standard deviation "
                "over seeds.",
            ),
        ],
        found=sentence(
            "from {} to {} tokens back the perplexity drops by so many per cent: {}.",
            NEAR,
            FAR,
            compared,
        ),
    )


STUDY = Study(
    "context",
    cells.JOBS,
    (
        Question(
            "context",
            "Context",
            "How far back do the cells make use of what they read, on real text?",
            answer,
        ),
    ),
    then=score,
)
