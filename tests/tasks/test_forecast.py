"""The forecast task: what it scores, what it keeps, what it refuses."""

import json
import math
from pathlib import Path

import pytest
import torch

from unroll.app import compose, dispatch
from unroll.config import Config
from unroll.errors import Diverged, Refused
from unroll.forecasting.series import noisy_sine, sine
from unroll.tasks.config import ForecastConfig
from unroll.tasks.forecast import predict, score


def task(config: Config) -> ForecastConfig:
    assert isinstance(config.task, ForecastConfig)
    return config.task


class Perfect(torch.nn.Module):
    """Knows the sine without noise by the phase that two of its values give."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return 2 * math.cos(0.01) * windows[:, -1] - windows[:, -2]


def test_every_forecast_is_scored_on_the_same_held_out_points(composed) -> None:
    chosen = task(
        composed("task=forecast", "task.points=40", "task.train_points=20", "task.horizons=[1,7]")
    )
    series = torch.arange(40.0)
    predictions = predict(Last(), series, chosen)
    assert [len(predictions[name]) for name in ("ahead_1", "ahead_7", "multi_step")] == [36, 30, 16]
    errors = score(predictions, series, chosen)
    for k in range(1, 8):  # who says the last value of a line is k behind
        assert errors[f"ahead_{k}"] == pytest.approx(k)
    assert errors["train"] == pytest.approx(1)
    assert errors["multi_step"] == pytest.approx(math.sqrt(sum(k * k for k in range(1, 17)) / 16))


class Last(torch.nn.Module):
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, -1]


def test_the_error_of_a_perfect_forecaster_is_the_noise(composed) -> None:
    chosen = task(composed("task=forecast", "task.points=5000", "task.train_points=600"))
    clean = sine(5000).double()
    noisy = noisy_sine(5000, 0.2, torch.Generator().manual_seed(1))
    predictions = predict(Perfect(), clean, chosen)
    errors, sine_errors = score(predictions, noisy, chosen), score(predictions, clean, chosen)
    for name in ("ahead_1", "ahead_64"):
        assert errors[name] == pytest.approx(0.2, rel=0.03)
        assert sine_errors[name] < 1e-3


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A home with one run, and its result."""
    home = tmp_path_factory.mktemp("forecast")
    words = ["task=forecast", "task.forecaster=gru", "seed=3", f"tracking.directory={home}/mlruns"]
    (home / "run").mkdir()
    return home, dispatch(compose(words), home / "run", words, reuse=True)


def test_a_run_keeps_series_errors_and_curves_in_the_store(stored) -> None:
    home, result = stored
    assert json.loads((home / "run" / "result.json").read_text(encoding="utf-8")) == result
    assert (result["task"], result["parameters"]) == ("forecast", 401)
    expected = noisy_sine(1000, 0.2, torch.Generator().manual_seed(3))
    assert result["series"] == pytest.approx(expected.tolist(), abs=1e-4)
    lengths = {name: len(values) for name, values in result["predictions"].items()}
    assert lengths == {
        "ahead_1": 996,
        "ahead_4": 993,
        "ahead_16": 981,
        "ahead_64": 933,
        "multi_step": 396,
    }
    kept = torch.tensor(result["predictions"]["ahead_4"][-396:])
    assert result["error"]["ahead_4"] == pytest.approx(
        float((kept - expected[-396:]).square().mean().sqrt()), abs=1e-4
    )
    from unroll.report.runs import Record
    from unroll.tracking.store import connect

    client = connect(home / "mlruns")
    record = Record(client, client.get_run(result["run_id"]))
    assert record.run.info.status == "FINISHED"
    assert record.run.info.run_name == "forecast forecaster=gru seed=3"
    losses = record.curve("train/loss")
    assert [epoch for epoch, _ in losses] == [1, 2, 3, 4, 5]
    assert math.sqrt(losses[-1][1]) == pytest.approx(result["error"]["train"], rel=1e-4)
    assert [k for k, _ in record.curve("error/ahead")] == list(range(1, 65))
    for name in ("train", "ahead_1", "ahead_64", "multi_step"):
        assert record.value(f"error/{name}") == pytest.approx(result["error"][name])
        assert record.value(f"sine_error/{name}") == pytest.approx(result["sine_error"][name])


def test_a_run_is_not_made_twice_where_reuse_is_allowed(stored, tmp_path: Path) -> None:
    home, result = stored
    words = ["task=forecast", "task.forecaster=gru", "seed=3", f"tracking.directory={home}/mlruns"]
    again = dispatch(compose(words), tmp_path, words, reuse=True)
    assert (again["run_id"], again["reused"]) == (result["run_id"], True)


def forecast(directory: Path, *words: str) -> dict:
    directory.mkdir()
    overrides = ["task=forecast", "tracking=disabled", *words]
    return dispatch(compose(overrides), directory, overrides, reuse=False)


def test_the_seed_decides_every_figure_and_forecasters_share_its_series(tmp_path: Path) -> None:
    first = forecast(tmp_path / "first", "task.epochs=1")
    again = forecast(tmp_path / "again", "task.epochs=1")
    other = forecast(tmp_path / "other", "task.epochs=1", "seed=2")
    cell = forecast(tmp_path / "cell", "task.epochs=1", "task.forecaster=rnn")
    assert first["error"] == again["error"]
    assert first["series"] != other["series"]
    assert first["series"] == cell["series"]
    assert first["error"] != cell["error"]


def test_learning_brings_the_error_near_the_noise_and_multi_step_forecasts_collapse(
    tmp_path: Path,
) -> None:
    result = forecast(tmp_path / "run")
    assert 0.2 < result["error"]["ahead_1"] < 0.26
    assert result["error"]["multi_step"] > result["deviation"]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"after epoch 1; lower task\.learning_rate"):
        forecast(tmp_path / "run", "task.learning_rate=1e30")


REFUSED = {
    "task.forecaster=grue": "unknown task.forecaster 'grue': did you mean 'gru'? known: gru, lstm",
    "task.tau=600": "task.tau=600: must be below task.train_points=600",
    "task.tau=0": "task.tau=0: must be at least 1",
    "task.train_points=996": "plus task.tau=4 it must be below task.points=1000",
    "task.horizons=[0,4]": "from 1 to task.train_points=600",
    "task.horizons=[601]": "from 1 to task.train_points=600",
    "task.horizons=[]": "expected one or more integers from 1 to task.train_points=600",
    "task.horizons=[near]": "expected an integer",
    "task.horizons=4": "task.horizons: expected a list, as in task.horizons=[...]",
    "task.noise=-1": "task.noise=-1.0: must be at least 0",
    "task.learning_rate=0": "task.learning_rate=0.0: must be above 0",
    "task.epochs=0": "task.epochs=0: must be at least 1",
    "task.hiden_size=3": "did you mean 'hidden_size'?",
    "run=latest": "has no meaning for task=forecast",
}


@pytest.mark.parametrize("word", REFUSED)
def test_a_request_that_makes_no_sense_is_refused_while_it_is_composed(word: str) -> None:
    with pytest.raises(Refused) as refused:
        compose(["task=forecast", word])
    assert REFUSED[word] in str(refused.value)


def test_an_override_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="max_steps=5 has no meaning for task=forecast"):
        forecast(tmp_path / "run", "training.max_steps=5")


def test_a_device_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="device=cuda has no meaning"):
        forecast(tmp_path / "run", "device=cuda")
