"""task=evaluate: a run's score is that of its training, and what it lacks is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unroll.app import compose, dispatch
from unroll.errors import Refused
from unroll.tracking.store import connect

TINY = ("model.hidden_size=8", "model.embedding_size=8", "data.limit=20", "training.max_steps=1")
TINY += ("data=lee_news", "data.batching.batch_size=4", "sampling.length=3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def do(home: Path) -> Callable[..., dict[str, Any]]:
    places = [f"tracking.directory={home}/mlruns", f"data.cache={home}/cache", "device=cpu"]

    def do_(directory: Path, *words: str) -> dict[str, Any]:
        directory.mkdir()
        return dispatch(compose([*places, *words]), directory, list(words), reuse=False)

    return do_


@pytest.fixture(scope="module")
def trained(do: Callable[..., dict[str, Any]], home: Path) -> dict[str, Any]:
    return do(home / "trained", *TINY)


def test_the_score_is_that_of_the_training_and_is_kept_with_its_run(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    result = do(tmp_path / "run", "task=evaluate", f"run={trained['run_id']}")
    assert result["perplexity"] == pytest.approx(trained["test"]["perplexity"], rel=1e-6)
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8")) == result
    (run,) = connect(home / "mlruns").search_runs(["1"])
    assert run.data.metrics["test/stream/perplexity"] == pytest.approx(result["perplexity"])
    assert run.info.status == "FINISHED"


def test_the_score_with_int8_weights_is_near_and_kept_beside_the_other(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    result = do(tmp_path / "run", "task=evaluate", f"run={trained['run_id']}", "precision=int8")
    assert result["perplexity"] == pytest.approx(trained["test"]["perplexity"], rel=0.01)
    assert result["perplexity"] != trained["test"]["perplexity"]
    (run,) = connect(home / "mlruns").search_runs(["1"])
    assert run.data.metrics["int8/test/stream/perplexity"] == pytest.approx(result["perplexity"])
    metric = run.data.metrics["test/stream/perplexity"]
    assert metric == pytest.approx(trained["test"]["perplexity"], rel=1e-6)


def test_a_split_that_the_corpus_lacks_is_refused_with_those_it_has(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the police said so")
    words = ("data=text_files", f"data.path={text}", "data.valid_fraction=0")
    words += ("data.test_fraction=0", "task=evaluate", f"run={trained['run_id']}")
    with pytest.raises(Refused, match=r"evaluation\.split=valid.*available: train"):
        do(tmp_path / "run", *words, "evaluation.split=valid")


def test_the_result_is_written_before_a_store_that_fails_can_lose_it(
    do: Callable[..., dict[str, Any]],
    trained: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unroll.tracking.tracker import MLflowTracker

    def fails(tracker: MLflowTracker, directory: Path, run_id: str) -> bool:
        raise Refused("the tracking store cannot be written")

    monkeypatch.setattr(MLflowTracker, "extend", fails)
    with pytest.raises(Refused):
        do(tmp_path / "run", "task=evaluate", f"run={trained['run_id']}")
    assert (tmp_path / "run" / "result.json").is_file()


def test_adapted_and_mixed_scores_are_kept_beside_the_plain_one(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    counted = do(tmp_path / "counted", "model=ngram", *TINY[2:3], *TINY[4:5], "sampling.length=3")
    words = ("task=evaluate", f"run={trained['run_id']}")
    words += ("evaluation.dynamic.learning_rate=0.002", "evaluation.cache.size=50")
    mixed = f"evaluation.mixture=[{counted['run_id']}]"
    result = do(tmp_path / "fitted", *words, mixed)
    assert result["protocol"] == "dynamic_and_cache_and_mixture"
    shares = result["mixture_weights"]
    assert sum(shares) == pytest.approx(1)
    assert result["perplexity"] < min(trained["test"]["perplexity"], counted["test"]["perplexity"])
    given = do(tmp_path / "given", *words, mixed, f"evaluation.mixture_weights={shares}")
    assert given["perplexity"] == pytest.approx(result["perplexity"], rel=1e-6)
    run = connect(home / "mlruns").get_run(trained["run_id"])
    of_all = run.data.metrics["test/dynamic_and_cache_and_mixture/perplexity"]
    assert of_all == pytest.approx(given["perplexity"])
    alone = do(tmp_path / "alone", *words[:2], "evaluation.cache.size=50")
    run = connect(home / "mlruns").get_run(trained["run_id"])
    assert run.data.metrics["test/cache/perplexity"] == pytest.approx(alone["perplexity"])
    assert run.data.metrics["test/dynamic_and_cache_and_mixture/perplexity"] == of_all
    assert run.data.metrics["test/perplexity"] == pytest.approx(trained["test"]["perplexity"])


def test_a_training_scores_the_test_split_with_the_adapted_model_too(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], tmp_path: Path
) -> None:
    words = ("evaluation.cache.size=50", "evaluation.cache.weight=0.2")
    words += (f"evaluation.mixture=[{trained['run_id']}]",)
    result = do(tmp_path / "run", *TINY, *words)
    assert result["test"] == trained["test"]
    assert result["adapted"]["perplexity"] < result["test"]["perplexity"]
    assert len(result["adapted"]["mixture_weights"]) == 2
    again = do(tmp_path / "again", "task=evaluate", f"run={result['run_id']}", *words)
    assert again["perplexity"] == pytest.approx(result["adapted"]["perplexity"], rel=1e-6)


def test_a_text_is_scored_with_what_was_learned_from_the_runs_own_corpus(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the police said so " * 30)
    words = ("task=evaluate", f"run={trained['run_id']}", f"evaluation.text={text}")
    plain = do(tmp_path / "plain", *words)
    adapted = do(tmp_path / "adapted", *words, "evaluation.dynamic.learning_rate=0.01")
    assert adapted["perplexity"] < 0.9 * plain["perplexity"]


def test_a_mixture_with_other_tokens_and_an_adapting_ngram_model_are_refused(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], tmp_path: Path
) -> None:
    words = ("model=ngram", *TINY[2:3], *TINY[4:5], "sampling.length=3")
    other = do(tmp_path / "other", *words, "data.vocabulary.min_frequency=2")
    run = ("task=evaluate", f"run={trained['run_id']}")
    with pytest.raises(Refused, match="has another vocabulary or tokenizer"):
        do(tmp_path / "mixed", *run, f"evaluation.mixture=[{other['run_id']}]")
    for key in ("cache.size=5", "dynamic.learning_rate=1"):
        with pytest.raises(Refused, match=r"has no meaning for model=ngram"):
            do(
                tmp_path / key,
                "task=evaluate",
                f"run={other['run_id']}",
                f"evaluation.{key}",
            )


def test_a_mixture_cannot_be_fitted_without_a_validation_split(
    do: Callable[..., dict[str, Any]], trained: dict[str, Any], tmp_path: Path
) -> None:
    words = (*TINY, "data.valid_fraction=0", f"evaluation.mixture=[{trained['run_id']}]")
    with pytest.raises(Refused, match=r"set evaluation.mixture_weights"):
        do(tmp_path / "run", *words)
