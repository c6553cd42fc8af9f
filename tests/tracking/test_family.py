"""Parents and children: a study has one parent, a multirun a new one each."""

import uuid
from pathlib import Path

import pytest

from unroll.app import compose
from unroll.errors import Refused
from unroll.tracking.config import MLflowConfig
from unroll.tracking.family import Family
from unroll.tracking.store import connect, experiment_id, search
from unroll.tracking.tracker import MLflowTracker

CELLS = {"study": "cells"}


def config(home: Path, *words: str) -> MLflowConfig:
    found = compose([f"tracking.directory={home}", *words]).tracking
    assert isinstance(found, MLflowConfig)
    return found


def started(home: Path, family: Family, name: str = "child", **tags: str) -> MLflowTracker:
    tracker = MLflowTracker(config(home, f"tracking.parent={family.run_id}"))
    tracker.start(home / "runs" / uuid.uuid4().hex, name, {}, tags)
    assert tracker.run_id
    return tracker


def parent(home: Path, name: str) -> Family:
    """A parent of its own, as a multirun has it."""
    tracker = MLflowTracker(config(home))
    run_id = tracker.parent(home / "runs" / uuid.uuid4().hex, name, {})
    client = connect(home)
    return Family(client, experiment_id(client, home, "unroll"), run_id)


def state(family: Family) -> tuple[str, int, int | None]:
    info = family.client.get_run(family.run_id).info
    return info.status, info.start_time, info.end_time


def test_a_parent_ends_the_children_that_were_cut_off(home: Path) -> None:
    family = parent(home, "parent")
    started(home, family)
    family.finish("KILLED")
    (child,) = family.children()
    assert child.info.status == "KILLED"
    assert len(search(family.client, family.experiment, "")) == 2


def test_a_child_that_another_process_runs_is_left_to_it_and_so_is_the_parent(home: Path) -> None:
    theirs = Family.open(config(home), "study cells", CELLS)
    directory = home / "runs" / "theirs"
    child = MLflowTracker(config(home, f"tracking.parent={theirs.run_id}"))
    child.start(directory, "child", {}, {"directory": str(directory)})
    run_id = child.run_id
    ours = Family.open(config(home), "study cells", CELLS)
    ours.finish("FINISHED")
    assert ours.client.get_run(run_id).info.status == "RUNNING"
    assert state(ours)[0] == "RUNNING"
    child.close()  # as if its process was killed
    theirs.finish("FAILED")
    assert ours.client.get_run(run_id).info.status == "KILLED"
    assert state(ours)[0] == "FAILED"


def test_every_multirun_has_a_parent_of_its_own(home: Path) -> None:
    first, second = (parent(home, "multirun") for _ in range(2))
    assert first.run_id != second.run_id


def test_a_study_finds_its_parent_again_and_no_other(home: Path) -> None:
    first = Family.open(config(home), "study cells", CELLS)
    started(home, first, study="cells").finish()  # newer, of the same study, and no parent
    assert Family.open(config(home), "study cells", CELLS).run_id == first.run_id
    other = Family.open(config(home), "study zipf", {"study": "zipf"})
    assert other.run_id != first.run_id
    first.client.delete_run(first.run_id)
    assert Family.open(config(home), "study cells", CELLS).run_id != first.run_id


def test_a_study_in_which_nothing_was_run_stays_as_it_was(home: Path) -> None:
    family = Family.open(config(home), "study cells", CELLS)
    assert state(family)[0] == "RUNNING"
    child = started(home, family, config_fingerprint="f")
    child.finish()
    family.finish("FINISHED")
    before = state(family)
    assert before[0] == "FINISHED"
    again = Family.open(config(home), "study cells", CELLS)
    reusing = MLflowTracker(config(home, f"tracking.parent={again.run_id}"))
    assert reusing.reuse("f") == child.run_id
    again.finish("FAILED")
    assert state(again) == before


def test_a_study_is_running_from_a_new_child_to_its_end(home: Path) -> None:
    family = Family.open(config(home), "study cells", CELLS)
    family.finish("FINISHED")
    again = Family.open(config(home), "study cells", CELLS)
    started(home, again).finish()
    assert state(again)[0] == "RUNNING"
    again.finish("FAILED")
    status, start, end = state(again)
    assert (status, start) == ("FAILED", state(family)[1])
    assert end is not None
    assert end >= again.children()[0].info.end_time


def test_a_reused_run_is_a_child_once(home: Path) -> None:
    first = Family.open(config(home), "study cells", CELLS)
    child = started(home, first, config_fingerprint="f")
    child.finish()
    second = parent(home, "multirun")
    for family in (first, second):
        tracker = MLflowTracker(config(home, f"tracking.parent={family.run_id}"))
        assert tracker.reuse("f") == child.run_id
        assert [run.info.run_id for run in family.children()] == [child.run_id]
    first.client.set_tag(first.run_id, f"reused.{child.run_id}", "true")
    assert [run.info.run_id for run in first.children()] == [child.run_id]
    first.client.delete_run(child.run_id)
    assert second.children() == []


def test_a_study_may_have_any_name_but_one_with_a_quotation_mark(home: Path) -> None:
    names = ["分开", 'a "b"', "a b/c%"]
    ids = [Family.open(config(home), name, {"study": name}).run_id for name in names * 2]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3
    with pytest.raises(Refused, match="must not contain"):
        Family.open(config(home), "x", {"study": "it's"})
