"""Question 8 of the lab: the GRU has one gate less than the LSTM. What does that buy and cost?

At equal units, and at equal parameters: there the width of each cell is worked out from the
parameters that the LSTM turned out to have.
"""

from __future__ import annotations

import math

from experiments import cells
from experiments.cells import CELLS, SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, number, sentence, shown
from unroll.report.runs import Record, measured

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Matrices that a cell stacks."""
KEY = "test/perplexity"


def equal(cell: str) -> str:
    return f"{cell} of the LSTM's size"


def width(cell: str, record: Record) -> int:
    """Units at which a cell has as many parameters as this LSTM, embedding and softmax included.

    With g matrices, an embedding of e and a vocabulary of V, a model of h units has
    V e + g h (e + h + 2) + V (h + 1) parameters; the whole number nearest the root is taken.
    """
    total, vocabulary, embedding = (
        int(record.params[key])
        for key in ("model.parameters", "data.vocabulary_size", "model.embedding_size")
    )
    gates = GATES[cell]
    linear = gates * (embedding + 2) + vocabulary
    constant = vocabulary * (embedding + 1) - total
    return round((-linear + math.sqrt(linear**2 - 4 * gates * constant)) / (2 * gates))


def equal_parameters(results: Results) -> tuple[Job, ...]:
    return tuple(
        Job(
            equal(cell),
            (
                "experiment=study",
                f"model={cell}",
                f"model.hidden_size={width(cell, results['lstm'][0])}",
                f"seed={seed}",
            ),
        )
        for cell in ("rnn", "gru")
        for seed in SEEDS
    )


def draw(results: Results) -> list[Section]:
    lstm, gru, wide = (measured(results[name], KEY) for name in ("lstm", "gru", equal("gru")))
    speed = {name: measured(results[name], "tokens_per_second") for name in ("lstm", "gru")}
    runs = [*lstm.runs, *gru.runs]
    saved = 1 - GATES["gru"] / GATES["lstm"]
    noise = max(lstm.spread, gru.spread, wide.spread)
    verdict = (
        "less than twice the largest spread over seeds, so that it may be chance"
        if abs(gru.mean - lstm.mean) < 2 * noise
        else "more than twice the largest spread over seeds"
    )
    answer = [
        sentence(
            "It saves {} of the cell's numbers and of its products: three matrices in place of "
            "four. In the whole model that is {} parameters against {}, for the softmax weighs "
            "more; on one thread it learns from {} tokens a second against {}.",
            f"{saved:.0%}",
            _parameters(results["gru"]),
            _parameters(results["lstm"]),
            shown(speed["gru"], ",.0f"),
            shown(speed["lstm"], ",.0f"),
        ),
        sentence(
            "It costs no perplexity here: {} for the GRU against {} for the LSTM at equal units, a "
            "difference of {}, {}; at equal parameters, with {} units, the GRU has {}."
            if gru.mean <= lstm.mean
            else "It costs {} against {} in perplexity at equal units, a difference of {}, {}; at "
            "equal parameters, with {} units, the GRU has {}.",
            shown(gru),
            shown(lstm),
            number(abs(gru.mean - lstm.mean), runs),
            verdict,
            number(float(results[equal("gru")][0].params["model.hidden_size"]), wide.runs, ".0f"),
            shown(wide),
        ),
    ]
    return [
        Section(
            "gates",
            "One gate less",
            "The GRU has one gate less than the LSTM: what does that buy and cost?",
            answer,
            [_points(results), _table(results)],
            lab=8,
        )
    ]


def _parameters(records: list[Record]) -> object:
    runs = [record.run_id for record in records]
    return number(float(records[0].params["model.parameters"]), runs, ",.0f")


def _points(results: Results) -> Drawing:
    figure, axes = new(height=3.2)
    for position, cell in enumerate(CELLS):
        for label, fill in ((cell, "full"), (equal(cell), "none")):
            for record in results.get(label, []):
                first = record is results[label][0]
                size = "equal units" if fill == "full" else "equal parameters"
                axes.plot(
                    float(record.params["model.parameters"]) / 1e6,
                    record.metric(KEY),
                    label=f"{cell.upper()}, {size}" if first else None,
                    **style(position) | {"linestyle": "none", "fillstyle": fill, "markersize": 7},
                )
    named(axes, "parameters (millions)", "test perplexity")
    axes.legend(fontsize=8)
    return Drawing("gates", "Test perplexity against parameters, a mark for each seed.", figure)


def _table(results: Results) -> Table:
    rows = []
    for label in ("rnn", "gru", "lstm", equal("rnn"), equal("gru")):
        records = results[label]
        runs = [record.run_id for record in records]
        rows.append(
            [
                label.replace("rnn", "RNN").replace("gru", "GRU").replace("lstm", "LSTM"),
                number(float(records[0].params["model.hidden_size"]), runs, ".0f"),
                _parameters(records),
                shown(measured(records, KEY)),
                shown(measured(records, "tokens_per_second"), ",.0f"),
            ]
        )
    return Table(
        ["cell", "units", "parameters", "test perplexity", "tokens a second"],
        rows,
        f"Mean ± standard deviation over {len(SEEDS)} seeds.",
    )


STUDY = Study("gates", cells.STUDY.jobs, draw, then=equal_parameters)
