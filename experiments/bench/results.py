"""``bench.json``: what a run of the bench found, written, read and put into tables."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from experiments.bench.contest import Row
from experiments.bench.growth import Grown
from experiments.bench.machine import Machine
from experiments.bench.turns import MEASURES
from unroll.folders import HOME, write_atomically
from unroll.report.page import written

PLACE = HOME / "outputs" / "bench" / "bench.json"
HEAD = ("work", "against", "other", "ours", "ratio", "bar", "reached", "of the limit", "CUDA")
NOT_MEASURED = "not measured"


@dataclass
class Measurement:
    """The rows of one device."""

    machine: Machine
    rows: list[Row] = field(default_factory=list)


@dataclass
class Results:
    """What one run found."""

    command: str
    commit: str
    date: str
    devices: dict[str, Measurement] = field(default_factory=dict)
    """By ``cpu`` and ``cuda``."""
    growth: list[Grown] = field(default_factory=list)

    def keep(self, place: Path) -> None:
        """Write the file."""
        write_atomically(place, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, place: Path) -> Results:
        """The results of a file."""
        found = json.loads(place.read_text(encoding="utf-8"))
        found["devices"] = {
            name: Measurement(Machine(**each["machine"]), [Row(**row) for row in each["rows"]])
            for name, each in found["devices"].items()
        }
        found["growth"] = [Grown(**point) for point in found["growth"]]
        return cls(**found)

    def table(self) -> list[list[str]]:
        """A line for each row of the processor, with the ratio of the GPU at its end."""
        cuda = self.devices.get("cuda")
        ratios = {} if cuda is None else {(row.name, row.against): row for row in cuda.rows}
        return [
            [*cells(row, self.devices["cpu"].machine), ratio(ratios.get((row.name, row.against)))]
            for row in self.devices["cpu"].rows
        ]

    def reached(self) -> tuple[int, int]:
        """How many of the bars that were measured are reached, and how many there are."""
        found = [row.reached for row in self.devices["cpu"].rows if row.reached is not None]
        return sum(found), len(found)


def cells(row: Row, machine: Machine) -> list[str]:
    """A row up to its share of the limit, as text."""
    measure = MEASURES[row.measure]
    bar = "" if row.bar is None else measure.bar_form.format(row.bar)
    reached = {True: "yes", False: "no", None: ""}[row.reached]
    limit = row.limit(machine)
    share = row.share(machine)
    of_limit = "" if math.isnan(share) or limit is None else f"{share:.0%} ({limit.by})"
    precision = f", {row.precision}" if row.precision else ""
    figures = [median(row.other), f"{median(row.ours)} {row.unit}{precision}", ratio(row)]
    if not row.ours:
        figures = ["", "", ratio(row)]
    return [row.name, row.against, *figures, bar, reached, of_limit]


def median(figures: Sequence[float]) -> str:
    """The middle of several figures."""
    found = statistics.median(figures) if figures else math.nan
    return written(found, ",.0f" if abs(found) >= 100 else ".3g")


def ratio(row: Row | None) -> str:
    """Median, smallest and largest ratio; why there is none."""
    if row is None or not row.ours:
        reason = "" if row is None or not row.reason else f": {row.reason}"
        return NOT_MEASURED + reason
    form, spread = MEASURES[row.measure].form, row.ratio
    ends = (
        "" if len(row.ours) == 1 else f" ({form.format(spread.low)} to {form.format(spread.high)})"
    )
    return form.format(spread.median) + ends


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells as columns of a terminal."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
