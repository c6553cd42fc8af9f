"""Fit a forecaster to a noisy sine, and score its forecasts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unroll.config import Config
from unroll.errors import Diverged, require
from unroll.forecasting.config import ForecasterConfig
from unroll.forecasting.fitting import fit
from unroll.forecasting.forecasters import ahead
from unroll.forecasting.series import noisy_sine, root_mean_square, sine, windows
from unroll.registry import build
from unroll.tasks.config import ForecastConfig
from unroll.tasks.run import RESULT, Result, Run, prepare, say

USED = ("task", "seed", "device", "threads", "rerun", "tracking", "hydra", "data.cache")
"""Overrides that this task uses, by their first characters."""


def forecast(
    task: ForecastConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Fit a forecaster to the first points of a noisy sine; score it on the other points.

    ``seed`` decides the series, which is the same for all forecasters, the order of batches and
    the weights.

    Raises:
        Refused: a device other than the CPU, or an override that this task does not use.
        Diverged: the loss is NaN or infinite.
    """
    require(
        config.device in ("auto", "cpu"),
        f"device={config.device} has no meaning for task=forecast, whose models are too small for "
        "it: leave it out",
    )
    for word in overrides:
        require(
            word.startswith(USED),
            f"{word} has no meaning for task=forecast, which uses no text and no language model: "
            "leave it out",
        )
    run = Run(config, directory, overrides)
    found = run.finished_before(reuse)
    if found:
        return found
    prepare(config)
    generator = torch.Generator().manual_seed(config.seed)
    series = noisy_sine(task.points, task.noise, generator)
    chosen = ForecasterConfig(task.forecaster, task.tau, task.hidden_size)
    forecaster: nn.Module = build("forecaster", chosen)
    parameters = sum(weights.numel() for weights in forecaster.parameters())
    say(
        f"series: {task.points:,} points, noise {task.noise}; {task.train_points:,} for training, "
        f"{task.points - first_held_out(task):,} held out"
    )
    say(f"forecaster: {task.forecaster}, {parameters:,} parameters")
    with run.recorded({"forecaster.parameters": parameters}) as tracker:
        losses = fit(
            forecaster,
            windows(series, task.tau)[: task.train_points],
            series[task.tau : first_held_out(task)],
            batch_size=task.batch_size,
            epochs=task.epochs,
            learning_rate=task.learning_rate,
            generator=generator,
        )
        for epoch, loss in enumerate(losses, start=1):
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss is NaN or infinite after epoch {epoch}; lower "
                    f"task.learning_rate={task.learning_rate}"
                )
            say(f"epoch {epoch}: mean squared error {loss:.4f}")
            tracker.log({"train/loss": loss}, epoch)
        predictions = predict(forecaster, series, task)
        errors = score(predictions, series, task)
        sine_errors = score(predictions, sine(task.points), task)
        for k in range(1, max(task.horizons) + 1):
            name = f"ahead_{k}"
            tracker.log({"error/ahead": errors[name], "sine_error/ahead": sine_errors[name]}, k)
        kept = [f"ahead_{k}" for k in sorted({1, *task.horizons})] + ["multi_step"]
        result: Result = {
            "config_fingerprint": run.fingerprint,
            "parameters": parameters,
            "deviation": float(series[first_held_out(task) :].std(correction=0)),
            "error": errors,
            "sine_error": sine_errors,
            "series": rounded(series),
            "predictions": {name: rounded(predictions[name]) for name in kept},
        }
        figures = {"deviation": result["deviation"]}
        for name in ("train", *kept):
            figures |= {f"error/{name}": errors[name], f"sine_error/{name}": sine_errors[name]}
        result = run.keep(result, figures, task.epochs)
    say("root mean squared errors:")
    for name in ("train", *kept):
        say(f"  {name}: {errors[name]:.4f}, from the sine without noise {sine_errors[name]:.4f}")
    say(f"standard deviation of the held-out points: {result['deviation']:.4f}")
    say(f"run {tracker.run_id} ({run.name}): {directory / RESULT}")
    return result


def first_held_out(task: ForecastConfig) -> int:
    """Index of the first value that training does not see."""
    return task.train_points + task.tau


def predict(forecaster: nn.Module, series: Tensor, task: ForecastConfig) -> dict[str, Tensor]:
    """Forecasts by name; each ends with the last point of the series.

    ``ahead_k``, for k from 1 to the largest horizon: the value k steps after each window, if the
    series has it. ``multi_step``: all held-out values, forecast from the last window before them.
    """
    given = windows(series, task.tau)
    found = ahead(forecaster, given, max(task.horizons))
    predictions = {
        f"ahead_{k}": values[: len(given) - k] for k, values in enumerate(found.unbind(1), start=1)
    }
    last = given[task.train_points : task.train_points + 1]
    predictions["multi_step"] = ahead(forecaster, last, task.points - first_held_out(task))[0]
    return predictions


def score(predictions: dict[str, Tensor], truth: Tensor, task: ForecastConfig) -> dict[str, float]:
    """Root mean squared errors: every forecast on the same held-out points, and one step ahead
    on the training points."""
    held_out = task.points - first_held_out(task)
    errors = {
        name: root_mean_square(values[-held_out:] - truth[-held_out:])
        for name, values in predictions.items()
    }
    learned = predictions["ahead_1"][:-held_out] - truth[task.tau : -held_out]
    return {"train": root_mean_square(learned)} | errors


def rounded(values: Tensor) -> list[Any]:
    return [round(value, 4) for value in values.tolist()]
