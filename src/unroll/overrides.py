"""Words of the command line to the words that Hydra reads."""

from __future__ import annotations

import re
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from unroll.errors import Refused, require
from unroll.folders import groups
from unroll.registry import free_text

MODES = ("run", "multirun", "cfg", "info", "shell_completion", "experimental_rerun")
"""Hydra's flags that exclude each other."""
BEFORE_QUOTE = re.compile(r"(\\*)('|\Z)")
COMPLETION = re.compile("(install|uninstall|query)=")


def to_hydra_command(words: list[str]) -> list[str]:
    """Convert a command line to Hydra syntax: flags first, then overrides.

    Raises:
        Refused: the flags are wrong, or an override is not ``key=value``.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]  # argparse would print its usage too
    given = parser.parse_intermixed_args(words)
    flags = [word for word in words if word not in given.overrides]
    modes = [f"--{mode.replace('_', '-')}" for mode in MODES if getattr(given, mode)]
    require(len(modes) < 2, f"{' and '.join(modes)} exclude each other: leave one out")
    require(given.cfg or not given.resolve, "--resolve needs --cfg: add --cfg job")
    require(
        given.experimental_rerun is None,
        "--experimental-rerun is not supported, because it runs code from a file: give the "
        "overrides again",
    )
    require(
        given.overrides or not given.multirun,
        "-m needs the keys to vary: add key=value,value, as in -m seed=1,2,3",
    )
    require(
        not given.shell_completion or any(map(COMPLETION.match, given.overrides)),
        "--shell-completion needs install=SHELL or uninstall=SHELL, as in install=bash",
    )
    return [*flags, *(to_hydra_override(word, multirun=given.multirun) for word in given.overrides)]


def _refuse(message: str) -> NoReturn:
    raise Refused(f"{message}; unroll --help shows examples")


def to_hydra_override(word: str, *, multirun: bool = False) -> str:
    """Convert an override to Hydra syntax.

    ``optimizer.schedule=cosine`` becomes ``optimizer/schedule=cosine``, because the key is a
    group. The value of a key in ``registry.free_text`` is quoted where Hydra would not read it
    as text.

    Raises:
        Refused: the word is not ``key=value``.
    """
    key, equals, value = word.partition("=")
    require(
        not word.startswith("~"),
        f"{word}: a key cannot be removed; set it, as in key=value or key=null",
    )
    require(key.strip("+") and equals, f"cannot read '{word}': write key=value")
    group = key.replace(".", "/")
    if group in groups():
        options = value.split(",")  # Hydra takes no number for an option
        value = ",".join(f"'{option}'" if option.isdigit() else option for option in options)
        return f"{group}={value}"
    if key in free_text and value and not _reads_as_meant(word, multirun):
        return f"{key}='{BEFORE_QUOTE.sub(_escape, value)}'"
    return word


def _escape(found: re.Match[str]) -> str:
    """In a quoted text, backslashes are doubled before a quote and at the end, and only there."""
    return found[1] * 2 + ("\\'" if found[2] else "")


def _reads_as_meant(word: str, multirun: bool) -> bool:
    """Whether Hydra reads the value as the text that was typed, as a quoted text, a list, a number
    or null, or as a sweep in a multirun."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    if override.is_sweep_override():
        return multirun
    value, typed = override.value(), word.partition("=")[2]
    return value == typed or typed[0] in "'\"" or not isinstance(value, str | dict)
