"""task=sample: a run is found, continued and kept as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unroll.app import compose, dispatch
from unroll.errors import Refused

TINY = ("model.hidden_size=8", "model.embedding_size=8", "data.limit=20", "training.max_steps=1")
TINY += ("data=lee_news", "data.batching.batch_size=4", "sampling.length=3")


@pytest.fixture(scope="module")
def do(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    home = tmp_path_factory.mktemp("home")
    places = ["tracking=disabled", f"tracking.directory={home}/mlruns", "device=cpu"]
    places += [f"data.cache={home}/cache"]

    def do_(directory: Path, *words: str) -> dict[str, Any]:
        directory.mkdir()
        return dispatch(compose([*places, *words]), directory, list(words), reuse=False)

    do_(home / "trained", *TINY)
    return do_


def test_a_run_is_found_by_its_name_with_spaces(
    do: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    name = "run=lstm lee_news hidden_size=8 embedding_size=8 limit=20 max_steps=1 ..."
    result = do(tmp_path / "run", "task=sample", name, "sampling.prefix=the police")
    (item,) = result["samples"]
    assert item["prefix"] == "the police"
    assert len(item["text"].split()) <= 100
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8")) == result


def test_without_a_prefix_the_first_test_documents_are_continued(
    do: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sampling.prefix=null", "sampling.prefix_length=4", "sampling.prefix_documents=3")
    result = do(tmp_path / "run", "task=sample", "run=latest", *words)
    prefixes = [item["prefix"] for item in result["samples"]]
    assert len(prefixes) == 3
    assert all(len(prefix.split()) == 4 for prefix in prefixes)
    shown = capsys.readouterr().out
    assert all(f"{prefix} [...]" in shown for prefix in prefixes)


def test_a_directory_that_holds_a_run_is_refused_before_anything_is_read(
    do: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    do(tmp_path / "run", "task=sample", "run=latest", "sampling.prefix=the")
    with pytest.raises(Refused, match="holds a run already"):
        dispatch(compose(["task=sample", "run=no such run"]), tmp_path / "run", [], reuse=False)


def test_text_is_written_with_int8_weights(
    do: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    words = ("task=sample", "run=latest", "sampling.prefix=the police", "sampling.samples=7")
    (*texts,) = do(tmp_path / "run", *words, "precision=int8")["samples"]
    assert len(texts) == 7
    assert all(len(item["text"].split()) == 50 for item in texts)
