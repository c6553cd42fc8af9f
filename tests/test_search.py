"""A search: what it varies, what it refuses, how it goes on, what it finds."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from unroll import app
from unroll.errors import BAD_INPUT, FAILED, FAILURE, Refused
from unroll.overrides import jobs_to_check, parsed, to_hydra_command
from unroll.search.config import SearchConfig
from unroll.search.findings import importance, report
from unroll.search.space import Space
from unroll.search.study import Search, open_storage, trial_id, validation_loss, watch
from unroll.sweep import Note

optuna = pytest.importorskip("optuna", reason="needs optuna: pip install 'unroll[optuna]'")
pytestmark = pytest.mark.engines

RATE = "optimizer.learning_rate=tag(log,interval(1e-3,1e-1))"
WORDS = (RATE, "model=rnn,gru", "model.hidden_size=range(8,33,8)", "seed=3")


def space(*words: str) -> Space:
    return Space.of([parsed(word) for word in words])


def search(folder: Path, *words: str, **config: Any) -> Search:
    return Search(SearchConfig(**config), space(*(words or WORDS)), folder)


def loss(params: Mapping[str, Any]) -> float:
    """A landscape whose best place is a GRU of 24 units with a learning rate of 0.01."""
    distance = abs(math.log10(params["optimizer.learning_rate"]) + 2)
    return distance + abs(params["model.hidden_size"] - 24) / 24 + (params["model"] == "rnn")


def run(made: Search, trials: int, batch: int = 1) -> None:
    """Carry out this many trials of a search."""
    for _ in range(trials):
        for trial in made.next_trials(batch):
            result = {"valid": {"loss": loss(trial.params)}}
            made.tell(trial.number, Note(0, [], "run"), result)


def drawn(made: Search) -> list[dict[str, Any]]:
    return [trial.params for trial in made.finished()]


# What is varied


@pytest.mark.parametrize(
    ("word", "within"),
    [
        ("training.dropout=interval(0.1,0.4)", lambda value: 0.1 <= value <= 0.4),
        (RATE, lambda value: 1e-3 <= value <= 1e-1),
        ("model.hidden_size=int(interval(8,12))", {8, 9, 10, 11, 12}.__contains__),
        ("model.hidden_size=range(8,33,8)", {8, 16, 24, 32}.__contains__),
        ("training.dropout=range(0.1,0.45,0.1)", (0.1, 0.2, 0.3, 0.4).__contains__),
        ("model=choice(rnn,gru)", {"rnn", "gru"}.__contains__),
        ("model.tie_weights=true,false", {"True", "False"}.__contains__),
        ("model=glob(*,exclude=*r*)", {"lstm"}.__contains__),
        ("model.layers=range(2,3)", {2}.__contains__),
    ],
)
def test_every_value_that_is_drawn_is_one_that_the_word_allows(
    tmp_path: Path, word: str, within: Callable[[Any], bool]
) -> None:
    made = search(tmp_path, word, "seed=3", sampler="random")
    name = word.partition("=")[0]
    for _ in range(12):
        (trial,) = made.next_trials(1)
        value = round(trial.params[name], 9) if "range(0." in word else trial.params[name]
        assert within(value), value
        assert made.space.words(trial.params) == ["seed=3", f"{name}={trial.params[name]}"]
        made.tell(trial.number, Note(0, [], "run"), {"valid": {"loss": 1.0}})


def test_a_logarithmic_interval_is_drawn_evenly_over_its_powers(tmp_path: Path) -> None:
    key = space("optimizer.learning_rate=tag(log,interval(1e-5,1e-1))").keys
    distribution = key["optimizer.learning_rate"].distribution()
    assert (distribution.low, distribution.high, distribution.log) == (1e-5, 1e-1, True)


def test_before_the_first_trial_every_value_and_both_bounds_are_composed() -> None:
    words = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", *WORDS]
    jobs = list(jobs_to_check(to_hydra_command(words)))
    named = [("0.001", "0.1"), ("rnn", "gru"), ("8", "16", "24", "32")]
    keys = ["optimizer.learning_rate", "model", "model.hidden_size"]
    expected = {
        f"{key}={value}" for key, values in zip(keys, named, strict=True) for value in values
    }
    assert {word for job in jobs for word in job} == expected | {"seed=3"}
    assert len(jobs) < len(list(product(*named)))


# How it goes on


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("killed_with", [[], ["drawn"], ["drawn", "drawn"]])
def test_a_search_that_was_killed_draws_what_one_that_was_not_draws(
    tmp_path: Path, sampler: str, killed_with: list[str]
) -> None:
    config = {"n_trials": 14, "sampler": sampler, "startup_trials": 4}
    batch = max(1, len(killed_with))
    whole = search(tmp_path / "whole", **config)
    run(whole, 14 // batch, batch)
    cut = search(tmp_path / "cut", **config)
    run(cut, 8 // batch, batch)
    if killed_with:
        cut.next_trials(batch)  # begun, and then the process was killed
    again = search(tmp_path / "cut", **config)
    run(again, 6 // batch, batch)
    assert drawn(again) == drawn(whole)
    assert len(set(map(str, drawn(whole)))) == 14  # no draw is made twice
    assert again.next_trials(1) == []
    assert len(again.finished()) == 14


def test_a_trial_that_was_killed_while_it_was_drawn_is_given_up_and_not_counted(
    tmp_path: Path,
) -> None:
    made = search(tmp_path, n_trials=3)
    run(made, 1)
    made.study.ask({"model": optuna.distributions.CategoricalDistribution(("rnn", "gru"))})
    run(search(tmp_path, n_trials=3), 5)
    assert len(made.finished()) == 3


def test_raising_the_number_of_trials_goes_on_with_the_same_search(tmp_path: Path) -> None:
    run(search(tmp_path, n_trials=2), 5)
    raised = search(tmp_path, n_trials=5)
    assert len(raised.finished()) == 2
    run(raised, 5)
    assert len(raised.finished()) == 5


def test_the_name_follows_from_the_words_and_not_from_their_order_or_from_places(
    tmp_path: Path,
) -> None:
    name = search(tmp_path).name
    places = ("tracking.directory=x", "hydra.sweeper.n_trials=9", "threads=1")
    assert search(tmp_path, *places, *reversed(WORDS)).name == name
    others = [search(tmp_path, *WORDS[:-1], "seed=4"), search(tmp_path, sampler="random")]
    others += [search(tmp_path, seed=2), search(tmp_path, *WORDS[:-1])]
    assert len({name, *(other.name for other in others)}) == 5


def test_two_processes_do_not_carry_out_the_same_search(tmp_path: Path) -> None:
    with search(tmp_path).claimed(), pytest.raises(Refused, match="another process"):
        search(tmp_path).claimed().__enter__()


def test_tpe_comes_nearer_to_the_best_place_than_random_draws(tmp_path: Path) -> None:
    means = {}
    for sampler in ("tpe", "random"):
        made = search(tmp_path, sampler=sampler, n_trials=40)
        run(made, 40)
        means[sampler] = sum(map(loss, drawn(made)[20:])) / 20
    assert means["tpe"] < means["random"]


# What becomes of a trial


def test_trials_end_as_complete_pruned_or_failed(tmp_path: Path) -> None:
    made = search(tmp_path)
    ends: list[tuple[Note, Any]] = [
        (Note(0, [], "run"), {"run_id": "a", "valid": {"loss": 2.0}}),
        (Note(0, [], "pruned"), {"run_id": "b", "valid": {"loss": 3.0}}),
        (Note(0, [], "failed", f"{FAILURE}the loss is NaN", FAILED), None),
        (Note(0, [], "failed", "a batch does not fit", BAD_INPUT), None),
    ]
    for note, result in ends:
        (trial,) = made.next_trials(1)
        made.tell(trial.number, note, result)
    states = [trial.state.name for trial in made.finished()]
    assert states == ["COMPLETE", "PRUNED", "PRUNED", "FAIL"]
    assert [trial.user_attrs.get("run_id") for trial in made.finished()] == ["a", "b", None, None]


def test_a_trial_that_another_process_trains_is_asked_for_again(tmp_path: Path) -> None:
    made = search(tmp_path)
    (trial,) = made.next_trials(1)
    made.tell(trial.number, Note(0, [], "elsewhere"), {"elsewhere": True})
    assert made.next_trials(1) == [trial]


def test_the_loss_is_that_of_the_validation_split(tmp_path: Path) -> None:
    result = {"valid": {"loss": 2.5}, "test": {"loss": 1.0}}
    assert validation_loss(result, tmp_path) == 2.5
    assert validation_loss({"valid": {"loss": None}}, tmp_path) == math.inf
    with pytest.raises(Refused, match="validation split"):
        validation_loss({"valid": None}, tmp_path)


def test_the_median_pruner_stops_the_worse_half_of_validation_curves(tmp_path: Path) -> None:
    made = search(tmp_path, startup_trials=2)

    def watched(number: int, pruner: str = "median") -> Callable[[float, int], bool] | None:
        values: dict[str, Any] = {"study_name": made.name, "storage": made.url, "trial": number}
        return watch({**values, "startup_trials": 2, "pruner": pruner})

    for curve in ([5.0, 4.0, 3.0], [6.0, 5.0, 4.0]):
        (trial,) = made.next_trials(1)
        ask = watched(trial.number)
        assert ask is not None
        assert not any(ask(value, place) for place, value in enumerate(curve, 1))
        made.tell(trial.number, Note(0, [], "run"), {"valid": {"loss": curve[-1]}})
    (trial,) = made.next_trials(1)
    good, poor = watched(trial.number), watched(trial.number)
    assert good is not None
    assert poor is not None
    assert not good(5.4, 1)  # the median is 5.5
    assert poor(5.3, 2)  # as good as before, and the others are better now
    assert poor(5.3, 2)  # said again by a training that was resumed
    assert watched(trial.number, "none") is None
    assert watch({"trial": None, "pruner": "median"}) is None


# What it finds


def test_the_overlay_has_the_best_complete_trial_and_plots_name_the_key_that_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unroll.search.config.CHECKOUT", tmp_path)
    monkeypatch.setattr("unroll.search.config.CONF", tmp_path / "conf")
    made = search(tmp_path, *WORDS[:2], "data=lee_news", overlay="search/mine", n_trials=24)
    for _ in range(24):
        (trial,) = made.next_trials(1)
        distance = abs(math.log10(trial.params["optimizer.learning_rate"]) + 2)
        made.tell(trial.number, Note(0, [], "run"), {"valid": {"loss": distance}})
    (trial,) = search(tmp_path, *WORDS[:2], "data=lee_news", n_trials=25).next_trials(1)
    made.storage.set_trial_intermediate_value(trial_id(made.storage, made.name, 24), 1, 0.0)
    made.tell(trial.number, Note(0, [], "pruned"), None)
    report(made)
    best = made.study.best_trial
    overlay = yaml.safe_load((tmp_path / "conf/experiment/search/mine.yaml").read_text())
    assert overlay["optimizer"]["learning_rate"] == best.params["optimizer.learning_rate"]
    assert overlay["defaults"] == [
        {"override /data": "lee_news"},
        {"override /model": best.params["model"]},
    ]
    assert "unroll experiment=search/mine" in capsys.readouterr().out
    shares = importance(made)
    assert shares["optimizer.learning_rate"] > shares["model"]
    assert {path.stem for path in made.folder.glob("*.svg")} == {"history", "importance"}
    made.config.check()  # the same search may write its overlay again


def test_a_search_in_which_no_trial_completes_says_so(tmp_path: Path) -> None:
    made = search(tmp_path, n_trials=1)
    (trial,) = made.next_trials(1)
    made.tell(trial.number, Note(0, [], "failed", "x", BAD_INPUT), None)
    with pytest.raises(Refused, match="1 fail; none has a validation loss"):
        report(made)
    assert not (made.folder / "experiment").exists()


# What is refused

SMALL = ("data=lee_news", "model=ngram", "model.order=1,2")
REFUSED = {
    "hydra.sweeper.n_trials=0": "must be at least 1",
    "hydra.sweeper.sampler=tpee": "did you mean 'tpe'?",
    "hydra.sweeper.pruner=hyper": "known: median, none",
    "hydra.sweeper.trails=3": "unknown key in hydra.sweeper 'trails'",
    "hydra.sweeper.seed=x": "expected an integer",
    "hydra.sweeper.study_name=a/b": "expected letters",
    "hydra.sweeper.storage=sqlite:////nowhere/at/all.db": "cannot be opened",
    "hydra.sweeper.storage=nonsense": "expected an address such as sqlite:",
    "hydra.sweeper.overlay=../x": "expected a name such as",
    "hydra.sweeper.overlay=study/lstm": "no search wrote it",
    "optimizer.learning_rate=interval(3e-2,1e-3)": "the first bound must be below the second",
    "optimizer.learning_rate=tag(log,interval(0,1))": "above 0",
    "optimizer.learning_rate=interval(-1,1)": "optimizer.learning_rate=-1.0",
    "seed=tag(log,choice(1,2))": "needs an interval",
    "model.order=range(3,3)": "has no values",
    "model.order=range(1,3,0)": "range",
    "data/tokenizer=word,character": "cannot be compared",
    "task=describe": "compares trainings",
}


@pytest.fixture
def refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The one line of a search that must be refused, and leave nothing behind."""
    monkeypatch.setattr("sys.argv", ["unroll"])
    monkeypatch.setattr("unroll.config.HOME", tmp_path)

    def refusal_(*words: str) -> str:
        places = (f"tracking.directory={tmp_path}/m", f"hydra.sweep.dir={tmp_path}/s")
        before = sorted(tmp_path.rglob("*"))
        code = app.command(["-m", "hydra/sweeper=optuna", *places, *words])
        printed = capsys.readouterr()
        assert (code, printed.out, printed.err.count("\n")) == (BAD_INPUT, "", 1), printed
        assert sorted(tmp_path.rglob("*")) == before
        return printed.err

    return refusal_


