"""``chaos.json``: what a run of the study found, written, read and put into a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from experiments.chaos.scenarios import Row
from unroll.folders import HOME, write_atomically

PLACE = HOME / "outputs" / "chaos" / "chaos.json"
HEAD = (
    "scenario",
    "kills",
    "equal weights",
    "equal history",
    "doubled points",
    "seconds",
    "time lost",
)


@dataclass
class Results:
    """What one run found."""

    command: str
    commit: str
    date: str
    rows: list[Row] = field(default_factory=list)

    def keep(self, place: Path) -> None:
        """Write the file."""
        write_atomically(place, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, place: Path) -> Results:
        """The results of a file."""
        found = json.loads(place.read_text(encoding="utf-8"))
        return cls(**found | {"rows": [Row(**row) for row in found["rows"]]})

    @property
    def equal(self) -> bool:
        """Whether every scenario ended as if nothing had happened."""
        return all(row.equal for row in self.rows)

    def table(self) -> list[list[str]]:
        """A line for each scenario."""
        return [cells(row) for row in self.rows]


def cells(row: Row) -> list[str]:
    """A row as text."""
    yes = {True: "yes", False: "no"}
    lost = (
        f"{median(row.lost):+.1f}% ({min(row.lost):+.1f} to {max(row.lost):+.1f})"
        if row.lost
        else ""
    )
    counts = [f"{row.doubled}", f"{row.seconds:.0f}", lost]
    return [row.scenario, f"{row.kills}", yes[row.weights], yes[row.history], *counts]


def kills(rows: Sequence[Row]) -> int:
    """How many processes were killed in all."""
    return sum(row.kills for row in rows)
