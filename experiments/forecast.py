"""A noisy sine forecast by an MLP and by recurrent cells: one step, k steps, all the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, number, sentence, shown
from unroll.report.runs import Measured, Record, measured

FORECASTERS = ("mlp", "rnn", "lstm", "gru")
SEEDS = (1, 2, 3)
HORIZONS = (1, 4, 16, 64)


def draw(results: Results) -> list[Section]:
    mlp = results["mlp"]
    one, multi = measured(mlp, "error/ahead_1"), measured(mlp, "error/multi_step")
    deviation = measured(mlp, "deviation")
    near, far = (_ranked(results, f"error/ahead_{k}") for k in (HORIZONS[0], HORIZONS[-1]))
    doubled = {name: _first(results[name], _twice_the_first) for name in FORECASTERS}
    useless = {name: _first(results[name], _deviation) for name in FORECASTERS}
    answer = [
        sentence(
            "One step ahead the MLP errs by {} (root mean square over the held-out points); the "
            "noise alone, which no forecast can know, makes {}. Where it feeds on its own "
            "forecasts from the first held-out point on, it misses the same points by {}; their "
            "own mean would miss them by {}: multi-step forecasts "
            + ("are worse than that." if multi.mean > deviation.mean else "are better than that."),
            shown(one, ".3f"),
            number(float(mlp[0].params["task.noise"]), one.runs, ".1f"),
            shown(multi, ".3f"),
            shown(deviation, ".3f"),
        ),
        sentence(
            "The error is twice that of one step from k = {} on with the MLP, {} with the RNN, {} "
            "with the LSTM, {} with the GRU; it passes the deviation of the points at k = {}, {}, "
            "{} and {}.",
            *(shown(doubled[name], ".0f") for name in FORECASTERS),
            *(shown(useless[name], ".0f") for name in FORECASTERS),
        ),
        _verdict(results, near, HORIZONS[0]),
        _verdict(results, far, HORIZONS[-1]),
    ]
    return [
        Section(
            "forecast",
            "Forecasting a noisy sine",
            "How far ahead can a series be told from its last values, and is a recurrent cell "
            "better at it than an MLP?",
            answer,
            [
                _k_steps(results),
                _multi_step(results),
                _errors(results),
                _table(results, doubled, useless),
            ],
        )
    ]


def _ranked(results: Results, key: str) -> list[str]:
    return sorted(FORECASTERS, key=lambda name: measured(results[name], key).mean)


def _verdict(results: Results, ranked: list[str], k: int) -> Markup:
    """Best and second best k steps ahead; they forecast the same series, so seed by seed."""
    key = f"error/ahead_{k}"
    best, second = (measured(results[name], key) for name in ranked[:2])
    gaps = tuple(b - a for a, b in zip(best.values, second.values, strict=True))
    gap = Measured(gaps, (*best.runs, *second.runs))
    return sentence(
        "{} ahead the {} errs least, {}, before the {} with {}; series by series it gains {}, "
        "and it is ahead on {} of {}.",
        "One step" if k == 1 else f"{k} steps",
        ranked[0].upper(),
        shown(best, ".3f"),
        ranked[1].upper(),
        shown(second, ".3f"),
        shown(gap, ".4f"),
        number(sum(value > 0 for value in gaps), gap.runs, "d"),
        number(len(gaps), gap.runs, "d"),
    )


def _first(records: Sequence[Record], level: Callable[[Record], float]) -> Measured:
    """The first k whose error reaches a run's level; nan where a run does not get there."""
    return Measured(
        tuple(
            next(
                (k for k, error in record.curve("error/ahead") if error >= level(record)), math.nan
            )
            for record in records
        ),
        tuple(record.run_id for record in records),
    )


def _twice_the_first(record: Record) -> float:
    return 2 * record.metric("error/ahead_1")


def _deviation(record: Record) -> float:
    return record.metric("deviation")


def _data(axes: Any, record: Record) -> None:
    """Draw a run's series, with a line at the first held-out point."""
    series = record.result()["series"]
    axes.plot(range(1, len(series) + 1), series, color="0.75", linewidth=0.7, label="data")
    learned = int(record.params["task.train_points"]) + int(record.params["task.tau"])
    axes.axvline(learned + 1, color="0.3", linewidth=0.8)


def _forecast(axes: Any, position: int, values: list[float], label: str, record: Record) -> None:
    """Draw forecasts that end with the last point."""
    points = int(record.params["task.points"])
    time = range(points - len(values) + 1, points + 1)
    looks = style(position) | {"markevery": (17 * position, 80), "linewidth": 1.2}
    axes.plot(time, values, label=label, **looks)


