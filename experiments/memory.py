"""How far back does a cell remember? The first word of a text, asked for again after a gap."""

from __future__ import annotations

from markupsafe import Markup

from experiments.cells import CELLS, SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, sentence, shown
from unroll.report.runs import Measured, measured

GAPS = (3, 10, 20, 40)
SYMBOLS = 8
CHANCE = 100 / SYMBOLS
FORGET_GATE_BIAS = 3
KNOWS, NEAR = 95.0, 5.0
"""Per cent from which on a cell has it, and points above chance up to which it has nothing."""


def label(cell: str, gap: int) -> str:
    return f"{cell} gap {gap}"


def draw(results: Results) -> list[Section]:
    grid = {(cell, gap): _per_cent(results, cell, gap) for cell in CELLS for gap in GAPS}
    return [
        Section(
            "memory",
            "Memory",
            "How many words back can a cell be asked for what it read?",
            [_parting(grid), *(_reach(grid, cell) for cell in CELLS), _setting()],
            [_lines(grid), _table(grid)],
        )
    ]


def _per_cent(results: Results, cell: str, gap: int) -> Measured:
    found = measured(results[label(cell, gap)], "test/accuracy")
    return Measured(tuple(100 * value for value in found.values), found.runs)


def _parting(grid: dict[tuple[str, int], Measured]) -> Markup:
    """Where the LSTM has the symbol and the RNN is at chance, in every run."""
    parted = [
        gap
        for gap in GAPS
        if min(grid["lstm", gap].values) > KNOWS and max(grid["rnn", gap].values) < CHANCE + NEAR
    ]
    if not parted:
        return sentence(
            "At none of the gaps is the LSTM right above {:.0f} per cent while the RNN is within "
            "{:.0f} points of chance ({:.1f} per cent) with every seed.",
            KNOWS,
            NEAR,
            CHANCE,
        )
    return sentence(
        "At a gap of {} words the LSTM names the first word right in {} per cent of the texts, the "
        "RNN in {} per cent, where chance gives {:.1f}: with every seed the LSTM is above {:.0f} "
        "per cent and the RNN within {:.0f} points of chance.",
        parted[-1],
        shown(grid["lstm", parted[-1]]),
        shown(grid["rnn", parted[-1]]),
        CHANCE,
        KNOWS,
        NEAR,
    )


def _reach(grid: dict[tuple[str, int], Measured], cell: str) -> Markup:
    held = [gap for gap in GAPS if min(grid[cell, gap].values) > KNOWS]
    if not held:
        best = max(GAPS, key=lambda gap: grid[cell, gap].mean)
        return sentence(
            "{}: at no gap above {:.0f} per cent with every seed; {} at a gap of {} is its best.",
            cell.upper(),
            KNOWS,
            shown(grid[cell, best]),
            best,
        )
    return sentence(
        "{}: above {:.0f} per cent with every seed at gaps of {} words (tried: {}).",
        cell.upper(),
        KNOWS,
        ", ".join(map(str, held)),
        ", ".join(map(str, GAPS)),
    )


def _setting() -> Markup:
    return sentence(
        "A text is one of {} symbols, a gap of random distractors, and the symbol again, which "
        "alone is scored. All cells have the same width, learning rate and number of steps. The "
        "LSTM's forget gates start with a bias of {}, so that they forget little before they have "
        "learnt what to keep; the RNN has no such gate, and the GRU starts as it is drawn.",
        SYMBOLS,
        FORGET_GATE_BIAS,
    )


def _lines(grid: dict[tuple[str, int], Measured]) -> Drawing:
    figure, axes = new()
    for position, cell in enumerate(CELLS):
        found = [grid[cell, gap] for gap in GAPS]
        axes.errorbar(
            GAPS,
            [measure.mean for measure in found],
            yerr=[measure.spread for measure in found],
            label=cell.upper(),
            capsize=3,
            **style(position),
        )
    axes.axhline(CHANCE, color="#777777", linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set_xticks(GAPS, [str(gap) for gap in GAPS])
    axes.minorticks_off()
    axes.set_ylim(0, 105)
    named(axes, "gap (words)", "accuracy on the recalled symbol (per cent)")
    axes.legend()
    return Drawing(
        "memory_accuracy", "Symbols recalled against the gap; bars: spread over seeds.", figure
    )


def _table(grid: dict[tuple[str, int], Measured]) -> Table:
    rows = [[cell.upper(), *(shown(grid[cell, gap]) for gap in GAPS)] for cell in CELLS]
    return Table(
        ["cell", *(f"gap {gap}" for gap in GAPS)],
        rows,
        f"Per cent of symbols recalled, mean ± standard deviation over {len(SEEDS)} seeds; chance "
        f"gives {CHANCE:.1f}.",
    )


STUDY = Study(
    "memory",
    tuple(
        Job(
            label(cell, gap),
            (
                "experiment=recall",
                f"model={cell}",
                *((f"model.forget_gate_bias={FORGET_GATE_BIAS}",) if cell == "lstm" else ()),
                f"data.gap={gap}",
                f"data.symbols={SYMBOLS}",
                f"seed={seed}",
            ),
        )
        for gap in GAPS
        for cell in CELLS
        for seed in SEEDS
    ),
    draw,
    own_data=True,
)
