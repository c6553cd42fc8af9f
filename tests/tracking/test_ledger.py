"""Runs are found by id, name, latest and path; a missing one is refused with what to do."""

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
)


def entered(
    store: Path, run_id: str, name: str, checkpoint: str | None = BEST, started: float = 1.0
) -> Path:
    directory = store / "runs" / run_id
    (directory / CHECKPOINTS).mkdir(parents=True)
    if checkpoint is not None:
        (directory / CHECKPOINTS / checkpoint).write_bytes(b"weights")
    record(store, run_id, name, directory, started, "f")
    return directory


def test_a_name_that_several_runs_have_means_the_newest(tmp_path: Path) -> None:
    newest = entered(tmp_path, "b", "lstm hidden_size=128 seed=3", started=2.0)
    entered(tmp_path, "a", "lstm hidden_size=128 seed=3", started=1.0)
    assert find_checkpoint(tmp_path, "lstm hidden_size=128 seed=3") == newest / CHECKPOINTS / BEST
    assert find_checkpoint(tmp_path, "a").parents[1].name == "a"


def test_latest_is_the_run_that_was_started_last_not_the_last_to_reach_a_checkpoint(
    tmp_path: Path,
) -> None:
    latest = entered(tmp_path, "a", "quick", started=20.0)
    entered(tmp_path, "b", "slow", started=10.0)
    assert find_checkpoint(tmp_path, "latest") == latest / CHECKPOINTS / BEST


def test_a_name_too_long_for_a_path_is_a_name_all_the_same(tmp_path: Path) -> None:
    long = entered(tmp_path, "a", "x" * 5000)
    assert find_checkpoint(tmp_path, "x" * 5000) == long / CHECKPOINTS / BEST


def test_latest_leaves_out_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    whole = entered(tmp_path, "a", "whole")
    entered(tmp_path, "b", "cut off", checkpoint=None)
    assert find_checkpoint(tmp_path, "latest") == whole / CHECKPOINTS / BEST
    with pytest.raises(Refused, match="no checkpoint"):
        find_checkpoint(tmp_path, "cut off")


def test_the_last_checkpoint_replaces_a_best_that_was_not_reached(tmp_path: Path) -> None:
    directory = entered(tmp_path, "a", "x", checkpoint=LAST)
    assert find_checkpoint(tmp_path, str(directory)) == directory / CHECKPOINTS / LAST


def test_a_run_that_does_not_exist_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    entered(tmp_path, "a", "lstm seed=3")
    with pytest.raises(Refused, match="did you mean 'lstm seed=3'"):
        find_checkpoint(tmp_path, "lstm sed=3")
    with pytest.raises(Refused, match="train one first"):
        find_checkpoint(tmp_path / "empty", "latest")


def test_a_damaged_entry_hides_no_other(tmp_path: Path) -> None:
    entered(tmp_path, "a", "x")
    (tmp_path / "ledger" / "b.json").write_text("{", encoding="utf-8")
    assert [entry.run_id for entry in entries(tmp_path)] == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"\0" * 100,
        b"[" * 100_000,
        b'{"run_id": "b"}',
        b'{"run_id": "b", "name": null, "directory": "d", "started": 1}',
        b'{"run_id": "b", "name": "x", "directory": 3, "started": 1}',
        b'{"run_id": "b", "name": "x", "directory": "d", "started": "late"}',
        b'{"run_id": ["b"], "name": "x", "directory": "d", "started": null, "more": 1}',
    ],
)
def test_a_damaged_entry_is_passed_over_whatever_is_in_it(tmp_path: Path, content: bytes) -> None:
    whole = entered(tmp_path, "a", "x")
    (tmp_path / "ledger" / "b.json").write_bytes(content)
    assert find_checkpoint(tmp_path, "latest") == whole / CHECKPOINTS / BEST
    with pytest.raises(Refused, match="is not a run"):
        find_checkpoint(tmp_path, "nobody")