@pytest.mark.parametrize(("word", "reason"), REFUSED.items())
def test_a_wrong_search_is_refused_in_one_line_before_anything_is_written(
    refusal: Callable[..., str], word: str, reason: str
) -> None:
    assert reason in refusal(*SMALL, word)


def test_a_search_without_a_key_to_search_is_refused(refusal: Callable[..., str]) -> None:
    assert "needs a key to search" in refusal("model=ngram", "model.order=2")


def test_without_optuna_a_line_says_what_to_install(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'unroll[optuna]'" in refusal(*SMALL)


def test_a_study_of_the_same_name_with_other_words_is_refused(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    run(search(tmp_path / "m", study_name="mine", n_trials=1), 1)
    line = refusal(*SMALL, "hydra.sweeper.study_name=mine")
    assert "begun with other overrides" in line
    assert "model.order=1,2" in line
    assert len(search(tmp_path / "m", study_name="mine").finished()) == 1


def test_a_secret_of_the_command_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "f8Kq-secret-91")
    words = (*WORDS, "data.path=https://me:f8Kq-secret-91@example.org/a.txt")
    for trials in (1, 2):  # made, and found again
        made = search(tmp_path, *words, n_trials=trials)
        run(made, 1)
    report(made)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"f8Kq-secret-91" not in path.read_bytes(), path


def test_a_search_that_is_only_checked_makes_no_file(tmp_path: Path) -> None:
    search(tmp_path / "m").open()  # its engine may still be refused
    assert not (tmp_path / "m").exists()


def test_a_password_of_the_storage_is_not_shown() -> None:
    with pytest.raises(Refused) as refused:
        open_storage("postgresql://user:geheim@host.invalid/x")
    assert "geheim" not in str(refused.value)


# As a command


def command(home: Path, *words: str) -> list[str]:
    places = [f"tracking.directory={home}/m", f"data.cache={home}/c", "tracking=disabled"]
    return [sys.executable, "-m", "unroll", *words, *places]


def test_a_search_that_is_killed_goes_on_and_its_overlay_runs(tmp_path: Path) -> None:
    words = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.seed=2"]
    words += [f"hydra.sweep.dir={tmp_path}/s", "hydra.sweeper.study_name=orders"]
    words += ["data=lee_news", "data.limit=40", "model=ngram", "model.order=range(1,6)"]
    words += ["sampling.length=2"]
    begun = command(tmp_path, *words)
    process = subprocess.Popen(begun, stdout=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not (tmp_path / "s" / "2").exists():  # the third trial has begun
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    words[4] = f"hydra.sweep.dir={tmp_path}/again"
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(command(tmp_path, *words), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials finished before" in done.stdout
    assert "0 trials finished before" not in done.stdout
    assert "6 trials (6 complete)" in done.stdout
    folder = tmp_path / "m" / "search" / "orders"
    assert {path.name for path in folder.glob("*.svg")} >= {"history.svg"}

    study = optuna.load_study(study_name="orders", storage=f"sqlite:///{folder}/study.db")
    orders = [trial.params["model.order"] for trial in study.trials]
    best = study.best_trial
    shown = next(line for line in done.stdout.splitlines() if line.startswith("to run it:"))
    assert shown.split(":", 1)[1].split() == [
        *("unroll", "--config-dir", str(folder), "experiment=best")
    ]
    ran = subprocess.run(
        command(tmp_path, *shown.split()[4:], f"hydra.run.dir={tmp_path}/best", "device=cpu"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    result = (tmp_path / "best" / "result.json").read_text()
    assert f'"loss": {best.value}' in result
    assert len(orders) == 6
