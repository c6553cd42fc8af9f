"""Errors that a user can fix: their line, its length, their exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unroll import errors
from unroll.app import compose
from unroll.errors import (
    BAD_INPUT,
    FAILED,
    LONGEST,
    Diverged,
    Refused,
    bounded,
    explain,
    first_line,
    register_hint,
    unknown,
)


@given(st.text(), st.integers(20, 600))
@example("00000000 000000000000", 20)  # the cut falls beside a space
def test_a_bounded_text_is_one_printable_line_within_its_bound(text: str, longest: int) -> None:
    line = bounded(text, longest)
    assert len(line) <= longest
    assert line.isprintable()
    assert line == bounded(line, longest)


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=LONGEST))
def test_a_short_line_stays_as_it_is(text: str) -> None:
    assert bounded(text) == text


def test_a_long_line_keeps_its_start_and_its_end() -> None:
    line = explain(Refused(f"data.path={'x' * 5000} does not exist: name another file"))[0]
    assert line is not None
    assert len(line) == LONGEST
    assert line.startswith("data.path=xxx")
    assert line.endswith("xxx does not exist: name another file")


def test_an_unknown_name_of_any_length_keeps_the_nearest_one_and_the_known_ones() -> None:
    line = unknown("model", "lstm" * 500, ["gru", "lstm"])
    assert len(line) < 200
    assert line.endswith("known: gru, lstm")


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (Refused("a\n  b"), "a b", BAD_INPUT),
        (Diverged("the loss is nan"), "the run failed: the loss is nan", FAILED),
        (PermissionError(13, "Permission denied", "x"), "cannot write x: Permission denied", 1),
        (OSError(28, "No space left on device"), "cannot write here: No space left on device", 1),
        (OSError(30, "Read-only file system", "x"), "cannot write x: Read-only file system", 1),
        (FileNotFoundError(2, "No such file or directory", "x"), None, FAILED),
        (ZeroDivisionError("a bug"), None, FAILED),
        (ValueError("a bug"), None, FAILED),
    ],
)
def test_an_error_has_its_line_and_its_exit_code(
    error: Exception, line: str | None, code: int
) -> None:
    assert explain(error) == (line, code)


def test_the_cause_of_an_error_is_explained() -> None:
    outer = RuntimeError("a job failed")
    outer.__cause__ = Refused("seed=-1: must be from 0")
    assert explain(outer) == ("seed=-1: must be from 0", BAD_INPUT)


def test_a_class_that_is_only_named_like_one_of_ours_is_not_explained() -> None:
    other = type("Diverged", (RuntimeError,), {})
    assert explain(other("another library's")) == (None, FAILED)


def test_an_error_that_is_its_own_cause_is_explained() -> None:
    first, second = RuntimeError("first"), Refused("second")
    first.__cause__, second.__cause__ = second, first
    assert explain(first) == ("second", BAD_INPUT)


def test_a_group_explains_an_option_by_its_own_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_hints", list(errors._hints))
    register_hint("optimizer", "adagrad|rmsprop", "optimizer={option}: take adam, which adapts too")
    with pytest.raises(Refused, match=r"^optimizer=adagrad: take adam, which adapts too$"):
        compose(["optimizer=adagrad"])
    with pytest.raises(Refused, match="unknown optimizer 'adagrads': known: adam, adamw, sgd"):
        compose(["optimizer=adagrads"])


def test_the_first_line_of_an_error_without_a_message_is_its_class() -> None:
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("\n one\n two")) == "one"


WRONG_TYPES = {
    "model.hidden_size=wide": "model.hidden_size=wide: expected an integer",
    "model.hidden_size=1.5": "model.hidden_size=1.5: expected an integer",
    "seed=": "seed=: expected an integer",
    "seed=[1]": "seed=[1]: expected an integer",
    "training.clip_norm=tight": "training.clip_norm=tight: expected a number",
    "model.tie_weights=maybe": "model.tie_weights=maybe: expected true or false",
    "data.limit=${oc.env:HOME}": "data.limit=${oc.env:HOME}: expected an integer",
    "threads=${oc.env:HOME}": "expected an integer or null",
    "rerun=maybe": "rerun=maybe: expected true or false",
}


@pytest.mark.parametrize("word", WRONG_TYPES)
def test_a_value_of_a_wrong_type_names_the_expected_type(word: str) -> None:
    with pytest.raises(Refused) as refused:
        compose([word])
    assert str(refused.value).endswith(WRONG_TYPES[word])


def test_a_value_in_place_of_a_list_names_the_list() -> None:
    with pytest.raises(Refused, match=r"^task.runs: expected a list, as in task.runs=\[...\]$"):
        compose(["task=compare", "task.runs=abc"])


def test_importing_errors_imports_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, unroll.errors; assert not {'torch', 'mlflow', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_no_message_shows_a_password_or_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"value-of-{name}")
        assert bounded(f"no access with value-of-{name}") == "no access with ***"
    monkeypatch.setenv("SHORT_TOKEN", "a")
    assert bounded("a path") == "a path"
    assert bounded("http://name:pass@word@host:1/x@y failed") == "http://***@host:1/x@y failed"
    assert "pass" not in str(explain(Refused("postgresql://name:pass@host/db is absent"))[0])
