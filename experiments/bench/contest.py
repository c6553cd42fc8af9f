"""A contest: the other way and ours, timed in turns, and the rows of the table that come of it."""

from __future__ import annotations

import functools
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments.bench import peer
from experiments.bench.counts import Cost, Limit, limit
from experiments.bench.machine import Machine
from experiments.bench.text import (
    AG_NEWS_VOCABULARY,
    PENN_TREEBANK_VOCABULARY,
    Text,
    corpus,
    generated,
)
from experiments.bench.turns import MEASURES, RATE, Measure, Spread, Turn, compared, in_turns
from unroll.errors import Diverged, Refused, require, unknown

GIVEN = {
    "PEER": "a checkout of github.com/pytorch/examples",
    "PENN_TREEBANK": "a folder with ptb.train.txt",
    "AG_NEWS": "a folder with AG News",
    "FULL": "1 for the rows that take an hour",
}
"""What the environment may give, and what it is."""
TOKENS = 1_000_000
"""Of a generated text."""
OTHER = "other"
"""The other side among the names of ours."""


@dataclass(frozen=True)
class Bench:
    """What one device is measured with."""

    machine: Machine
    given: Mapping[str, str] = field(default_factory=dict)
    """Of ``GIVEN``, those that are there."""
    extra: Sequence[str] = ()
    """Overrides of every config of ours."""

    @classmethod
    def from_environment(cls, machine: Machine, extra: Sequence[str]) -> Bench:
        """The bench of a command.

        Raises:
            Refused: PEER has no program.
        """
        given = {name: os.environ[name] for name in GIVEN if os.environ.get(name)}
        if "PEER" in given:
            peer.program(given["PEER"])
        return cls(machine, given, extra)

    @property
    def device(self) -> str:
        return self.machine.device

    @functools.cached_property
    def news(self) -> Text:
        """AG News, or generated text with a vocabulary of its size."""
        if "AG_NEWS" in self.given:
            return corpus("data=ag_news", f"data.path={self.given['AG_NEWS']}")
        return generated(TOKENS, AG_NEWS_VOCABULARY)

    @functools.cached_property
    def treebank(self) -> Text:
        """Penn Treebank, or generated text with a vocabulary of its size."""
        if "PENN_TREEBANK" in self.given:
            return corpus("data=penn_treebank", f"data.path={self.given['PENN_TREEBANK']}")
        return generated(TOKENS, PENN_TREEBANK_VOCABULARY)


@dataclass(frozen=True)
class Ours:
    """Our side of a row."""

    turn: Turn
    precision: str
    """Of its products."""
    cost: Cost | None = None
    """Of a word."""


@dataclass(frozen=True)
class Bar:
    """What a ratio should be, on a machine that multiplies bfloat16 natively and on another."""

    native: float
    otherwise: float

    def on(self, machine: Machine) -> float:
        return self.native if machine.native_bfloat16 else self.otherwise


def bar(value: float) -> Bar:
    """The same on every machine."""
    return Bar(value, value)


@dataclass(frozen=True)
class Row:
    """A row of the table, as ``bench.json`` keeps it."""

    name: str
    unit: str
    against: str
    measure: str = RATE.name
    bar: float | None = None
    ours: list[float] = field(default_factory=list)
    """A figure for each turn."""
    other: list[float] = field(default_factory=list)
    precision: str = ""
    """Of our products."""
    operations: float | None = None
    """Of a word, counted from the shapes."""
    bytes: float | None = None
    """The same."""
    reason: str = ""
    """Why it was not measured."""

    @property
    def ratio(self) -> Spread:
        """Ours against the other, turn by turn; NaN where it was not measured."""
        return compared(MEASURES[self.measure], self.ours, self.other)

    def limit(self, machine: Machine) -> Limit | None:
        """What the counts allow on a machine; None where nothing is counted."""
        if self.operations is None or self.bytes is None:
            return None
        cost = Cost(self.operations, self.bytes)
        return limit(cost, machine.rate(self.precision), machine.bandwidth)

    def share(self, machine: Machine) -> float:
        """How much of the limit is reached; NaN where it is not known."""
        allowed = self.limit(machine)
        if allowed is None or not self.ours:
            return math.nan
        return statistics.median(self.ours) / allowed.rate

    @property
    def reached(self) -> bool | None:
        """Whether the median is at the bar; None without a bar or a measurement."""
        if self.bar is None or not self.ours:
            return None
        return MEASURES[self.measure].reached(self.ratio.median, self.bar)


@dataclass(frozen=True)
class Contest:
    """The other side, and one or more of ours against it."""

    key: str
    """What ROWS selects."""
    name: str
    unit: str
    against: str
    other: Callable[[Bench], Turn]
    ours: Mapping[str, Callable[[Bench], Ours]]
    """By the end of the row's name."""
    bars: Mapping[str, Bar] = field(default_factory=dict)
    measure: Measure = RATE
    turns: int = 3
    warm_ups: int = 1
    needs: tuple[str, ...] = ()
    """Of ``GIVEN``."""
    on: tuple[str, ...] = ("cpu", "cuda")
    """The devices for which it has a meaning."""

    def rows(self, bench: Bench) -> list[Row]:
        """Measure on one device. What this version or machine cannot do is a row that says so."""
        absent = [name for name in self.needs if name not in bench.given]
        if absent:
            needed = " ".join(f"{name}=..." for name in absent)
            return [self._row(label, bench, reason=f"give {needed}") for label in self.ours]
        sides, reasons = {}, {}
        for label, make in self.ours.items():
            try:
                sides[label] = make(bench)
            except Refused as error:
                reasons[label] = str(error)
        figures: dict[str, list[float]] = {}
        try:
            if sides:
                turns = {label: side.turn for label, side in sides.items()}
                every = {OTHER: self.other(bench), **turns}
                figures = in_turns(every, self.turns, self.warm_ups)
        except (Refused, Diverged) as error:
            reasons = {label: str(error) for label in sides} | reasons
        return [
            self._row(label, bench, reason=reasons[label])
            if label in reasons
            else self._measured(label, bench, sides[label], figures)
            for label in self.ours
        ]

    def _measured(
        self, label: str, bench: Bench, side: Ours, figures: Mapping[str, list[float]]
    ) -> Row:
        found: dict[str, Any] = {} if side.cost is None else asdict(side.cost)
        found |= {"ours": figures[label], "other": figures[OTHER], "precision": side.precision}
        return self._row(label, bench, **found)

    def _row(self, label: str, bench: Bench, **found: Any) -> Row:
        name = ", ".join(filter(None, (self.name, label)))
        value = self.bars[label].on(bench.machine) if label in self.bars else None
        return Row(name, self.unit, self.against, self.measure.name, value, **found)


def selected(contests: Sequence[Contest], keys: Sequence[str], more: Sequence[str]) -> list[str]:
    """The keys that ROWS names; all where it is empty.

    Args:
        more: keys that are not contests.

    Raises:
        Refused: one does not exist.
    """
    known = [*dict.fromkeys(contest.key for contest in contests), *more]
    for key in keys:
        require(key in known, unknown("ROWS", key, known))
    return list(keys) or known
