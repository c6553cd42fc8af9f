"""Wrong command lines, made from the schema of the config: each key of each option gets values of
wrong types, numbers out of range, misspellings and odd signs. A new key needs no new line here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields
from itertools import permutations
from types import UnionType
from typing import NamedTuple, get_args, get_type_hints

import yaml

from unroll.config import Config
from unroll.folders import CONF, groups, options
from unroll.registry import _nested, _schemas, free_text, names

MAY_BE_NEGATIVE = {"model.forget_gate_bias"}
"""The only numbers of the config that may be below 0."""

Command = tuple[str, ...]


class Key(NamedTuple):
    """A key of the config, and the words that select an option which has it."""

    selection: Command
    name: str
    kinds: frozenset[str]
    """The types of its value: int, float, bool, str, list[int], ..., any, or NoneType."""


def keys() -> list[Key]:
    """Every key of every option."""
    return list(_keys(Config, "", ()))


def _keys(config: type, group: str, selection: Command) -> Iterator[Key]:
    hints = get_type_hints(config)
    for name in (item.name for item in fields(config)):
        path = f"{group}/{name}".lstrip("/")
        if name not in _nested[config]:
            hint = hints[name]
            members = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            plain = [str(kind) if get_args(kind) else kind.__name__ for kind in members]
            found = frozenset(kind.lower() for kind in plain)
            yield Key(selection, path.replace("/", "."), found)
        elif path in _schemas:
            yield from _keys(_schemas[path], path, selection)
        else:
            for option in names(path) or ["default"]:
                chosen = (*selection, *selecting(path, option))
                yield from _keys(_schemas[f"{path}/{option}"], path, chosen)


def selecting(group: str, option: str) -> Command:
    """The words that select an option, with a value for each key that it leaves open."""
    if option == "default":
        return ()
    schema = _schemas[f"{group}/{option}"]
    values = yaml.safe_load((CONF / group / f"{option}.yaml").read_text(encoding="utf-8"))
    missing = [key for key, value in values.items() if value == "???"]
    listed = [key for key in missing if "list" in str(get_type_hints(schema)[key])]
    place = group.replace("/", ".")
    words = [f"{place}.{key}={'[x]' if key in listed else 'x'}" for key in missing]
    reads = ["run=x"] if getattr(schema, "reads_run", False) else []
    return (f"{group}={option}", *words, *reads)


WRONG = {
    "int": "wide 1.5 -1 99999999999999999999 nan [1] {a:1} '' 1_ 0x1g",
    "float": "wide -1 nan inf -inf 1e999 [0.5] {a:1} '' 1,5x",
    "bool": "maybe 1.5 [true] {a:1} ''",
    "str": "no_such_value [a] '' 3",
    "list[int]": "wide 3 [wide] [-1] [1.5] [] [[1]] [99999999999999999999] {a:1}",
    "list[float]": "wide 3 [wide] [-1] [nan] [inf] [[1]] {a:1} [1,1]",
    "list[str]": "wide 3 [] [[a]] {a:1} [a,a]",
    "any": "'' [''] [a,'']",
}
"""Values that a key of this type refuses, whatever it means."""
FREE_TEXT_REFUSES = ["[a,b]", "[]"]


def wrong_values() -> Iterator[Command]:
    for key in keys():
        kinds = key.kinds - {"nonetype"}
        if key.name in free_text and "any" not in kinds:
            values = FREE_TEXT_REFUSES
        else:
            values = [value for kind in sorted(kinds) for value in WRONG[kind].split()]
        if "nonetype" not in key.kinds and "any" not in kinds:
            values = [*values, "null"]
        for value in values:
            if not (value == "-1" and key.name in MAY_BE_NEGATIVE):
                yield (*key.selection, f"{key.name}={value}")


def misspelt(word: str, chance: random.Random) -> str:
    """``word`` with one character left out, doubled, or swapped with the next."""
    place = chance.randrange(len(word) - 1) if len(word) > 1 else 0
    before, here, after = word[:place], word[place], word[place + 1 :]
    return before + chance.choice([after, here + here + after, after[:1] + here + after[1:]])


def unknown_keys(chance: random.Random) -> Iterator[Command]:
    known = {key.name for key in keys()}
    for key in keys():
        parent, dot, last = key.name.rpartition(".")
        for prefix in ("", "+", "++"):
            name = f"{parent}{dot}{misspelt(last, chance)}"
            if name not in known and name.rpartition(".")[2]:
                yield (*key.selection, f"{prefix}{name}=1")
        if parent:
            yield (*key.selection, f"{misspelt(parent, chance)}.{last}=1")
        yield (*key.selection, f"+{key.name}.{last}=1")
        yield (*key.selection, f"~{key.name}")


def unknown_options(chance: random.Random) -> Iterator[Command]:
    for group in groups():
        for option in options(group):
            wrong = misspelt(option, chance)
            if wrong.replace("//", "/") not in options(group):
                yield (f"{group}={wrong}",)
        for value in ("", "3", "[a]", "{a:1}", "nul", "a/b", "../model", "_base", "ä", "*"):
            yield (f"{group}={value}",)


def keys_of_other_options() -> Iterator[Command]:
    """A key that another option of its group has, and not the one that is selected."""
    for group in groups():
        known = {
            option: {item.name for item in fields(_schemas[f"{group}/{option}"])}
            for option in names(group)
        }
        for one, other in permutations(known, 2):
            for key in sorted(known[other] - known[one]):
                yield (*selecting(group, one), f"{group.replace('/', '.')}.{key}=1")


SIGNS = """
[ ] { } ( ) ' " \\ $ @ : ~ % * & | ; < > ! ? # ` , [1, {a: a=b == a'b
${ ${} ${nope} ${seed ${no.such:1} ${.x} ${..x.y} ${a:${b}} ${oc.env:NO_SUCH_VARIABLE}
${oc.env:HOME} ${oc.decode:'['} ${oc.env:} ${now:} 1,2 range(1,3) choice(1,2) sort(2,1)
shuffle(1,2) glob(*) interval(0,1) tag(a,1) int(a) float(x) bool(2) json_str([1])
extend_list(1) nope(1) range(1 分开 é שלום \U0001f600 e\u0301 \u202e \u200b \ufeff
"""
ODD = [
    *SIGNS.split(),
    *[
        "\x00",
        "a\x00b",
        "\x1b[31m",
        "\ud800",
        "a\nb",
        "\n",
        "\t",
        " ",
        "a b",
        "\r\n",
        "\x85",
        "\u2028",
    ],
    *["x" * 5000, "[" * 500, "[" * 300 + "]" * 300, "(" * 400, "{a:" * 200, "9" * 5000],
    *["a," * 500, "${" * 200, "'" * 333, "\\" * 777, "1e" + "9" * 50, "-" * 200],
]


def odd_signs(chance: random.Random) -> Iterator[Command]:
    for key in keys():
        if key.name not in free_text:
            for sign in chance.sample(ODD, 4):
                yield (*key.selection, f"{key.name}={sign}")


def odd_words() -> Iterator[Command]:
    for sign in ODD:
        yield (sign,)
        yield (f"{sign}=1",)
        yield (f"+{sign}=1",)
        yield (f"model.{sign}=1",)
        yield (f"seed={sign}",)
        yield (f"model={sign}",)
        yield (f"data.batching={sign}",)


def several(commands: list[Command], chance: random.Random) -> Iterator[Command]:
    """Two mistakes in one command."""
    for _ in range(100):
        one, other = chance.sample(commands, 2)
        yield (*one, *other)
