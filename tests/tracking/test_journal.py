"""What the journal keeps: torn lines, a clock that jumps back, a full disk, rewinds."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.errors import Refused
from unroll.tracking import journal as module
from unroll.tracking.journal import NAME, Journal, Reader, entries, framed, history, parsed


def rows(directory: Path) -> list[tuple[str, int, float]]:
    return [(point.key, point.step, point.value) for point in history(directory)]


def test_a_reader_finds_what_was_appended_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    reader = Reader(journal.path)
    journal.add_points({"a": 0.1, "b": float("inf"), "c": float("nan")}, 3)
    (entry,) = reader.read()
    assert (entry["step"], entry["values"]) == (3, {"a": 0.1, "b": float("inf")})
    line = framed({"n": 2, "kind": "tag", "time": 1})
    with journal.path.open("ab") as file:
        file.write(line[:9])
        file.flush()
        assert reader.read() == []
        file.write(line[9:])
    assert [entry["n"] for entry in reader.read()] == [2]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_journal_cut_or_changed_anywhere_loses_only_the_lines_that_were_hit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("run")
    journal = Journal(directory)
    for step in range(5):
        journal.add_points({"a": step / 3}, step)
    journal.close()
    whole = (directory / NAME).read_bytes()
    lines = whole.splitlines(keepends=True)
    place = data.draw(st.integers(0, len(whole) - 1))
    ends = [sum(map(len, lines[: index + 1])) for index in range(len(lines))]
    hit = sum(end <= place for end in ends)
    (directory / NAME).write_bytes(whole[:place])
    journal = Journal(directory)
    journal.add_points({"a": 9.0}, 9)
    journal.close()
    kept = list(range(hit + (place == ends[hit] - 1)))  # a line may lack nothing but its end
    assert [row[1] for row in rows(directory)] == [*kept, 9]
    flipped = bytearray(whole)
    flipped[place] ^= 1
    (directory / NAME).write_bytes(flipped)
    left = [row[1] for row in rows(directory)]
    near = {hit, hit + 1} if whole[place : place + 1] == b"\n" else {hit}
    assert [step for step in range(5) if step not in near] == [s for s in left if s not in near]
    assert all(row in [("a", s, s / 3) for s in range(5)] for row in rows(directory))


def test_numbers_and_times_increase_also_where_the_clock_jumps_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 100.0, 40.0, 101.0])
    monkeypatch.setattr(module.time, "time", lambda: next(clock))
    for _ in range(2):  # the second process reads what the first one wrote
        journal = Journal(tmp_path)
        journal.add_points({"a": 1.0}, 1)
        journal.add_points({"a": 2.0}, 2)
        journal.close()
    assert [entry["n"] for entry in entries(tmp_path)] == [1, 2, 3, 4]
    times = [point.time for point in history(tmp_path)]
    assert times == [100_000, 100_001, 100_002, 101_000]


class Disk:
    """Stands for ``os.write``: while ``full`` it takes half of what it gets, then nothing."""

    def __init__(self) -> None:
        self.full, self._write, self._took = False, os.write, False

    def __call__(self, file: int, data: bytes) -> int:
        if not self.full:
            return self._write(file, data)
        if not self._took:
            self._took = True
            return self._write(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(module.os, "write", disk)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    return disk


@pytest.mark.parametrize("cut", [True, False])
def test_on_a_full_disk_points_wait_in_memory_and_one_line_says_so(
    tmp_path: Path,
    disk: Disk,
    cut: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not cut:  # half a line stays in the file

        def refuse(file: int, length: int) -> None:
            raise OSError(errno.EIO, "no")

        monkeypatch.setattr(module.os, "ftruncate", refuse)
    journal = Journal(tmp_path)
    journal.add_points({"a": 0.0}, 0)
    disk.full = True
    for step in range(1, 5):
        journal.add_points({"a": float(step)}, step)
    assert rows(tmp_path) == [("a", 0, 0.0)]
    disk.full = False
    journal.add_points({"a": 5.0}, 5)
    assert rows(tmp_path) == [("a", step, float(step)) for step in range(6)]
    journal.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line


def test_what_does_not_fit_until_the_end_is_lost_with_a_line(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path)
    disk.full = True
    journal.add_points({"a": 1.0}, 1)
    journal.close()
    assert "are lost" in capsys.readouterr().err.splitlines()[-1]


def test_two_processes_never_write_one_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(Refused, match="another process"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_a_rewind_forgets_what_came_after_the_mark_of_its_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_points({"gradient_flow": 1.0}, 50)  # its step is a distance
    journal.add_points({"a": 1.0}, 1)
    journal.append("checkpoint", step=1)
    journal.add_points({"valid": 1.0}, 1)  # logged after the checkpoint
    journal.add_points({"a": 2.0}, 2)
    journal.append("tag", name="t", value="1")
    journal.append("checkpoint", step=2)
    journal.rewind(1)
    expected = [("gradient_flow", 50, 1.0), ("a", 1, 1.0)]
    assert rows(tmp_path) == expected
    journal.close()
    journal = Journal(tmp_path)  # it is durable
    assert rows(tmp_path) == expected
    assert "tag" in {entry["kind"] for entry in entries(tmp_path)}
    assert [e["step"] for e in entries(tmp_path) if e["kind"] == "checkpoint"] == [1]
    journal.close()


def test_without_a_mark_a_rewind_forgets_later_steps(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.add_points({"a": 1.0}, step)
    journal.rewind(2)
    assert [row[1] for row in rows(tmp_path)] == [1, 2]
    journal.close()


def test_a_point_that_is_made_again_has_its_first_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.add_points({"a": 1.0, "b": 2.0}, step)
    first = history(tmp_path)
    for _ in range(2):  # a resumed run is cut off as well
        journal.rewind(1)
        journal.close()
        journal = Journal(tmp_path)
        journal.add_points({"a": 1.0, "b": 2.0}, 2)
    journal.add_points({"a": 1.0, "b": 2.0}, 3)
    assert history(tmp_path) == first
    journal.add_points({"a": 1.0}, 3)
    assert history(tmp_path)[-1].time > first[-1].time
    numbers = [entry["n"] for entry in entries(tmp_path)]
    assert numbers == sorted(set(numbers))
    journal.close()


@given(st.binary(max_size=60))
def test_no_line_of_noise_is_taken_for_an_entry(noise: bytes) -> None:
    assert parsed(noise) is None


def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("tag", name="a", value="b")
    journal.discard()
    assert not list(tmp_path.iterdir())


def test_an_unknown_field_does_not_hinder_reading(tmp_path: Path) -> None:
    entry: dict[str, Any] = {"n": 1, "kind": "metrics", "time": 5, "step": 1, "values": {"a": 1.0}}
    (tmp_path / NAME).write_bytes(framed(entry | {"later": [1]}))
    assert rows(tmp_path) == [("a", 1, 1.0)]
