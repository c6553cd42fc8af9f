"""A setting that was found, as an overlay that ``experiment=`` takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from unroll.folders import OVERLAYS, groups, write_atomically

ELSEWHERE = ("hydra", "tracking", "threads", "device", "rerun", "data.cache")
"""Keys that say where and how something runs, not what."""


def decides(key: str) -> bool:
    """Whether a key of an override says what is run."""
    return not key.lstrip("+").startswith(ELSEWHERE)


def write(path: Path, comment: str, words: Iterable[str]) -> str:
    """Write the overlay that composes what the overrides compose.

    Args:
        path: the file.
        comment: how it was found; several lines, without ``#``.
        words: overrides in Hydra syntax, each with one value.

    Returns:
        Its text.
    """
    defaults: list[str] = []
    values = OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(list(words)):
        key, value = override.key_or_group, override.value()
        if not decides(key):
            continue
        if key not in groups():
            OmegaConf.update(values, key, value)
        elif key == OVERLAYS:
            bases = value if isinstance(value, list) else [] if value is None else [value]
            defaults += [f"/{OVERLAYS}/{base}" for base in bases]
        else:
            defaults.append(f"override /{key}: {'null' if value is None else value}")
    # Hydra reads the bases first, wherever they were on the command line
    defaults.sort(key=lambda line: line.startswith("override"))
    lines = ["# @package _global_", *(f"# {line}" for line in comment.splitlines())]
    if defaults:
        lines += ["defaults:", *(f"  - {line}" for line in defaults)]
    text = "\n".join(lines) + "\n" + (OmegaConf.to_yaml(values) if values else "")
    write_atomically(path, text)
    return text
