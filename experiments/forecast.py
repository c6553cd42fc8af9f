"""A noisy sine forecast by an MLP and by recurrent cells: one step, k steps, all the way."""

from __future__ import annotations

import math

from experiments import study
from experiments.study import Column, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Drawing, Table, sentence, shown
from unroll.report.plots import Panel
from unroll.report.runs import Measured, Record
from unroll.report.verdict import ranking, verdict

FORECASTERS = ("MLP", "RNN", "LSTM", "GRU")
HORIZONS = (1, 4, 16, 64)
AHEAD, MULTI, DEVIATION = "error/ahead", "error/multi_step", "deviation"


def answer(results: Results) -> Answer:
    errors = {k: study.measures(results, FORECASTERS, f"{AHEAD}_{k}") for k in HORIZONS}
    multi = study.measures(results, FORECASTERS, MULTI)
    deviation = study.measures(results, FORECASTERS, DEVIATION)
    near, far = HORIZONS[0], HORIZONS[-1]
    return Answer(
        [
            sentence(
                "One step ahead the MLP has a root mean squared error of {} on the held-out "
                "points. The noise, which no forecast can know, has a standard deviation of {}.",
                shown(errors[near]["MLP"], ".3f"),
                study.param(results["MLP"], "task.noise", ".1f"),
            ),
            sentence(
                "Where it reads its own forecasts from the first held-out point on, compared with "
                "always forecasting the mean of these points: {}.",
                verdict(("MLP", "the mean"), multi["MLP"], deviation["MLP"], form=".3f"),
            ),
            sentence("Error {} step ahead: {}", near, ranking(errors[near], form=".4f")),
            sentence("Error {} steps ahead: {}", far, ranking(errors[far], form=".4f")),
        ],
        [_k_steps(results), _multi_step(results), _errors(results), _table(results)],
    )


def _level(times: float, key: str) -> Column:
    """The first k whose error reaches ``times`` a metric; NaN where a run does not get there."""

    def reached(record: Record) -> float:
        level = times * record.value(key)
        return next((k for k, error in record.curve(AHEAD) if error >= level), math.nan)

    heads = {DEVIATION: "k where it reaches the deviation"}
    return Column(heads.get(key, "k where the error doubles"), reached, ".0f")


def _table(results: Results) -> Table:
    return study.table(
        "forecaster",
        results,
        FORECASTERS,
        [
            Column("parameters", "forecaster.parameters", ".0f"),
            Column("training points", "error/train", ".3f"),
            *(Column(f"k = {k}", f"{AHEAD}_{k}", ".3f") for k in HORIZONS),
            Column("multi-step", MULTI, ".3f"),
            Column("k = 1, from the sine without noise", "sine_error/ahead_1", ".3f"),
            _level(2, f"{AHEAD}_1"),
            _level(1, DEVIATION),
        ],
        "Root mean squared errors on the held-out points; each seed is a series of its own. "
        "All forecasters have "
        f"{results['MLP'][0].params['task.hidden_size']} hidden units and read the same "
        f"{results['MLP'][0].params['task.tau']} values. A dash: not in every run within "
        f"{HORIZONS[-1]} steps.",
    )


def _series(record: Record) -> list[tuple[float, float]]:
    return [(float(t), x) for t, x in enumerate(record.result()["series"], start=1)]


def _forecasts(record: Record, name: str) -> list[tuple[float, float]]:
    """Forecasts, which end with the last point."""
    values = record.result()["predictions"][name]
    first = int(record.value("task.points")) - len(values) + 1
    return [(float(t), x) for t, x in enumerate(values, start=first)]


def _learned(record: Record) -> str:
    count = int(record.value("task.train_points") + record.value("task.tau"))
    return f"The first {count} points are training data."


def _k_steps(results: Results) -> Drawing:
    record = results["MLP"][0]
    return plots.curves(
        "forecast_k_steps",
        "Every point forecast k steps before: from observed values alone (k = 1), else with "
        f"forecasts in place of the last of them. {_learned(record)}",
        [
            Panel(
                "time t (points)",
                "x (no unit)",
                {"data": [_series(record)], f"MLP, k = {k}": [_forecasts(record, f"ahead_{k}")]},
            )
            for k in HORIZONS
        ],
        columns=2,
        width=4.6,
    )


def _multi_step(results: Results) -> Drawing:
    lines = {"data": [_series(results["MLP"][0])]}
    lines |= {name: [_forecasts(results[name][0], "multi_step")] for name in FORECASTERS}
    return plots.curves(
        "forecast_multi_step",
        f"Multi-step: every forecast is made from forecasts. {_learned(results['MLP'][0])}",
        [Panel("time t (points)", "x (no unit)", lines)],
        width=8.0,
    )


def _errors(results: Results) -> Drawing:
    def steps(name: str) -> list[Measured]:
        found = [[error for _, error in record.curve(AHEAD)] for record in results[name]]
        return [Measured(values) for values in zip(*found, strict=True)][3::8]

    mlp = results["MLP"]
    places = range(4, 8 * len(steps("MLP")) + 1, 8)
    return plots.lines(
        "forecast_errors",
        "Error against steps ahead: mean and standard deviation over the series.",
        "steps ahead k (points)",
        list(places),
        "root mean squared error (no unit)",
        {name: steps(name) for name in FORECASTERS},
        levels={
            "noise": mlp[0].value("task.noise"),
            "deviation of the points": study.measures(results, ["MLP"], DEVIATION)["MLP"].mean,
        },
    )


STUDY = Study(
    "forecast",
    study.grid(
        f"task=forecast task.horizons=[{','.join(map(str, HORIZONS))}]",
        {name: f"task.forecaster={name.lower()}" for name in FORECASTERS},
    ),
    (
        Question(
            "forecast",
            "Forecasting a noisy sine",
            "How far ahead can a series be forecast from its last values, and what does a "
            "recurrent cell change compared with an MLP?",
            answer,
        ),
    ),
    own_data=True,
)
