"""Words of the command line to the words that Hydra reads."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from unroll import processes
from unroll.errors import Refused, bounded, require
from unroll.folders import groups
from unroll.registry import free_text
from unroll.search.space import Space

CONFIG = "config"
"""Name of the config that a command begins with, unless ``--config-name`` gives another."""
SEARCH = "hydra/sweeper=optuna"
"""The word that makes a multirun a search."""
MODES = ("run", "multirun", "cfg", "info", "shell_completion", "experimental_rerun")
"""Hydra's flags that exclude each other."""
LONG = 200
"""Characters of a word that are quoted."""
DEEPEST = 9
"""Lists and dicts within each other that a value may have; no key takes more than two."""
BEFORE_QUOTE = re.compile(r"(\\*)('|\Z)")
COMPLETION = re.compile("(install|uninstall|query)=")


def to_hydra_command(words: list[str]) -> list[str]:
    """Convert a command line to Hydra syntax: flags first, then overrides.

    Raises:
        Refused: the flags are wrong, or an override is not ``key=value``.
    """
    given = _given(words)
    flags = [word for word in words if word not in given.overrides]
    modes = [f"--{mode.replace('_', '-')}" for mode in MODES if getattr(given, mode)]
    require(len(modes) < 2, f"{' and '.join(modes)} exclude each other: leave one out")
    for flag in ("resolve", "package"):
        require(given.cfg or not getattr(given, flag), f"--{flag} needs --cfg: add --cfg job")
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
        not given.multirun or processes.size() == 1,
        "-m starts several runs, and torchrun shares one run out among processes: leave one out",
    )
    require(
        not given.shell_completion or any(map(COMPLETION.match, given.overrides)),
        "--shell-completion needs install=SHELL or uninstall=SHELL, as in install=bash",
    )
    return [*flags, *(to_hydra_override(word, multirun=given.multirun) for word in given.overrides)]


def _given(words: list[str]) -> Namespace:
    """The flags and overrides of a command line, as Hydra's own parser finds them."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]  # argparse would print its usage too
    return parser.parse_intermixed_args(words)


def _refuse(message: str) -> NoReturn:
    raise Refused(f"{message}; unroll --help shows examples")


def to_hydra_override(word: str, *, multirun: bool = False) -> str:
    """Convert an override to Hydra syntax.

    ``optimizer.schedule=cosine`` becomes ``optimizer/schedule=cosine``, because the key is a
    group. The value of a key in ``registry.free_text`` is quoted where Hydra would not read it
    as text.

    Raises:
        Refused: the word is not ``key=value``, or Hydra cannot read it.
    """
    key, equals, value = word.partition("=")
    require(
        not word.startswith("~"),
        f"{word}: a key cannot be removed; set it, as in key=value or key=null",
    )
    require(
        key.strip("+") and equals and "@" not in key,
        f"cannot read '{_shortened(word)}': write key=value",
    )
    require(
        key.lstrip("+") != "hydra.searchpath",
        f"{word}: the search path cannot be changed; add a folder of configs with --config-dir",
    )
    group = key.replace(".", "/")
    if group in groups():
        options = value.split(",")  # Hydra takes no number for an option
        value = ",".join(f"'{option}'" if option.isdigit() else option for option in options)
        word = f"{group}={value}"
        chosen = parsed(word)
        require(
            chosen.is_sweep_override() or isinstance(chosen.value(), str | None) or _listed(chosen),
            f"{word}: expected the name of an option of {group}; unroll --help lists them",
        )
        return word
    if key in free_text and value and not _reads_as_meant(word, multirun):
        word = f"{key}='{BEFORE_QUOTE.sub(_escape, value)}'"
    given = parsed(word)
    if not given.is_sweep_override():
        require(
            _nesting(given.value()) <= DEEPEST,
            f"{_shortened(word)}: the brackets are nested too deeply for any value",
        )
    return word


def parsed(word: str) -> Override:
    """Parse an override with Hydra's grammar.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, ValueError, RecursionError) as error:
        raise Refused(
            f"cannot read '{_shortened(word)}': write key=value; a value with special "
            "characters needs quotes, as in \"key='a=b'\""
        ) from error


def _shortened(word: str) -> str:
    """A word of the command line, so that a line has room for what to do about it."""
    return word if len(word) < LONG else bounded(word, LONG)


def _listed(override: Override) -> bool:
    """Whether the value is a list of options, as ``experiment`` takes."""
    value = override.value()
    return isinstance(value, list) and all(isinstance(option, str) for option in value)


def _nesting(value: object) -> int:
    """How deep the lists and dicts of a value are nested."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_nesting, inside), default=0)


def jobs_to_check(command: list[str]) -> Iterator[list[str]]:
    """Jobs of a multirun that together have every value of every key: the first job, and for each
    further value the first one that has it. None if the command is a single run.

    Args:
        command: what ``to_hydra_command`` returned.

    Raises:
        Refused: a sweep has no values, or no end of them.
    """
    given, space = _given(command), search_space(command)
    if space is not None:
        yield from space.samples()
    if space is not None or not given.multirun:
        return
    overrides = [parsed(word) for word in given.overrides]
    listed = [item for item in overrides if item.value_type != ValueType.GLOB_CHOICE_SWEEP]
    for item in listed:
        require(
            not item.is_interval_sweep(),
            f"{item.input_line} has no list of values: name them, as in {item.key_or_group}=1,2,3, "
            f"or add {SEARCH}",
        )
    seen: set[str] = set()
    swept = [item for item in listed if not item.is_hydra_override()]
    try:
        (jobs,) = BasicSweeper.split_arguments(swept, None)
    except ValueError as error:  # range(1,3,0)
        raise Refused(f"{' '.join(given.overrides)}: {error}") from error
    require(jobs, f"{' '.join(given.overrides)} names no job: a sweep has no values")
    for job in jobs:
        if not seen.issuperset(job):
            seen.update(job)
            yield job


def search_space(command: list[str]) -> Space | None:
    """What a search varies; None if the command is none.

    Args:
        command: what ``to_hydra_command`` returned.

    Raises:
        Refused: as ``Space.of``.
    """
    given = _given(command)
    if not given.multirun or SEARCH not in given.overrides:
        return None
    return Space.of([parsed(word) for word in given.overrides])


def hydra_overrides(command: list[str]) -> list[str]:
    """The overrides of Hydra's own config in a command that ``to_hydra_command`` returned."""
    return [word for word in _given(command).overrides if parsed(word).is_hydra_override()]


def config_source(command: list[str]) -> tuple[str, Path | None]:
    """The name of the config that a command begins with, and the folder of configs that it adds.

    Args:
        command: what ``to_hydra_command`` returned.

    Raises:
        Refused: the folder does not exist.
    """
    given = _given(command)
    folder = Path(given.config_dir).resolve() if given.config_dir else None
    require(
        folder is None or folder.is_dir(),
        f"--config-dir: '{given.config_dir}' not found; name a folder of configs",
    )
    return given.config_name or CONFIG, folder


def _escape(found: re.Match[str]) -> str:
    """In a quoted text, backslashes are doubled before a quote and at the end, and only there."""
    return found[1] * 2 + ("\\'" if found[2] else "")


def _reads_as_meant(word: str, multirun: bool) -> bool:
    """Whether Hydra reads the value as the text that was typed, as a quoted text, a list, a number
    or null, or as a sweep in a multirun."""
    try:
        override = parsed(word)
    except Refused:
        return False
    if override.is_sweep_override():
        return multirun
    value, typed = override.value(), word.partition("=")[2]
    return value == typed or typed[0] in "'\"" or not isinstance(value, str | dict)
