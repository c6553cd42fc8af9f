"""The training task: what it refuses before training, what it leaves after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unroll.app import compose
from unroll.data.token_stream import Encoded, TokenStream
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.errors import Refused
from unroll.registry import build
from unroll.tasks.run import Result
from unroll.tasks.train import train
from unroll.tasks.training_result import warn_of_unknown
from unroll.tracking.recorded import Recorded
from unroll.tracking.tracker import DisabledTracker

TINY = ("data=text_files", "data.batching.length=5", "data.batching.batch_size=3",
        "training.epochs=2", "sampling.length=2", "device=cpu")  # fmt: skip
LSTM = ("model=lstm", "model.hidden_size=4", "model.embedding_size=4")
NGRAM = ("model=ngram", "model.order=2")


def third(document: int) -> int:
    return document % 3


@pytest.fixture
def trained(tmp_path):
    """The result of a training without a tracking server."""

    def trained_(*words: str, model: tuple[str, ...] = LSTM, number: Callable[[int], int] = third):
        text = tmp_path / "text.txt"
        documents = (f"one two three {number(i)} four five six ." for i in range(40))
        text.write_text("\n\n".join(documents))
        places = [f"data.path={text}", f"tracking.directory={tmp_path}", f"data.cache={tmp_path}"]
        overrides = ["tracking=disabled", *model, *TINY, *places, *words]
        config = compose(overrides)
        return train(config.task, config, tmp_path / "run", overrides, reuse=False)

    return trained_


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["training.patience=3"], "training.patience=3"),
        (["optimizer/schedule=plateau"], "optimizer/schedule=plateau"),
    ],
)
def test_a_setting_that_needs_a_validation_split_is_refused_without_one(
    trained, tmp_path: Path, words, setting
):
    with pytest.raises(Refused) as refused:
        trained("data.valid_fraction=0", *words)
    line = str(refused.value)
    assert line.startswith(f"{setting} needs a validation split, and this corpus has none: set ")
    assert "data.valid_fraction above 0" in line
    assert "\n" not in line
    assert not (tmp_path / "run").exists(), "before training"
    assert trained(*words)["valid"], "the same settings train with a validation split"


def test_a_training_without_a_validation_split_needs_no_such_setting(trained):
    result = trained("data.valid_fraction=0")
    assert result["valid"] is None
    assert result["best_step"] == result["steps"]


@pytest.mark.parametrize("model", [LSTM, NGRAM])
def test_unknown_words_that_cannot_be_learned_give_one_line_of_warning(trained, capsys, model):
    trained(model=model, number=lambda document: document)  # each number once: held out, unknown
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unroll: 12.5% of the ")
    assert "set data.vocabulary.min_frequency=2" in line


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["data.vocabulary.min_frequency=2"], lambda document: document),  # <unk> is learned
        (["data/tokenizer=subword"], lambda document: document),  # nothing is unknown
        ([], third),
        (["data.valid_fraction=0", "data.test_fraction=0"], lambda document: document),
    ],
)
def test_there_is_no_warning_where_unknown_words_are_learned_or_absent(
    trained, capsys, words, number
):
    trained(*words, number=number)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("unknown", "lines"), [(1, 0), (2, 1)])
def test_a_hundredth_of_unknown_tokens_is_no_reason_to_warn(capsys, unknown, lines):
    vocabulary = Vocabulary([*SPECIALS, "one"])
    test = np.array([vocabulary.unknown] * unknown + [4] * (100 - unknown))
    streams = {"train": np.array([4, 4]), "test": test}
    found = {split: TokenStream.from_documents([ids]) for split, ids in streams.items()}
    tokenizer = build("data/tokenizer", compose(["data/tokenizer=word"]).data.tokenizer)
    warn_of_unknown(Encoded(tokenizer, vocabulary, found, "", ""))
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_the_loss_curve_is_drawn_without_a_tracking_store(trained, tmp_path: Path):
    trained()
    assert "<svg" in (tmp_path / "run" / "loss_curve.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", [LSTM, NGRAM])
def test_the_result_reports_the_speed_with_its_quartiles(trained, tmp_path: Path, model):
    trained(model=model)
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    speed = result["speed"]
    assert set(speed) == {"median", "lower_quartile", "upper_quartile"}
    assert 0 < speed["lower_quartile"] <= speed["median"] <= speed["upper_quartile"]


def test_the_speed_and_the_largest_gradient_norm_are_metrics(trained, tmp_path: Path, monkeypatch):
    logged: dict[str, float] = {}
    monkeypatch.setattr(
        DisabledTracker,
        "log",
        lambda self, figures, step: logged.update(figures),
    )
    result = trained()
    for key, value in result["speed"].items():
        assert logged[f"speed/{key}"] == value
    assert logged["grad_norm_max"] >= logged["grad_norm"] > 0


def test_a_pruned_training_ends_as_killed_is_not_reused_and_goes_on(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"one two three {i % 3} four five six ." for i in range(40)))
    words = ["tracking=disabled", *LSTM, *TINY, "data.valid_fraction=0.2", f"data.path={text}"]
    words += [f"tracking.directory={tmp_path}", f"data.cache={tmp_path}"]
    config, places = compose(words), (tmp_path / "pruned", tmp_path / "again")

    def run(directory: Path, stop: bool) -> Result:
        return train(config.task, config, directory, words, True, lambda loss, validation: stop)

    found = run(places[0], stop=True)
    assert (found["pruned"], found["epochs"], "test" in found) == (True, 1.0, False)
    recorded = Recorded(places[0])
    assert (recorded.info.status, recorded.data.tags["outcome"]) == ("KILLED", "PRUNED")
    assert json.loads((places[0] / "result.json").read_text())["valid"]["loss"] > 0

    again = run(places[1], stop=False)  # as a later multirun would
    assert (again["resumed_at"], again["epochs"]) == (found["steps"], 2.0)
    recorded = Recorded(places[0])
    assert (recorded.info.status, "outcome" in recorded.data.tags) == ("FINISHED", False)
    assert not places[1].exists()
