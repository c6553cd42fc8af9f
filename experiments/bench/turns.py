"""Several ways of doing the same work, timed in turns: figures, ratios and their spread."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

SECONDS = 1.5
"""What a turn should take: long enough for the clock, short enough for several turns."""

Turn = Callable[[], float]
"""Works for a second or two and returns its figure: an amount a second, seconds, megabytes."""
Work = Callable[[int], float]
"""Does ``count`` pieces of a work and returns its amount in the unit of the row."""


class Repeated:
    """A turn that does as many pieces of a work as take about a time.

    Args:
        work: what is timed.
        count: pieces of the first turn, which is a warm-up.
        seconds: the time.
    """

    def __init__(self, work: Work, count: int = 1, seconds: float = SECONDS) -> None:
        self.work, self.count, self.seconds = work, count, seconds
        self.amount = 0.0
        """Done so far, over all turns."""

    def __call__(self) -> float:
        """Amount a second."""
        start = time.perf_counter()
        amount = self.work(self.count)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        self.amount += amount
        self.count = max(1, round(self.count * self.seconds / seconds))
        return amount / seconds


def in_turns(sides: Mapping[str, Turn], turns: int, warm_ups: int) -> dict[str, list[float]]:
    """The figures of each side, one for each turn; every side has its first turn before any has
    its second. Those of the first ``warm_ups`` turns do not count."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(warm_ups + turns):
        for name, turn in sides.items():
            figures[name].append(turn())
    return {name: found[warm_ups:] for name, found in figures.items()}


@dataclass(frozen=True)
class Measure:
    """How our figure compares with the other one, and on which side of a bar it should be."""

    name: str
    compare: Callable[[float, float], float]
    """Of our figure and the other one."""
    form: str
    bar_form: str

    def reached(self, value: float, bar: float) -> bool:
        """Whether a ratio is at least, or what we need more is at most, the bar."""
        return value <= bar if self is EXTRA else value >= bar


RATE = Measure("rate", lambda ours, other: ours / other, "{:.2f}", "at least {:g}")
COST = Measure("cost", lambda ours, other: other / ours, "{:.2f}", "at least {:g}")
EXTRA = Measure("extra", lambda ours, other: ours - other, "{:+.1f}", "at most {:+g}")
MEASURES = {measure.name: measure for measure in (RATE, COST, EXTRA)}
"""rate: amounts a second, divided; cost: seconds or perplexities, the other way round; extra:
megabytes, subtracted."""


@dataclass(frozen=True)
class Spread:
    """A ratio over the turns of one run."""

    median: float
    low: float
    high: float


def compared(measure: Measure, ours: Sequence[float], other: Sequence[float]) -> Spread:
    """Median, smallest and largest of the ratios turn by turn; NaN where there is none."""
    found = [measure.compare(*pair) for pair in zip(ours, other, strict=True)]
    if not found:
        return Spread(math.nan, math.nan, math.nan)
    return Spread(statistics.median(found), min(found), max(found))
