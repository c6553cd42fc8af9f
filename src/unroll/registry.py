"""Name to class: every configurable class is registered here and built through here.

A config is a frozen dataclass in the ``config.py`` of its package. Registering it does two things:
it gives Hydra the allowed keys and types, so that a wrong one is refused while the config is
composed, and it stores the name of the class that the config builds. That class is imported only
when it is built, so composing a config imports neither torch nor datasets nor mlflow.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass, make_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore

from unroll.errors import Refused, require, require_one_of, unknown

ConfigClass = TypeVar("ConfigClass", bound=type)

_targets: dict[tuple[str, str], str] = {}
_schemas: dict[str, type] = {}
_nested: dict[type, set[str]] = {}
_kinds: dict[type, dict[str, Any]] = {}
KINDS = {
    Any: "any value",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
    NoneType: "null",
}
"""Types of values in words."""
free_text: set[str] = set()
"""Dotted keys whose value is any text, such as ``data.path``: those that a config class names in
its class attribute ``free_text``."""


def register_schema(group: str, name: str, config: type) -> None:
    """Tell Hydra the keys and types of ``schema/<group>/<name>``.

    Hydra cannot compose onto a frozen dataclass, because OmegaConf makes it read-only. So Hydra
    gets a copy of the class that is not frozen, and ``restore`` makes the frozen config from what
    was composed. Configs inside are groups or schemas of their own.
    """
    _schemas[f"{group}/{name}"] = config
    prefix = f"{group.replace('/', '.')}.".lstrip(".")
    free_text.update(prefix + key for key in getattr(config, "free_text", ()))
    hints = get_type_hints(config)
    _kinds[config] = hints
    nested = _nested[config] = {key.name for key in fields(config) if is_dataclass(hints[key.name])}
    keys = [(key.name, Any if key.name in nested else hints[key.name]) for key in fields(config)]
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


def schema(group: str, name: str) -> Any:
    """The config class of ``name`` in ``group``.

    Raises:
        Refused: the name is not registered.
    """
    require_one_of(group, str(name), names(group))
    return _schemas[f"{group}/{name}"]


def target(group: str, name: str) -> Any:
    """The class that ``name`` builds in ``group``.

    Raises:
        Refused: the name is not registered.
    """
    require_one_of(group, str(name), names(group))
    module, _, attribute = _targets[group, name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def build(group: str, config: Any, *arguments: Any, **keywords: Any) -> Any:
    """Build ``config.name`` of ``group``: ``Class(config, *arguments, **keywords)``.

    Raises:
        Refused: the name is not registered.
    """
    return target(group, config.name)(config, *arguments, **keywords)


def restore(group: str, values: dict[str, Any]) -> Any:
    """The frozen config of ``group`` with these values, nested configs as nested dicts. A key that
    is missing takes the default of its field.

    Raises:
        Refused: the name is not registered, a value is out of its range, a key is unknown, or a
            key without a default is missing.
    """
    require(isinstance(values, dict), f"{group.replace('/', '.')}={values}: expected keys")
    name, place = str(values.get("name", "default")), group.replace("/", ".")
    config = _schemas.get(group) or _schemas.get(f"{group}/{name}")
    if config is None:
        raise Refused(unknown(group, name, names(group)))
    known = [item.name for item in fields(config)]
    for key in values:
        require_one_of(f"key in {place}", str(key), known)
    for item in fields(config):
        has_default = item.default is not MISSING or item.default_factory is not MISSING
        require(
            item.name in values or has_default,
            f"{place}.{item.name} is missing: add {place}.{item.name}=...",
        )
    return config(
        **{key: restore_key(config, f"{group}/{key}", value) for key, value in values.items()}
    )


def restore_key(config: type, path: str, value: Any) -> Any:
    """The value of a key of ``config``: a frozen config if the key is one, with ``path`` as its
    group.

    Raises:
        Refused: as ``restore``; or the key is a config and the value no dict, or the reverse; or a
            number is infinite, NaN or too large for 64 bits.
    """
    place, nested = path.replace("/", "."), path.rpartition("/")[2] in _nested[config]
    if nested:
        require(
            isinstance(value, dict),
            f"{place}={value}: expected keys; set one of them, as in {place}.KEY=VALUE",
        )
        return restore(path, value)
    require(not isinstance(value, dict), f"{place}={value}: expected a value, but got keys")
    kind = _kinds[config][path.rpartition("/")[2]]
    require(_is_of(value, kind), f"{place}={value}: expected {_described(kind)}")
    for number in value if isinstance(value, list) else [value]:
        finite = not isinstance(number, float) or math.isfinite(number)
        require(finite, f"{place}={value}: must be finite")
        fits = not isinstance(number, int) or abs(number) < 2**63
        require(fits, f"{place}={value}: an integer must be below 2^63")
    return value


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type. OmegaConf checks types too, but neither inside ``list | None``
    nor what an interpolation gives."""
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_is_of(value, member) for member in get_args(kind))
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return isinstance(value, list) and all(_is_of(member, item) for member in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _described(kind: Any) -> str:
    """A type in words."""
    if isinstance(kind, UnionType):
        return " or ".join(map(_described, get_args(kind)))
    return KINDS[get_origin(kind) or kind]
