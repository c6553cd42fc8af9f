"""Name to class: every configurable thing is registered here, and built only through here.

A config is a frozen dataclass in its room's ``config.py``. Registering it does two things: it
tells Hydra the keys and types that are allowed (so a wrong one is refused while the config is
composed), and it remembers, as text, the class that it builds. The class is imported when it is
built, so composing a config imports neither torch nor datasets nor mlflow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass, make_dataclass
from typing import Any, TypeVar, get_type_hints

from hydra.core.config_store import ConfigStore

from unroll.errors import require, unknown

ConfigClass = TypeVar("ConfigClass", bound=type)

_targets: dict[tuple[str, str], str] = {}
_schemas: dict[str, type] = {}


def register_schema(group: str, name: str, config: type) -> None:
    """Tell Hydra the keys and types of ``schema/<group>/<name>``.

    Hydra cannot compose onto a frozen dataclass: OmegaConf makes it read-only. It is given an
    open twin with the same keys and types, and ``restore`` makes the frozen one of what was
    composed. Nodes inside are groups or schemas of their own.
    """
    _schemas[f"{group}/{name}"] = config
    hints = get_type_hints(config)
    keys = [
        (key.name, Any if is_dataclass(hints[key.name]) else hints[key.name])
        for key in fields(config)
    ]
    twin = make_dataclass(config.__name__, keys)
    ConfigStore.instance().store(group=f"schema/{group}".rstrip("/"), name=name, node=twin)


def register(group: str, name: str, builds: str) -> Callable[[ConfigClass], ConfigClass]:
    """Register a config dataclass under ``group`` and ``name``; ``builds`` is 'module:class'."""

    def decorate(config: ConfigClass) -> ConfigClass:
        _targets[group, name] = builds
        register_schema(group, name, config)
        return config

    return decorate


def names(group: str) -> list[str]:
    """The registered names of a group, sorted."""
    return sorted(name for known, name in _targets if known == group)


def target(group: str, name: str) -> Any:
    """The class that ``name`` names in ``group``.

    Raises:
        Refused: the name is not registered.
    """
    require((group, name) in _targets, unknown(group, str(name), names(group)))
    module, _, attribute = _targets[group, name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def build(group: str, config: Any, *arguments: Any, **keywords: Any) -> Any:
    """Build what ``config.name`` names in ``group``: ``Class(config, *arguments, **keywords)``.

    Raises:
        Refused: the name is not registered.
    """
    return target(group, config.name)(config, *arguments, **keywords)


def restore(group: str, values: dict[str, Any]) -> Any:
    """The frozen config of ``group`` with these values, nested configs as nested dicts.

    Raises:
        Refused: a value is out of its range, or a key is not one of the config's.
        KeyError, TypeError: the values are not of a config that is registered, or lack a key.
    """
    config = _schemas.get(group) or _schemas[f"{group}/{values.get('name', 'default')}"]
    known = [key.name for key in fields(config)]
    for key in values:
        require(key in known, unknown(f"key in {group.replace('/', '.')}", key, known))
    return config(
        **{
            key: restore(f"{group}/{key}", value) if isinstance(value, dict) else value
            for key, value in values.items()
        }
    )
