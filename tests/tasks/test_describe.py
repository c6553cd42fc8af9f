"""task=describe: its result, its run in the store and its output; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from unroll.app import compose, dispatch
from unroll.config import Config
from unroll.errors import Refused
from unroll.tasks.describe import aligned, figures, model_layers, model_result, show_layers

SMALL = ("task=describe", "data=lee_news", "data.limit=20", "model.hidden_size=8", "model.layers=2")


def described(composed: Callable[..., Config], folder: Path, *words: str) -> dict:
    dispatch(composed(*SMALL, *words), folder, [], reuse=True)
    found: dict = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def test_the_result_holds_text_and_model_and_no_checkpoint(
    composed: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = described(composed, tmp_path / "run")
    assert found["task"] == "describe"
    assert found["run_id"]
    assert {split: part["documents"] for split, part in found["splits"].items()} == {
        "train": 18,
        "valid": 2,
        "test": 20,
    }
    assert found["splits"]["train"]["window"] == 100
    assert list(found["zipf"]) == ["unigrams", "bigrams", "trigrams"]
    assert found["zipf"]["unigrams"]["occurrences"] == found["splits"]["train"]["tokens"]
    layers = {row["layer"]: row["parameters"] for row in found["model"]["layers"]}
    assert layers["lstm 2"] == 4 * 8 * (8 + 8 + 2)
    assert found["model"]["parameters"] == sum(layers.values())
    found_files = {path.name for path in (tmp_path / "run").glob("[!.]*")}
    assert found_files == {"result.json", "tracking.journal"}
    said = capsys.readouterr().out
    top = found["splits"]["train"]["most_frequent"][0]
    assert f"{top['token']!r} {top['id']} ({top['count']:,})" in said
    assert f"{found['model']['parameters']:,}" in said


def test_the_window_is_the_task_s_own_and_a_text_shorter_than_it_is_described_too(
    composed: Callable[..., Config], tmp_path: Path
) -> None:
    words = ("task.window=5000", "data/batching=windows", "data.batching.length=6000")
    train = described(composed, tmp_path, *words)["splits"]["train"]
    assert (train["window"], train["windows"], train["target_rate"]) == (5000, 0, 0)


def test_a_window_without_tokens_is_refused() -> None:
    with pytest.raises(Refused, match=r"task\.window=0"):
        compose(["task=describe", "task.window=0"])


def test_a_text_too_short_for_a_law_is_described_without_one(
    composed: Callable[..., Config], tmp_path: Path
) -> None:
    text = tmp_path / "short.txt"
    text.write_text("one word", encoding="utf-8")
    words = ("data=text_files", f"data.path={text}", "data.valid_fraction=0")
    found = described(composed, tmp_path / "run", *words, "data.test_fraction=0")
    assert found["zipf"]["trigrams"]["fit"]["exponent"] is None
    assert found["zipf"]["trigrams"]["points"] == []


def test_the_parameters_of_a_model_without_layers_are_known_after_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    layers = model_layers(SimpleNamespace(name="ngram"), 10)
    assert layers is None
    show_layers("ngram", layers)
    assert "known after training" in capsys.readouterr().out
    assert model_result("ngram", layers)["parameters"] is None
    assert "parameters" not in figures({}, {}, layers)


@pytest.mark.usefixtures("mlruns")
def test_a_description_is_kept_in_the_store_and_reused_by_its_fingerprint(tmp_path: Path) -> None:
    from unroll.tracking.store import connect

    words = [*SMALL, f"tracking.directory={tmp_path}/mlruns", f"data.cache={tmp_path}/cache"]
    first = dispatch(compose(words), tmp_path / "first", words, reuse=True)
    again = dispatch(compose(words), tmp_path / "again", words, reuse=True)
    assert again == {"task": "describe", "run_id": first["run_id"], "reused": True}
    assert not (tmp_path / "again").exists()
    client = connect(tmp_path / "mlruns")
    (run,) = client.search_runs(["1"])
    assert (run.info.run_id, run.info.status) == (first["run_id"], "FINISHED")
    assert run.info.run_name.startswith("describe lstm lee_news limit=20")
    assert run.data.metrics["train/windows"] == first["splits"]["train"]["windows"]
    assert run.data.metrics["test/unknown_rate"] == first["splits"]["test"]["unknown_rate"]
    assert run.data.metrics["zipf/unigrams"] == first["zipf"]["unigrams"]["fit"]["exponent"]
    assert run.data.metrics["parameters"] == first["model"]["parameters"]
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["result.json"]


def test_tables_are_aligned_in_columns() -> None:
    assert aligned(["a", "bb"], [["ccc", "1"]]).splitlines() == ["", "a    bb", "ccc   1"]
