"""Where a run comes from: the commit of the source, the entry point, the user."""

from __future__ import annotations

import getpass
import subprocess

from unroll.config import CHECKOUT

ENTRY_POINT = "unroll"
UNKNOWN = "unknown"
DIRTY = "-dirty"


def git_commit() -> str:
    """The checkout's commit, with ``-dirty`` if a tracked file was changed since; 'unknown' if
    there is no checkout, no commit or no git."""
    if not (CHECKOUT / ".git").exists():  # an installed package may lie inside a foreign checkout
        return UNKNOWN
    try:
        found = subprocess.run(  # noqa: S603  words of ours, and no shell
            ["git", "describe", "--always", "--exclude=*", "--abbrev=40", f"--dirty={DIRTY}"],  # noqa: S607
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return found.stdout.strip() or UNKNOWN


def source_tags(commit: str) -> dict[str, str]:
    """The tags from which MLflow's pages fill the columns Source, Version and User."""
    tags = {
        "mlflow.source.name": ENTRY_POINT,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    if commit != UNKNOWN:
        tags["mlflow.source.git.commit"] = commit.removesuffix(DIRTY)
        tags["mlflow.source.git.dirty"] = str(commit.endswith(DIRTY)).lower()
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return UNKNOWN
