"""Tuning: each model has the same trials, and the best of them becomes its overlay."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from experiments import study, tune


class Trial:
    """A finished run whose validation perplexity passes through a minimum."""

    def __init__(self, best: float) -> None:
        self.best = best
        self.params = {"training.epochs": "7"}

    def curve(self, key: str) -> list[tuple[float, float]]:
        assert key == "valid/perplexity"
        return [(1.0, 2 * self.best), (2.0, self.best), (3.0, 3 * self.best)]


def test_every_model_has_the_same_trials() -> None:
    assert len(set(Counter(model for model, _ in tune.TRIALS).values())) == 1


def test_the_overlay_has_the_trial_with_the_least_validation_perplexity(
    tmp_path: Path,
) -> None:
    results: Any = {
        tune.label(*trial): [Trial(100.0 + number)] for number, trial in enumerate(tune.TRIALS)
    }
    results[tune.label("gru", 8e-3)] = [Trial(50.0)]
    text = tune.write_chosen(results, "gru", tmp_path)
    overlay = yaml.safe_load((tmp_path / "gru.yaml").read_text())
    assert float(overlay["optimizer"]["learning_rate"]) == 8e-3
    assert {"override /model": "gru"} in overlay["defaults"]
    assert overlay["defaults"][0] == f"/experiment/{study.CHOSEN}/_study"
    assert "of 7 epochs" in text
    assert "50.0" in text
