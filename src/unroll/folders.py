"""Where configs are read from, where runs, outputs and caches go, and how a file gets there."""

from __future__ import annotations

import functools
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[1]
CONF = CHECKOUT / "conf" if (CHECKOUT / "conf").is_dir() else PACKAGE / "conf"
"""The config groups: a folder for each, with a YAML file for each option."""
HOME = CHECKOUT if (CHECKOUT / "conf").is_dir() else Path.cwd()
"""Where runs, outputs and caches go: the checkout, or without one the current folder."""


OVERLAYS = "experiment"
"""The group whose options may stand in folders, as ``lab/lstm``, and are no groups themselves."""


@functools.cache
def groups() -> list[str]:
    """The config groups that have options, sorted: ``data``, ``data/batching``, ..."""
    folders = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir())
    return [group for group in folders if options(group) and not group.startswith(f"{OVERLAYS}/")]


def options(group: str) -> list[str]:
    """The options of a group, sorted. A file whose name starts with ``_`` is a shared base."""
    folder = CONF / group
    found = (folder.rglob if group == OVERLAYS else folder.glob)("[!_]*.yaml")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in found)


def write_atomically(path: Path, text: str) -> None:
    """Write beside ``path``, then rename: a reader finds all of the text or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        writing.write_text(text, encoding="utf-8")
        os.replace(writing, path)
    finally:
        writing.unlink(missing_ok=True)
