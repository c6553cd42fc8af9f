"""Overlays that are written: what they compose, and what they leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

from unroll import overlay
from unroll.app import compose

WORDS = [
    ("model=gru", "model.hidden_size=48", "data/batching=windows", "data.batching.length=7"),
    ("optimizer.learning_rate=0.0123456789012345", "optimizer/schedule=step"),
    ("training.dropout=0.3", "experiment=study/lstm", "model.layers=2"),
    ("experiment=[width/128,batch/16]", "seed=7"),
    ("sampling.prefix=['it was, so','yes: no']", "data=text_files", "data.path='a b=c.txt'"),
    ("model.embedding_size=${model.hidden_size}", "training.clip_norm=null"),
    ("model=ngram", "model.order=4"),
]


@pytest.mark.parametrize("words", WORDS)
def test_an_overlay_composes_what_its_words_compose(tmp_path: Path, words: tuple[str, ...]) -> None:
    overlay.write(tmp_path / "experiment" / "best.yaml", "Found.\nTwice.", words)
    assert compose(["experiment=best"], added=tmp_path) == compose(words)


def test_an_overlay_says_how_it_was_found_and_not_where_it_ran(tmp_path: Path) -> None:
    words = ["tracking=disabled", "hydra.job.num=3", "threads=1", "device=cpu", "rerun=true"]
    words += ["data.cache=c", "tracking.directory=m", "seed=3"]
    path = tmp_path / "experiment" / "best.yaml"
    text = overlay.write(path, "Found by chance.", words)
    assert path.read_text() == text == "# @package _global_\n# Found by chance.\nseed: 3\n"
    assert compose(["experiment=best"], added=tmp_path) == compose(["seed=3"])