def _multi_step(results: Results) -> Drawing:
    figure, axes = new(width=8.0, height=3.2)
    _data(axes, results["mlp"][0])
    for position, name in enumerate(FORECASTERS):
        record = results[name][0]
        values = record.result()["predictions"]["multi_step"]
        _forecast(axes, position, values, name.upper(), record)
    named(axes, "time t (points)", "x (no unit)")
    axes.legend()
    return Drawing(
        "forecast_multi_step",
        "Multi-step: right of the line every forecast is made from forecasts.",
        figure,
    )


def _k_steps(results: Results) -> Drawing:
    record = results["mlp"][0]
    figure, panels = new(columns=2, rows=2, width=4.6, height=2.4)
    predictions = record.result()["predictions"]
    for axes, k in zip(panels.flat, HORIZONS, strict=True):
        _data(axes, record)
        _forecast(axes, 0, predictions[f"ahead_{k}"], f"MLP, k = {k}", record)
        named(axes, "time t (points)", "x (no unit)")
        axes.legend(loc="lower left", fontsize=8)
    return Drawing(
        "forecast_k_steps",
        "Every point told k steps before: from observed values alone (k = 1), else with forecasts "
        "in place of the last of them. Right of the line the points are held out.",
        figure,
    )


def _errors(results: Results) -> Drawing:
    figure, axes = new(width=8.0, height=3.6)
    for position, name in enumerate(FORECASTERS):
        curves = [[error for _, error in record.curve("error/ahead")] for record in results[name]]
        steps = [Measured(values, ()) for values in zip(*curves, strict=True)]
        axes.errorbar(
            range(1, len(steps) + 1),
            [step.mean for step in steps],
            yerr=[step.spread for step in steps],
            errorevery=(2 * position + 3, 8),
            markevery=(2 * position + 3, 8),
            capsize=2,
            label=name.upper(),
            **style(position),
        )
    mlp = results["mlp"]
    noise, deviation = float(mlp[0].params["task.noise"]), measured(mlp, "deviation").mean
    for level, words in ((noise, "noise"), (deviation, "deviation of the points")):
        axes.axhline(level, color="0.3", linewidth=0.8)
        axes.annotate(
            words, (1.0, level), (-3, 2), ("axes fraction", "data"), "offset points", ha="right"
        )
    axes.set_ylim(bottom=0)
    named(axes, "steps ahead k (points)", "root mean squared error (no unit)")
    axes.legend()
    return Drawing(
        "forecast_errors",
        f"Error against steps ahead: mean and standard deviation over {len(SEEDS)} series.",
        figure,
    )


def _table(results: Results, doubled: dict[str, Measured], useless: dict[str, Measured]) -> Table:
    rows = []
    for name in FORECASTERS:
        records = results[name]
        runs = [record.run_id for record in records]
        rows.append(
            [
                name.upper(),
                number(float(records[0].params["forecaster.parameters"]), runs, ".0f"),
                shown(measured(records, "error/train"), ".3f"),
                *(shown(measured(records, f"error/ahead_{k}"), ".3f") for k in HORIZONS),
                shown(measured(records, "error/multi_step"), ".3f"),
                shown(measured(records, "sine_error/ahead_1"), ".3f"),
                shown(doubled[name], ".0f"),
                shown(useless[name], ".0f"),
            ]
        )
    head = [
        "forecaster",
        "parameters",
        "training points",
        *(f"k = {k}" for k in HORIZONS),
        "multi-step",
        "k = 1, from the sine without noise",
        "k where the error doubles",
        "k where it passes the deviation",
    ]
    return Table(
        head,
        rows,
        f"Root mean squared errors on the held-out points, mean ± standard deviation over "
        f"{len(SEEDS)} seeds, each a series of its own; all forecasters have "
        f"{results['mlp'][0].params['task.hidden_size']} hidden units and read the same "
        f"{results['mlp'][0].params['task.tau']} values. A dash: not in every run within "
        f"{HORIZONS[-1]} steps.",
    )


STUDY = Study(
    "forecast",
    tuple(
        Job(
            name,
            (
                "task=forecast",
                f"task.forecaster={name}",
                f"task.horizons=[{','.join(map(str, HORIZONS))}]",
                f"seed={seed}",
            ),
        )
        for name in FORECASTERS
        for seed in SEEDS
    ),
    draw,
    own_data=True,
)
