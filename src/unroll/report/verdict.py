"""Comparisons: what two samples, paired by seed, allow a page to say.

Every sentence of a page that compares comes from ``verdict``, and every choice from ``best``. Their
caller says which values are better, never what to conclude.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unroll.report.page import linked, shown
from unroll.report.runs import Measured

LEVEL = 0.95
"""Confidence level of the intervals, each for its own pair."""
UNDECIDED = "cannot be told apart"
UNTESTED = "are not compared"
"""Where there is no interval."""
WORDS = {
    "lower": ("ahead of", "behind"),
    "higher": ("behind", "ahead of"),
    "neither": ("below", "above"),
}
"""By which values are better: the words for a difference below zero, and above it."""


@dataclass(frozen=True)
class Verdict:
    """A first sample compared with a second one. Its HTML holds both samples, so that a reader of
    the page can check it."""

    names: tuple[str, str]
    samples: tuple[Measured, Measured]
    better: str
    form: str
    difference: float
    """Mean of first minus second."""
    low: float
    high: float
    """Ends of the paired t interval of the difference; NaN where there is none."""

    @property
    def relation(self) -> str:
        """'ahead of', 'behind', 'above', 'below', or 'cannot be told apart'."""
        below, above = WORDS[self.better]
        return below if self.high < 0 else above if self.low > 0 else UNDECIDED

    @property
    def said(self) -> str:
        """The relation as the page says it: without an interval nothing was compared."""
        return UNTESTED if math.isnan(self.low) else self.relation

    @property
    def margin(self) -> str:
        """The difference and its interval, in words."""
        if math.isnan(self.low):
            return self._why_not()
        form = "+" + self.form.lstrip("+")
        low, high = format(self.low, form), format(self.high, form)
        return f"{self.difference:{form}}, interval {low} to {high}"

    def _why_not(self) -> str:
        values = [value for sample in self.samples for value in sample.values]
        if not all(map(math.isfinite, values)):
            return "not every value is finite"
        return "one seed, so there is no interval"

    def __html__(self) -> Markup:
        """A clause: who is ahead of whom, both means, the difference with its interval."""
        first, second = self.names
        if self.relation == UNDECIDED:
            clause = Markup("{} and {} <b>{}</b>").format(first, second, self.said)
        else:
            clause = Markup("{} is <b>{}</b> {}").format(first, self.said, second)
        means = [shown(sample, self.form) for sample in self.samples]
        return self._span(Markup("{}: {} and {} ({})").format(clause, *means, self.margin))

    def short(self) -> Markup:
        """For a table: the relation and the difference."""
        return self._span(Markup("<b>{}</b> ({})").format(self.said, self.margin))

    def _span(self, text: Markup) -> Markup:
        first, second = (" ".join(map(repr, sample.values)) for sample in self.samples)
        return Markup(
            '<span class="verdict" data-first="{}" data-second="{}" data-better="{}">{}</span>'
        ).format(first, second, self.better, text)


def verdict(
    names: tuple[str, str],
    first: Measured,
    second: Measured,
    better: str = "lower",
    form: str = ".1f",
) -> Verdict:
    """Compare two samples, a value for each seed and in the same order of seeds.

    ``better`` is 'lower', 'higher' or, where no value is better, 'neither'. The interval is
    Student's for the mean of paired differences (`scipy.stats.ttest_rel`). An exact sample has one
    value, which is paired with every value of the other.

    Raises:
        ValueError: the samples cannot be paired.
    """
    a, b = _paired(first, second)
    low = high = math.nan
    gaps = [x - y for x, y in zip(a, b, strict=True)]
    if all(map(math.isfinite, gaps)):
        if len(set(gaps)) == 1 and (len(gaps) > 1 or (first.exact and second.exact)):
            low = high = gaps[0]
        elif len(gaps) > 1:
            from scipy import stats  # a second to import, and only reports need it

            found = stats.ttest_rel(a, b).confidence_interval(LEVEL)
            low, high = float(found.low), float(found.high)
    return Verdict(names, (first, second), better, form, sum(gaps) / len(gaps), low, high)


def _paired(first: Measured, second: Measured) -> tuple[tuple[float, ...], tuple[float, ...]]:
    a, b = first.values, second.values
    if first.exact and len(a) == 1:
        a = a * len(b)
    if second.exact and len(b) == 1:
        b = b * len(a)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} runs cannot be paired by seed")
    return a, b


def best(samples: Mapping[str, Measured], better: str = "lower") -> list[str]:
    """The one with the best mean, and those that an interval does not tell apart from it."""
    first, *others = _by_mean(samples, better)
    return [first] + [
        name
        for name in others
        if verdict((first, name), samples[first], samples[name]).said == UNDECIDED
    ]


def chosen(names: Sequence[str], samples: Mapping[str, Measured]) -> Markup:
    """Names such as ``best`` gives, linked to their runs."""
    return linked(" or ".join(names), [run for name in names for run in samples[name].runs])


def ranking(samples: Mapping[str, Measured], better: str = "lower", form: str = ".1f") -> Markup:
    """The one with the best mean beside each of the others, as sentences."""
    first, *others = _by_mean(samples, better)
    return Markup(" ").join(
        Markup("{}.").format(verdict((first, name), samples[first], samples[name], better, form))
        for name in others
    )


def _by_mean(samples: Mapping[str, Measured], better: str) -> list[str]:
    sign = -1 if better == "higher" else 1
    return sorted(
        samples,
        key=lambda name: math.inf if math.isnan(samples[name].mean) else sign * samples[name].mean,
    )
