"""What a session says of its time before and while it runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments import estimate


def test_a_session_ends_no_sooner_than_its_longest_job() -> None:
    assert estimate.total([10.0, 20.0, 30.0], [5.0, 5.0], parallel=2) == 40.0
    assert estimate.total([90.0, 20.0, 30.0], [], parallel=2) == 90.0
    assert estimate.total([], [], parallel=2) == 0.0


@pytest.mark.parametrize("slower", [0.5, 1.0, 3.0])
def test_what_is_left_follows_the_pace_of_this_machine(
    slower: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = estimate.Clock(expected=100.0, jobs=3)
    now += 20 * slower
    assert clock.left(20.0) == pytest.approx(80 * slower)
    now += 80 * slower
    assert clock.left(80.0) == pytest.approx(0.0)


def write(path: Path, results: dict[str, dict[str, list[float]]]) -> Any:
    runs: Any = {
        study: {
            label: [SimpleNamespace(seconds=each, run_id=f"{each:g} s") for each in found]
            for label, found in labels.items()
        }
        for study, labels in results.items()
    }
    estimate.write(path, runs)
    return json.loads(path.read_text())


def test_a_job_takes_what_it_took_on_the_page_and_one_that_is_new_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "MEASURED", tmp_path / "seconds.json")
    estimate.measured.cache_clear()
    try:
        assert estimate.measured() == {}
        assert estimate.seconds("cells", "RNN") == 1.0
        first = {"cells": {"RNN": [10.0, 20.0]}, "memory": {"RNN, gap 3": [5.0]}}
        found = write(estimate.MEASURED, first)
        assert found == {"quick": {"cells: RNN": 15.0, "memory: RNN, gap 3": 5.0}}
        estimate.measured.cache_clear()
        assert estimate.seconds("cells", "RNN") == 15.0
        assert estimate.seconds("cells", "LSTM") == 10.0
        monkeypatch.setattr(estimate, "PROFILE", "full")
        found = write(tmp_path / "report.json", {"cells": {"RNN": [100.0]}})
        assert found["quick"]["cells: RNN"] == 15.0
        assert found["full"] == {"cells: RNN": 100.0}
        (tmp_path / "report.json").rename(estimate.MEASURED)
        estimate.measured.cache_clear()
        assert estimate.seconds("cells", "RNN") == 100.0
        assert estimate.seconds("memory", "RNN, gap 3") == 5.0  # only known of the other profile
        again = {"cells": {"GRU": [30.0], "GRU, scored by another job": [30.0]}}
        assert write(estimate.MEASURED, again)["full"] == {"cells: GRU": 30.0}
    finally:
        estimate.measured.cache_clear()


def test_times_are_written_so_that_a_person_reads_them() -> None:
    assert estimate.duration(40.4) == "40 s"
    assert estimate.duration(1500) == "25 min"
