"""The keys of a search: words of the command line to what a sampler draws from, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override

from unroll.errors import Refused, require
from unroll.folders import options

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Word = str
"""An override in Hydra syntax, ``key=value``."""


@dataclass(frozen=True)
class Key:
    """A key to search, and its values: all of them, or the two bounds of an interval.

    Raises:
        Refused: no value can be drawn from it, or its losses could not be compared.
    """

    name: str
    given: str
    """The word of the command line."""
    values: tuple[Any, ...]
    """Numbers of an interval or a range; of a choice, texts as Hydra reads them."""
    kind: str
    """interval, range or choice."""
    logarithmic: bool = False

    def __post_init__(self) -> None:
        compared = self.name.startswith(("data/batching", "data.batching"))
        require(
            compared or not self.name.startswith(("data", "evaluation", "task", "run", "resume")),
            f"{self.given}: validation losses of different {self.name} cannot be compared, so a "
            "search cannot choose it; give it one value",
        )
        require(self.values, f"{self.given} has no values")
        if self.kind == "interval":
            low, high = self.values
            require(
                math.isfinite(low) and math.isfinite(high) and low < high,
                f"{self.given}: the first bound must be below the second",
            )
        require(
            not self.logarithmic or (self.kind == "interval" and self.values[0] > 0),
            f"{self.given}: tag(log, ...) needs an interval whose bounds are above 0, as in "
            f"{self.name}=tag(log,interval(1e-3,1e-1))",
        )

    @classmethod
    def of(cls, override: Override) -> Key:
        """The key that an override with several values names."""
        name, given = override.get_key_element(), override.input_line or ""
        value = override.value()
        logarithmic = "log" in getattr(value, "tags", ())
        if isinstance(value, IntervalSweep):
            return cls(name, given, (value.start, value.end), "interval", logarithmic)
        if override.is_range_sweep():
            try:
                drawn: Iterator[Any] = override.sweep_iterator()
                numbers = tuple(sorted(drawn))
            except ValueError as error:  # range(1,3,0)
                raise Refused(f"{given}: {error}") from error
            return cls(name, given, numbers, "range", logarithmic)
        if isinstance(value, Glob):
            return cls(name, given, tuple(value.filter(options(name))), "choice")
        words = tuple(dict.fromkeys(override.sweep_string_iterator()))
        return cls(name, given, words, "choice", logarithmic)

    def distribution(self) -> BaseDistribution:
        """What the sampler draws from."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.kind == "choice":
            return CategoricalDistribution(self.values)
        low, high, step = self.values[0], self.values[-1], None
        if self.kind == "range" and len(self.values) > 1:
            step = round(self.values[1] - low, 12)
        if all(isinstance(value, int) for value in self.values):
            return IntDistribution(low, high, log=self.logarithmic, step=step or 1)
        return FloatDistribution(low, high, log=self.logarithmic, step=step)


@dataclass(frozen=True)
class Space:
    """What a search varies, and the words that all of its trials share."""

    keys: dict[str, Key] = field(default_factory=dict)
    fixed: dict[str, Word] = field(default_factory=dict)

    @classmethod
    def of(cls, overrides: Sequence[Override]) -> Space:
        """The space of the overrides of a command line; of a key that is given twice the last
        counts. Overrides of Hydra itself are passed over.

        Raises:
            Refused: there is no key to search, or no value can be drawn for one.
        """
        space = cls()
        for override in overrides:
            if override.is_hydra_override():
                continue
            name = override.get_key_element()
            space.keys.pop(name, None)
            space.fixed.pop(name, None)
            if override.is_sweep_override():
                space.keys[name] = Key.of(override)
            else:
                space.fixed[name] = f"{name}={override.get_value_element_as_str()}"
        require(
            space.keys,
            "hydra/sweeper=optuna needs a key to search: give one several values, as in "
            "model.layers=1,2 or optimizer.learning_rate=tag(log,interval(1e-3,3e-2))",
        )
        return space

    def words(self, values: Mapping[str, Any]) -> list[Word]:
        """The overrides of the trial with these values."""
        return [*self.fixed.values(), *(f"{name}={values[name]}" for name in self.keys)]

    def samples(self) -> Iterator[list[Word]]:
        """Trials that together have every value that is named, a bound too: the first values, then
        for each further value the trial that has it, and else the first ones."""
        first = {name: key.values[0] for name, key in self.keys.items()}
        yield self.words(first)
        for name, key in self.keys.items():
            for value in key.values[1:]:
                yield self.words(first | {name: value})

    @property
    def given(self) -> list[Word]:
        """All words, sorted, as they were given."""
        return sorted([*self.fixed.values(), *(key.given for key in self.keys.values())])
