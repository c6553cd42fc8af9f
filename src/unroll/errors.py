"""Errors that a user can fix, each in one line.

The errors of Hydra, OmegaConf and the operating system are translated here. Importing this
module costs no more than importing Hydra, which the registry needs too.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from unroll.folders import groups, options

BAD_INPUT, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 75
"""Exit codes: a request that cannot be met, a run that failed, Ctrl-C, SIGTERM (EX_TEMPFAIL of
sysexits.h: try again)."""
LONGEST = 390
"""Characters of an error line, so that the name of the program before it fits into 400."""
QUOTED = 200
"""Characters of foreign text that an error line may contain."""

TYPES = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}
_WRONG_TYPE = re.compile(
    r"(?:While dereferencing interpolation '(.*)': )?Value '(.*)' of type .* could not be "
    r"converted to (\w+)",
    re.DOTALL,
)
_AMBIGUOUS = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'")
_NO_GROUP = re.compile(r"Could not override '([^']*/[^']*)'")
_NOT_BOOLEAN = re.compile(r"Value '(.*)' is not a valid bool", re.DOTALL)


class Refused(ValueError):
    """A request that cannot be met: one line that says what was given, what is allowed and what
    to do. The command line prints it and exits with 2."""


class Diverged(RuntimeError):
    """The loss is NaN or infinite: the run failed, and the command line exits with 1."""


class LostProcess(RuntimeError):
    """Another process of the run has ended: the run failed, and the command line exits with 1."""


class Terminated(KeyboardInterrupt):
    """SIGTERM ended the run, as a scheduler does that wants the machine: it can be resumed, and the
    command line exits with 75."""

    received = False
    """Whether this process got SIGTERM: Ray turns the error into a plain ``KeyboardInterrupt``."""


def require(condition: object, message: str) -> None:
    """Raise ``Refused(message)`` unless ``condition`` holds."""
    if not condition:
        raise Refused(message)


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """The line for a name that does not exist, with the nearest one that does."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {kind} '{bounded(given, 100)}': {hint}known: {', '.join(known)}"


def require_one_of(key: str, given: str, allowed: Iterable[str]) -> None:
    """Raise ``Refused`` unless ``given`` is one of ``allowed``."""
    allowed = list(allowed)
    if given not in allowed:  # else the line, which takes a search, is not made
        raise Refused(unknown(key, given, allowed))


def require_share(key: str, value: float) -> None:
    """Raise ``Refused`` unless ``value`` is a share that leaves something."""
    require(0 <= value < 1, f"{key}={value}: must be at least 0 and below 1")


_hints: list[tuple[str, re.Pattern[str], str]] = []


def register_hint(group: str, pattern: str, message: str) -> None:
    """Explain an unknown option of ``group`` that matches ``pattern`` by ``message``, in which
    ``{option}`` stands for what was given."""
    _hints.append((group, re.compile(pattern), message))


EXTRAS = {
    "hydra/launcher": {
        "ray": "ray",
        "ray_aws": "ray",
        "submitit_local": "slurm",
        "submitit_slurm": "slurm",
    },
}
"""Options of Hydra's groups that come with an extra of this package: its name."""

_ADDRESS = re.compile(r"(\w://)[^/\s]*@")
_SECRET = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY")
SHORTEST_SECRET = 6
"""Characters: a shorter value of the environment may be part of any text."""


def without_password(text: str) -> str:
    """``text`` with ``***`` in place of the user and password of an address."""
    return _ADDRESS.sub(r"\1***@", text)


def redacted(text: str) -> str:
    """``text`` without the user and password of an address, and without the value of any
    environment variable whose name says that it is a secret."""
    text = without_password(text)
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _SECRET.search(name.upper()):
            text = text.replace(value, "***")
    return text


def redacted_value(value: Any) -> Any:
    """``value`` with each text in it ``redacted``: a text, or a list or dict that may hold some."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: redacted_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_value(item) for item in value]
    return value


def refuse_in_hydra(line: str) -> NoReturn:
    """Exit with ``BAD_INPUT`` after one line: Hydra turns an error of a callback into a warning."""
    print(f"unroll: {bounded(line)}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def bounded(text: str, longest: int = LONGEST) -> str:
    """``text`` as one line of at most ``longest`` characters, without secrets: a longer text loses
    its middle, and a character that cannot be printed is written as its escape."""
    line = " ".join(redacted(text).split())
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    if len(line) <= longest:
        return line
    end = longest // 3
    return f"{line[: longest - end - 5].rstrip()} ... {line[-end:].lstrip()}"


def first_line(error: BaseException, longest: int = LONGEST) -> str:
    """The first line of an error's message; the name of its class if it has no message."""
    return bounded((str(error).strip().splitlines() or [type(error).__name__])[0], longest)


