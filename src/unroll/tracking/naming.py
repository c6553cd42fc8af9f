"""Short names of runs: the model, then what the overrides change."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from unroll.config import PLACES
from unroll.folders import CONF

if TYPE_CHECKING:
    from unroll.config import Config

LONGEST = 80  # characters
UNNAMED = (*PLACES, "tracking", "hydra", "threads", "rerun", "device")
"""Overrides that a name leaves out: where and how something runs, not what."""
QUOTES = "'\""
_RUN_ID = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{24}\b")


def run_name(config: Config, overrides: Iterable[str]) -> str:
    """A name such as ``lstm hidden_size=128 seed=3``, or ``tracking.run_name`` where it is set.

    The model comes first, or the task where it is not training; then the data, unless they are
    the default, and what the overrides change.
    """
    if config.tracking.run_name:
        return config.tracking.run_name
    task = config.task.name
    words = {"train": [config.model.name], "describe": [task, config.model.name]}.get(task, [task])
    if config.data.name != _default_data():
        words.append(config.data.name)
    named = ("task", "model", "data")
    return shortened([*words, *_changes(overrides, named)])


def multirun_name(overrides: Iterable[str]) -> str:
    """A name such as ``model=rnn,gru seed=1,2,3``."""
    return shortened(_changes(overrides)) or "multirun"


def shortened(words: Iterable[str]) -> str:
    """The words with one space between them, as many as fit into 80 characters; of a run id only
    the first 8 characters."""
    return textwrap.shorten(_RUN_ID.sub(r"\1", " ".join(words)), LONGEST, placeholder=" ...")


def _changes(overrides: Iterable[str], named: tuple[str, ...] = ()) -> list[str]:
    """The overrides, each with the last part of its key: ``hidden_size=128``."""
    pairs = [word.lstrip("+").partition("=") for word in overrides]
    return [
        f"{re.split('[./]', key)[-1]}={value.strip(QUOTES)}"
        for key, _, value in pairs
        if key not in named and not key.startswith(UNNAMED)
    ]


@cache
def _default_data() -> str:
    """The corpus that conf/config.yaml takes."""
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    return next(str(group["data"]) for group in defaults if "data" in group)
