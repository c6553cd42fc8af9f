"""Where a run comes from: its commit, changed files, the user."""

import subprocess
from pathlib import Path

import pytest

from unroll.tracking import source
from unroll.tracking.source import git_commit, source_tags


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(source, "CHECKOUT", tmp_path)
    return tmp_path


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    found = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, check=True)
    return found.stdout.decode().strip()


def test_a_changed_file_marks_the_commit_as_dirty_and_a_new_or_ignored_one_does_not(
    checkout: Path,
) -> None:
    git(checkout, "init")
    assert git_commit() == "unknown"  # there is no commit yet
    (checkout / "a").write_text("1")
    git(checkout, "add", "a")
    git(checkout, "commit", "-m", "x")
    git(checkout, "tag", "-a", "v1", "-m", "a tag does not take the place of the commit")
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "new").write_text("1")
    assert git_commit() == commit
    (checkout / "a").write_text("2")
    assert git_commit() == f"{commit}-dirty"
    tags = source_tags(git_commit())
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["mlflow.source.git.dirty"] == "true"


def test_without_a_checkout_or_without_git_the_commit_is_unknown(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "init")
    (checkout / "a").write_text("1")
    git(checkout, "add", "a")
    git(checkout, "commit", "-m", "x")
    monkeypatch.setattr(source, "CHECKOUT", checkout / "venv" / "lib")
    (checkout / "venv" / "lib").mkdir(parents=True)
    assert git_commit() == "unknown"  # an installed package, inside a foreign checkout
    monkeypatch.setattr(source, "CHECKOUT", checkout)
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_commit() == "unknown"
    assert "mlflow.source.git.commit" not in source_tags("unknown")


def test_a_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(source.getpass, "getuser", nobody)
    assert source_tags("unknown")["mlflow.user"] == "unknown"