def explain(error: BaseException) -> tuple[str | None, int]:
    """One line for an error that the user can fix, and the exit code; None for any other.

    The causes of the error are searched too. The first entry of ``TRANSLATIONS`` that has a line
    for one of them wins.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for kind, translate, code in TRANSLATIONS:
        for found in chain:
            line = translate(found) if isinstance(found, kind) else None
            if line is not None:
                return bounded(line), code
    return None, FAILED


FAILURE = "the run failed: "
"""Start of the line of a run that failed: its loss is NaN or infinite, or a process was lost."""


def _failed(error: Exception) -> str:
    return f"{FAILURE}{error}"


def _unknown_option(error: MissingConfigException) -> str | None:
    if not error.missing_cfg_file:
        return None
    group, _, option = error.missing_cfg_file.rpartition("/")
    for hinted, pattern, message in _hints:
        if group == hinted and pattern.fullmatch(option):
            return message.format(option=option)
    extras = EXTRAS.get(group, {})
    if option in extras:
        install = f"pip install 'unroll[{extras[option]}]'"
        return f"{group}={option} needs a package that is not installed: {install}"
    listed = [name for name in error.options or () if not name.startswith("_")]
    return unknown(group or "config", option, {*(options(group) or listed), *extras})


def _unknown_key(error: OmegaConfBaseException) -> str:
    key = str(error.full_key or error.key)
    if "/" in key:
        return unknown("group", key, groups())
    parent, _, last = key.rpartition(".")
    kind = error.object_type
    known = [item.name for item in fields(kind)] if is_dataclass(kind) else []
    return unknown(f"key in {parent}" if parent else "key", last, known)


def _wrong_type(error: ValidationError) -> str | None:
    key, text = error.full_key, str(error)
    if found := _WRONG_TYPE.match(text):
        interpolation, value, kind = found.groups()  # its value may be a password
        return f"{key}={interpolation or value}: expected {TYPES.get(kind, kind)}"
    if found := _NOT_BOOLEAN.match(text):
        return f"{key}={found[1]}: expected true or false"
    if "is not a ListConfig" in text:
        return f"{key}: expected a list, as in {key}=[...]"
    return None


def _invalid(error: OmegaConfBaseException) -> str:
    return (f"{error.full_key}: " if error.full_key else "") + first_line(error)


ENGINES = ("submitit", "ray", "joblib.externals.loky")
"""Modules whose errors say that an engine, or the process of one of its jobs, died."""


def _engine_failed(error: Exception) -> str | None:
    module = type(error).__module__
    engine = next((name for name in ENGINES if f"{module}.".startswith(f"{name}.")), None)
    if engine is None:
        return None
    return (
        f"{engine.partition('.')[0]} failed: {bounded(str(error), QUOTED)}; give the command "
        "again: jobs that finished are kept, those that were cut off go on"
    )


UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
)
"""A folder that is read-only; a disk, a quota or a file that is full."""
_FULL = re.compile(
    "no space left on device|disk quota exceeded|file too large|disk is full|"
    "no usable temporary directory",
    re.IGNORECASE,
)


def _inside_a_value(error: AssertionError) -> str | None:
    """OmegaConf asserts that what ``+a.b.c=1`` writes into is a config."""
    if not str(error).startswith("Unexpected type for root"):
        return None
    return "an override that begins with + writes into a value that has no keys: check its key"


def _full(error: Exception) -> str | None:
    """Libraries that write files themselves raise errors of their own."""
    return f"cannot write: {first_line(error)}" if _FULL.search(str(error)) else None


def _cannot_write(error: OSError) -> str | None:
    if error.errno in UNWRITABLE:
        return f"cannot write {error.filename or 'here'}: {error.strerror}"
    return None


def _too_long(error: OSError) -> str | None:
    if error.errno == errno.ENAMETOOLONG:
        name = bounded(os.path.basename(str(error.filename)), 100)
        return f"{name}: a name of so many characters is not possible; shorten it"
    return None


def _refused_by_hydra(error: HydraException) -> str:
    line = first_line(error)
    if found := _AMBIGUOUS.match(line):
        return f"{found[1]} names several values: add -m to run each of them"
    if found := _NO_GROUP.match(line):
        return unknown("group", found[1], groups())
    return line


TRANSLATIONS: tuple[tuple[type[BaseException], Callable[..., str | None], int], ...] = (
    (Refused, str, BAD_INPUT),
    (Diverged, _failed, FAILED),
    (LostProcess, _failed, FAILED),
    (MissingConfigException, _unknown_option, BAD_INPUT),
    (ConfigAttributeError, _unknown_key, BAD_INPUT),
    (ConfigKeyError, _unknown_key, BAD_INPUT),
    (ValidationError, _wrong_type, BAD_INPUT),
    (OmegaConfBaseException, _invalid, BAD_INPUT),
    (HydraException, _refused_by_hydra, BAD_INPUT),
    (AssertionError, _inside_a_value, BAD_INPUT),
    (OSError, _too_long, BAD_INPUT),
    (OSError, _cannot_write, FAILED),
    (Exception, _full, FAILED),
    (Exception, _engine_failed, FAILED),
)
"""Kinds of errors, most telling first, each with its line (None: not this one) and exit code."""
