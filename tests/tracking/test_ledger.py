"""Runs are found by id, name, latest and path; a missing one is refused with what to do."""

import time
from pathlib import Path

import pytest

from unroll.errors import Refused
from unroll.tracking.ledger import (
    BEST,
    CHECKPOINTS,
    LAST,
    entries,
    find_checkpoint,
    record,
    write_atomically,
)


def entered(store: Path, run_id: str, name: str, checkpoint: str | None = BEST) -> Path:
    directory = store / "runs" / run_id
    (directory / CHECKPOINTS).mkdir(parents=True)
    if checkpoint is not None:
        (directory / CHECKPOINTS / checkpoint).write_bytes(b"weights")
    record(store, run_id, name, directory)
    time.sleep(0.002)
    return directory


def test_a_name_that_several_runs_bear_means_the_newest(tmp_path: Path) -> None:
    entered(tmp_path, "a", "twice")
    newest = entered(tmp_path, "b", "twice")
    assert find_checkpoint(tmp_path, "twice") == newest / CHECKPOINTS / BEST
    assert find_checkpoint(tmp_path, "a").parents[1].name == "a"


def test_latest_passes_over_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    whole = entered(tmp_path, "a", "whole")
    entered(tmp_path, "b", "cut off", checkpoint=None)
    assert find_checkpoint(tmp_path, "latest") == whole / CHECKPOINTS / BEST
    with pytest.raises(Refused, match="no checkpoint"):
        find_checkpoint(tmp_path, "cut off")


def test_the_last_checkpoint_stands_in_for_a_best_that_was_not_reached(tmp_path: Path) -> None:
    directory = entered(tmp_path, "a", "x", checkpoint=LAST)
    assert find_checkpoint(tmp_path, str(directory)) == directory / CHECKPOINTS / LAST


def test_a_run_that_does_not_exist_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    entered(tmp_path, "a", "lee_news-lstm")
    with pytest.raises(Refused, match="did you mean 'lee_news-lstm'"):
        find_checkpoint(tmp_path, "lee_news-lstn")
    with pytest.raises(Refused, match="train one first"):
        find_checkpoint(tmp_path / "empty", "latest")


def test_a_damaged_entry_hides_no_other(tmp_path: Path) -> None:
    entered(tmp_path, "a", "x")
    (tmp_path / "ledger" / "b.json").write_text("{", encoding="utf-8")
    assert [entry.run_id for entry in entries(tmp_path)] == ["a"]


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    write_atomically(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "first"
