"""RNN, LSTM and GRU at the same widths: how they learn, how they score, how they write."""

from __future__ import annotations

from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, Text, linked, number, sentence, shown
from unroll.report.runs import measured

CELLS = ("rnn", "lstm", "gru")
SEEDS = (1, 2, 3)


def draw(results: Results) -> list[Section]:
    test = {cell: measured(results[cell], "test/perplexity") for cell in CELLS}
    ranked = sorted(CELLS, key=lambda cell: test[cell].mean)
    best, worst = ranked[0], ranked[-1]
    gap = test[worst].mean - test[best].mean
    noise = max(test[cell].spread for cell in CELLS)
    verdict = (
        "that is more than twice the largest spread over seeds"
        if gap > 2 * noise
        else "chance may have ranked them, for that is within twice the largest spread over seeds"
    )
    speed = {cell: measured(results[cell], "tokens_per_second") for cell in CELLS}
    answer = [
        sentence(
            "The {} has the lowest test perplexity, {}; then come the {} with {} and the {} with "
            "{}. First and last lie {} apart; {}, {}.",
            best.upper(),
            shown(test[best]),
            ranked[1].upper(),
            shown(test[ranked[1]]),
            worst.upper(),
            shown(test[worst]),
            number(gap, test[worst].runs),
            verdict,
            number(noise, test[worst].runs),
        ),
        sentence(
            "On one thread the RNN learns from {} tokens a second, the LSTM from {}, the GRU from "
            "{}. Embedding and softmax, which the cells share, hold most of the "
            "{} (RNN) to {} (LSTM) parameters.",
            *(shown(speed[cell], ",.0f") for cell in CELLS),
            number(_parameters(results, "rnn"), test["rnn"].runs, ",.0f"),
            number(_parameters(results, "lstm"), test["lstm"].runs, ",.0f"),
        ),
    ]
    return [
        Section(
            "cells",
            "RNN, LSTM and GRU",
            "Which cell models news text best at the same widths, and at what cost?",
            answer,
            [_curves(results), _spread(results), _table(results), _texts(results)],
        )
    ]


def _parameters(results: Results, cell: str) -> float:
    return float(results[cell][0].params["model.parameters"])


def _curves(results: Results) -> Drawing:
    figure, (left, right) = new(rows=2, height=2.7)
    for position, cell in enumerate(CELLS):
        for record in results[cell]:
            first = record is results[cell][0]
            label = cell.upper() if first else None
            looks = style(position) | {"alpha": 0.9, "linewidth": 1.2}
            left.plot(*_columns(record.curve("train/loss")), label=label, **looks | {"marker": ""})
            right.plot(*_columns(record.curve("valid/loss")), label=label, **looks)
    named(left, "optimizer steps", "loss (nats per token)", "training")
    named(right, "optimizer steps", "loss (nats per token)", "validation")
    right.legend()
    return Drawing("cells_loss", "Training and validation loss, a line for each seed.", figure)


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _spread(results: Results) -> Drawing:
    figure, axes = new(height=3.0)
    for position, cell in enumerate(CELLS):
        measure = measured(results[cell], "test/perplexity")
        looks = style(position) | {"linestyle": "none"}
        axes.plot([position] * len(measure.values), measure.values, **looks | {"markersize": 6})
        axes.hlines(measure.mean, position - 0.25, position + 0.25, color=looks["color"])
    axes.set_xticks(range(len(CELLS)), [cell.upper() for cell in CELLS])
    named(axes, "cell", "test perplexity")
    return Drawing(
        "cells_perplexity", "Test perplexity: a mark for each seed, a bar at the mean.", figure
    )


def _table(results: Results) -> Table:
    rows = []
    for cell in CELLS:
        records = results[cell]
        runs = [record.run_id for record in records]
        rows.append(
            [
                cell.upper(),
                shown(measured(records, "test/perplexity")),
                shown(measured(records, "test/bits_per_character"), ".3f"),
                shown(measured(records, "valid/perplexity")),
                number(_parameters(results, cell), runs, ",.0f"),
                shown(measured(records, "tokens_per_second"), ",.0f"),
            ]
        )
    head = [
        "cell",
        "test perplexity",
        "bits a character",
        "validation perplexity",
        "parameters",
        "tokens a second",
    ]
    return Table(head, rows, f"Mean ± standard deviation over {len(SEEDS)} seeds.")


def _texts(results: Results) -> Text:
    rows = []
    for cell in CELLS:
        record = results[cell][0]
        for sample in record.result()["samples"][:2]:
            who = linked(cell.upper(), [record.run_id])
            rows.append((who, sample["prefix"], sample["text"]))
    return Text(rows)


STUDY = Study(
    "cells",
    tuple(
        Job(cell, ("experiment=study", f"model={cell}", f"seed={seed}"))
        for cell in CELLS
        for seed in SEEDS
    ),
    draw,
)
