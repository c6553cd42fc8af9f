"""How far back does a cell remember? The first word of a text is asked for again after a gap."""

from __future__ import annotations

from experiments import study
from experiments.study import CELLS, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Table, sentence, shown
from unroll.report.verdict import verdict

GAPS = (3, 10, 20, 40)
SYMBOLS = 8
CHANCE = 100 / SYMBOLS
FORGET_GATE_BIAS = 3
LABELS = {(cell, gap): f"{cell}, gap {gap}" for cell in CELLS for gap in GAPS}


def answer(results: Results) -> Answer:
    by_label = study.measures(results, LABELS.values(), "test/accuracy", scale=100)
    found = {key: by_label[label] for key, label in LABELS.items()}
    return Answer(
        [
            sentence(
                "Symbols recalled after a gap of {} words, in per cent; chance is {}: {}; {}.",
                gap,
                CHANCE,
                *(
                    verdict((cell, "RNN"), found[cell, gap], found["RNN", gap], "higher")
                    for cell in ("LSTM", "GRU")
                ),
            )
            for gap in GAPS
        ]
        + [
            sentence(
                "A text is one of {} symbols, a gap of random distractors, and the symbol again, "
                "which alone is scored. All cells have the same width, learning rate and number of "
                "steps. The LSTM's forget gates start with a bias of {}, that is, open; the RNN "
                "has no such gate, and the GRU starts as it is drawn.",
                SYMBOLS,
                FORGET_GATE_BIAS,
            ),
        ],
        [
            plots.lines(
                "memory_accuracy",
                "Symbols recalled against the gap; bars: spread over seeds.",
                "gap (words)",
                GAPS,
                {
                    "accuracy on the recalled symbol (%)": {
                        cell: [found[cell, gap] for gap in GAPS] for cell in CELLS
                    }
                },
                log_x=True,
                levels={"chance": CHANCE},
            ),
            Table(
                ["cell", *(f"gap {gap}" for gap in GAPS)],
                [[cell, *(shown(found[cell, gap]) for gap in GAPS)] for cell in CELLS],
                f"Symbols recalled (%), mean ± standard deviation over seeds; chance is {CHANCE}.",
            ),
        ],
    )


STUDY = Study(
    "memory",
    study.grid(
        f"experiment=recall data.symbols={SYMBOLS}",
        {
            label: f"{CELLS[cell]} data.gap={gap}"
            + (f" model.forget_gate_bias={FORGET_GATE_BIAS}" if cell == "LSTM" else "")
            for (cell, gap), label in LABELS.items()
        },
    ),
    (
        Question(
            "memory", "Memory", "How many words back can a cell be asked for what it read?", answer
        ),
    ),
    own_data=True,
)
