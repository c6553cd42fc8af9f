"""How far back does a cell remember? The first word of a text is asked for again after a gap."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from experiments import study
from experiments.study import CELLS, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Table, sentence, shown
from unroll.report.verdict import verdict

GAPS = (3, 10, 20, 40)
SYMBOLS = 8
CHANCE = 100 / SYMBOLS
FORGET_GATE_BIAS = 3
DRAWN = "LSTM, gates as drawn"
VARIANTS = {
    **CELLS,
    "LSTM": f"{CELLS['LSTM']} model.forget_gate_bias={FORGET_GATE_BIAS}",
    DRAWN: CELLS["LSTM"],
}
LABELS = {(name, gap): f"{name}, gap {gap}" for name in VARIANTS for gap in GAPS}
GATED = (("GRU", "LSTM"), ("GRU", DRAWN))
PAIRS = (("LSTM", "RNN"), ("GRU", "RNN"), *GATED)


def answer(results: Results) -> Answer:
    by_label = study.measures(results, LABELS.values(), "test/accuracy", scale=100)
    found = {key: by_label[label] for key, label in LABELS.items()}

    def compared(gap: int, pairs: Iterable[tuple[str, str]] = PAIRS) -> Markup:
        return study.joined(
            verdict((a, b), found[a, gap], found[b, gap], "higher") for a, b in pairs
        )

    return Answer(
        [
            sentence(
                "A text is one of {} symbols, a gap of random distractors, and the symbol again, "
                "which alone is scored. All cells have the same width, learning rate and number of "
                "steps. The LSTM's forget gates start with a bias of {}, that is, open; the RNN "
                "has no such gate, and the GRU starts as it is drawn. A second LSTM starts as it "
                "is drawn too, so that a gate can be told from its start.",
                SYMBOLS,
                FORGET_GATE_BIAS,
            ),
            *(
                sentence(
                    "Symbols recalled after a gap of {} words, in per cent; chance is {}: {}.",
                    gap,
                    CHANCE,
                    compared(gap),
                )
                for gap in GAPS
            ),
        ],
        [
            plots.lines(
                "memory_accuracy",
                "Symbols recalled against the gap; bars: spread over seeds.",
                "gap (words)",
                GAPS,
                "accuracy on the recalled symbol (%)",
                {name: [found[name, gap] for gap in GAPS] for name in VARIANTS},
                log_x=True,
                levels={"chance": CHANCE},
            ),
            Table(
                ["cell", *(f"gap {gap}" for gap in GAPS)],
                [[name, *(shown(found[name, gap]) for gap in GAPS)] for name in VARIANTS],
                f"Symbols recalled (%), mean ± standard deviation over seeds; chance is {CHANCE}.",
            ),
        ],
        found=sentence(
            "symbols recalled after {} words, in per cent: {}.", GAPS[-1], compared(GAPS[-1], GATED)
        ),
    )


STUDY = Study(
    "memory",
    study.grid(
        f"experiment=recall data.symbols={SYMBOLS}",
        {label: f"{VARIANTS[name]} data.gap={gap}" for (name, gap), label in LABELS.items()},
    ),
    (
        Question(
            "memory", "Memory", "How many words back can a cell be asked for what it read?", answer
        ),
    ),
    own_data=True,
)
