"""Tests of the configs of jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import composing
from unroll.app import compose
from unroll.errors import Refused


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What Hydra was asked for, by a project that has kept nothing."""
    found: list[list[str]] = []
    monkeypatch.setattr(composing, "HOME", tmp_path)
    monkeypatch.setattr(composing, "compose", lambda words: found.append(words) or compose(words))
    return found


def test_jobs_that_differ_only_in_the_seed_are_composed_once(asked: list[list[str]]) -> None:
    for seeds in (["seed=1"], ["seed=2"], ["seed=1", "seed=3"]):
        words = ["experiment=study/gru", *seeds, "data.limit=30"]
        assert composing.composed(words) == compose([*words, "threads=1"])
    assert len(asked) == 1
    with pytest.raises(Refused, match="seed=-1"):
        composing.composed(["seed=-1"])


def test_configs_that_were_composed_ahead_are_not_composed_again(asked: list[list[str]]) -> None:
    jobs = [["model=gru", "seed=1"], ["model=gru", "seed=2"], ["model=rnn"], ["model=lstm"]]
    composing.compose_ahead([*jobs, ["model=none"]], 1)
    assert len(asked) == 4
    assert [composing.composed(words).model.name for words in jobs] == ["gru", "gru", "rnn", "lstm"]
    assert len(asked) == 4
    with pytest.raises(Refused, match="none"):
        composing.composed(["model=none"])
