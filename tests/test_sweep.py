"""What becomes of the jobs of a multirun: notes, the wait for other processes, summary, code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unroll import app, sweep
from unroll.errors import BAD_INPUT, FAILED, Diverged, Refused
from unroll.overrides import config_source, to_hydra_command
from unroll.sweep import Note, carry_out, exit_code, notes, summary, wait
from unroll.tracking.ledger import claimed


def fails(error: BaseException) -> Any:
    def work() -> dict[str, Any]:
        raise error

    return work


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ({"resumed_at": None}, "run"),
        ({}, "run"),
        ({"resumed_at": 0}, "resumed"),
        ({"resumed_at": 7}, "resumed"),
        ({"reused": True}, "finished before"),
        ({"elsewhere": True}, "elsewhere"),
        ({"pruned": True}, "pruned"),
    ],
)
def test_a_job_is_noted_by_what_its_result_says(result: dict[str, Any], outcome: str) -> None:
    note, kept = carry_out(3, ["seed=1"], lambda: result)
    assert note == Note(3, ["seed=1"], outcome)
    assert kept is result


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (Refused("seed=-1: too small"), "seed=-1: too small", BAD_INPUT),
        (Diverged("the loss is NaN"), "the run failed: the loss is NaN", FAILED),
        (RuntimeError("a bug\nof two lines"), "RuntimeError: a bug", FAILED),
    ],
)
def test_a_job_that_fails_is_noted_and_raises_nothing(
    error: Exception, reason: str, code: int
) -> None:
    note, result = carry_out(0, [], fails(error))
    assert (note.outcome, note.code, result) == ("failed", code, None)
    assert note.reason.startswith(reason)
    assert "\n" not in note.reason


def test_an_interruption_is_no_failure_of_a_job() -> None:
    with pytest.raises(KeyboardInterrupt):
        carry_out(0, [], fails(KeyboardInterrupt()))


def test_notes_are_read_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    found = [Note(number, [f"seed={number}"], "run") for number in range(12)]
    for note in reversed(found):
        note.write(tmp_path)
    assert notes(tmp_path) == found
    assert notes(tmp_path / "none") == []


def test_jobs_of_another_process_are_asked_for_until_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.0)
    for number, outcome in enumerate(("run", "elsewhere", "elsewhere", "elsewhere")):
        Note(number, [f"seed={number}"], outcome).write(tmp_path)
    asked: list[int] = []
    answers: dict[int, list[Any]] = {
        1: [{"elsewhere": True}, {"elsewhere": True}, {"reused": True}],
        2: [{"resumed_at": 4}],  # the other process was killed
        3: [Refused("no")],
    }

    def again(note: Note) -> dict[str, Any]:
        asked.append(note.number)
        answer = answers[note.number].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    wait(tmp_path, again)
    assert asked == [1, 2, 3, 1, 1]
    outcomes = [note.outcome for note in notes(tmp_path)]
    assert outcomes == ["run", "finished before", "resumed", "failed"]


def test_the_summary_counts_each_outcome_and_says_why_jobs_failed() -> None:
    found = [
        Note(0, [], "run"),
        Note(1, [], "resumed"),
        Note(2, [], "finished before"),
        Note(3, [], "finished before"),
        Note(4, ["model=gru", "seed=2"], "failed", "the loss is NaN", 1),
    ]
    assert summary(found).splitlines() == [
        "5 jobs: 1 run, 1 resumed, 2 finished before, 1 failed",
        "job 4 (model=gru seed=2): the loss is NaN",
    ]
    assert summary(found[:1]) == "1 jobs: 1 run"


@pytest.mark.parametrize(("codes", "code"), [([], 0), ([2], 2), ([2, 2], 2), ([1], 1), ([2, 1], 1)])
def test_the_code_is_2_only_if_every_failure_was_refused(codes: list[int], code: int) -> None:
    failed = [Note(number, [], "failed", "reason", each) for number, each in enumerate(codes)]
    assert exit_code([Note(9, [], "run"), *failed]) == code


def test_a_claim_is_held_by_one_process_and_ends_with_it_however_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from unroll.tracking.ledger import claimed\n"
        "with claimed(Path(sys.argv[1]), 'a') as claimed: print(claimed, flush=True); "
        "time.sleep(60)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with claimed(tmp_path, "a") as a, claimed(tmp_path, "b") as b:
            assert (a, b) == (False, True)
    finally:
        process.kill()
        process.communicate()
    for _ in range(2):  # and it can be claimed again after it was given back
        with claimed(tmp_path, "a") as a:
            assert a


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """A folder of configs, as ``--config-dir`` adds it."""
    folder = tmp_path / "configs, mine"
    (folder / "experiment").mkdir(parents=True)
    text = "# @package _global_\nmodel:\n  hidden_size: 7\n"
    (folder / "experiment" / "mine.yaml").write_text(text)
    return folder


def test_a_job_that_was_left_elsewhere_is_composed_with_the_added_configs(
    tmp_path: Path, added: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Note(0, ["experiment=mine"], "elsewhere").write(tmp_path)
    sizes: list[int] = []

    def dispatch(config: Any, *_: object, **__: object) -> dict[str, Any]:
        sizes.append(config.model.hidden_size)
        return {}

    monkeypatch.setattr(app, "dispatch", dispatch)
    words = to_hydra_command(["-m", "--config-dir", str(added), "experiment=mine", "seed=1,2"])
    assert app.end_sweep(tmp_path, *config_source(words)) == 0
    assert sizes == [7]
    assert [note.outcome for note in notes(tmp_path)] == ["run"]


def test_the_values_of_a_multirun_with_added_configs_are_checked_before_its_first_job(
    tmp_path: Path, added: Path
) -> None:
    words = ["-m", "--config-dir", str(added), "experiment=mine", "model.hidden_size=1,0"]
    words += [f"hydra.sweep.dir={tmp_path}/sweep", f"tracking.directory={tmp_path}/runs"]
    done = subprocess.run(
        [sys.executable, "-m", "unroll", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == BAD_INPUT
    assert done.stderr == "unroll: model.hidden_size=0: must be at least 1\n"
    assert not (tmp_path / "sweep").exists()
