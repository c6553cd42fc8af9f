"""Equal time: which trainings a wait lets end, and how long each takes."""

from __future__ import annotations

from typing import Any

import pytest

from experiments import equal_time
from unroll.report.runs import Measured


class Learned:
    """A run that learned so many targets."""

    def __init__(self, targets: int) -> None:
        self.targets = targets

    def result(self) -> dict[str, Any]:
        return {"tokens": self.targets}


def taken(targets: int, rates: dict[str, float]) -> dict[str, float]:
    """Seconds where an epoch is ``targets`` long and a model learns so many a second."""
    epochs = {"one epoch": 1, "two epochs": 2}
    results: Any = {
        label: [Learned(targets * epochs.get(label.partition(", ")[2], 4))]
        for label in equal_time.MODEL_OF
    }
    return equal_time.seconds_of(
        results, {name: Measured((r, r, 9 * r)) for name, r in rates.items()}
    )


def test_a_training_takes_its_targets_divided_by_the_speed_of_its_model() -> None:
    found = taken(100, {"RNN": 20.0, "LSTM": 10.0, "GRU": 10.0, "Transformer": 5.0, "5-gram": 1e3})
    assert found["RNN, one epoch"] == 5
    assert found["RNN"] == 20
    assert found["Transformer, two epochs"] == 40
    assert found["5-gram"] == 0.4


def test_a_wait_compares_the_longest_training_of_each_model_that_ends_within_it() -> None:
    seconds = taken(100, {"RNN": 20.0, "LSTM": 10.0, "GRU": 8.0, "Transformer": 5.0, "5-gram": 1e3})
    waits = equal_time.waits_of(seconds)
    assert waits == pytest.approx([20, 20 * 2**0.5, 40, 20 * 2**1.5, 80])
    first, *_, last = (equal_time.within(wait, seconds) for wait in waits)
    assert first == {
        "RNN": "RNN",
        "LSTM": "LSTM, two epochs",
        "GRU": "GRU, one epoch",
        "Transformer": "Transformer, one epoch",
        "5-gram": "5-gram",
    }
    assert last == {name: name for name in equal_time.EVERY}
