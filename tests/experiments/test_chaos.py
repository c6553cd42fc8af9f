"""The chaos study: what it compares, and the table that it draws. Its kills are not tested here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from experiments.chaos import section
from experiments.chaos.evidence import Comparison, doubled, recorded, weights
from experiments.chaos.processes import Command, after_growth, logging, writing_a_state
from experiments.chaos.results import HEAD, Results
from experiments.chaos.scenarios import Row
from experiments.running import sections
from safetensors.torch import save_file

from unroll.report import page
from unroll.tracking.journal import NAME, Journal

EQUAL = Row("killed", 3, True, True, 0, 12.3)
UNEQUAL = Row("sweep", 2, True, False, 4, 60.0, [-0.4, 2.0, 0.5])


def test_rows_that_are_there_more_often_are_counted() -> None:
    expected = [("a", 1, 0.5), ("a", 2, 0.5), ("b", 1, 1.0)]
    assert doubled(expected, expected) == 0
    assert doubled(expected[:2], expected) == 0
    assert doubled([*expected, ("a", 1, 0.5), ("b", 1, 2.0)], expected) == 2


def test_the_history_is_compared_without_metrics_of_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("start", key="k", name="run", tags={})
    journal.add_points({"train/loss": 2.0, "tokens_per_second": 9.0, "speed/median": 1.0}, 4)
    journal.close()
    assert recorded(tmp_path) == [("train/loss", 4, 2.0)]


def test_one_bit_of_a_weight_is_a_difference(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    tensors = {"w": torch.ones(3), "b": torch.zeros(2)}
    for name in ("best", "last"):
        save_file(tensors, folder / f"{name}.safetensors")
    before = weights(tmp_path)
    save_file({**tensors, "b": torch.tensor([0.0, -0.0])}, folder / "last.safetensors")
    assert weights(tmp_path) != before
    shutil.copy(folder / "best.safetensors", folder / "last.safetensors")
    assert weights(tmp_path) == before


def test_the_moments_see_a_state_being_written_and_a_journal_that_grows(tmp_path: Path) -> None:
    begun, state, log = (
        moment(tmp_path, 0.0) for moment in (after_growth, writing_a_state, logging)
    )
    assert not any((begun(), state(), log()))
    (tmp_path / NAME).write_bytes(b"x")
    assert (begun(), state(), log()) == (True, False, False)
    (tmp_path / NAME).write_bytes(b"xy")
    (tmp_path / "checkpoints" / ".state-000000003").mkdir(parents=True)
    assert (state(), log()) == (True, True)


def test_a_command_that_ends_before_its_moment_was_not_killed(tmp_path: Path) -> None:
    assert not Command(["--help"], tmp_path / "log").kill_at(lambda: False)
    assert Command(["--help"], tmp_path / "log").kill_at(lambda: True)


def test_a_row_is_equal_only_if_everything_is() -> None:
    found = Comparison()
    found.add(Comparison(True, False, 2))
    found.add(Comparison(True, True, 1))
    assert found == Comparison(True, False, 3)
    assert EQUAL.equal
    assert not UNEQUAL.equal
    assert not Row("x", 1, True, True, 1, 1.0).equal


def test_the_section_is_drawn_from_the_file_and_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "chaos" / "chaos.json"
    monkeypatch.setattr(section, "PLACE", place)
    assert section.STUDY.missing() == "needs results: make chaos"
    results = Results("make chaos KILLS=3", "a" * 40, "2026-01-01", [EQUAL, UNEQUAL])
    results.keep(place)
    assert section.STUDY.missing() is None
    assert Results.read(place) == results
    assert not results.equal
    assert page.write(tmp_path / "index.html", "Title", [], sections(section.STUDY, {}))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "1 of 2 scenarios ended with" in text
    assert "5 processes were killed" in text
    assert "+0.5% (-0.4 to +2.0)" in text
    assert all(name in text for name in HEAD)
