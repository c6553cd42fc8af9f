"""Errors that a user can fix, each in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Refused(ValueError):
    """A request that cannot be met as it stands: one line that says what was given, what is
    allowed and what to do. The command line prints it and exits with 2."""


class Diverged(RuntimeError):
    """The loss is NaN or infinite: the run failed, and the command line exits with 1."""


def require(condition: object, message: str) -> None:
    """Raise ``Refused(message)`` unless ``condition`` holds."""
    if not condition:
        raise Refused(message)


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """The line for a name that does not exist, with the nearest one that does."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {kind} '{given}': {hint}known: {', '.join(known)}"


def require_one_of(key: str, given: str, allowed: Iterable[str]) -> None:
    """Raise ``Refused`` unless ``given`` is one of ``allowed``."""
    allowed = list(allowed)
    require(given in allowed, unknown(key, given, allowed))
