"""Disturb trainings, print the table and write ``outputs/chaos/chaos.json``: ``make chaos``.

The environment may give:

KILLS=20                       kills of single runs, in all
SCENARIOS="runs sweeps server" what is done; all where it is empty
SEED=1                         of the instants
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.bench.results import aligned
from experiments.chaos.results import HEAD, PLACE, Results, cells
from experiments.chaos.scenarios import (
    CELLS,
    Place,
    Row,
    installed_launchers,
    killed_run,
    killed_sweep,
    undisturbed_sweep,
)
from experiments.chaos.servers import server_rows
from experiments.command import run_command
from unroll.errors import FAILED, require, unknown
from unroll.tracking.source import git_commit

SCENARIOS = ("runs", "sweeps", "server")
NUMBERS = {"KILLS": 20, "SEED": 1}


def main() -> None:
    """The command; exits with 1 if a scenario is unequal, with 2 if the request cannot be met."""
    chosen = os.environ.get("SCENARIOS", "").split() or SCENARIOS
    run_command("chaos", lambda: chaos(chosen), "begin again with make chaos")


def chaos(chosen: Sequence[str]) -> int:
    """Carry out the chosen scenarios, and keep the results after each; the exit code.

    The folder of the runs is removed if all of them are equal.

    Raises:
        Refused: a scenario does not exist, a number is no number, or a command failed.
    """
    for name in chosen:
        require(name in SCENARIOS, unknown("SCENARIOS", name, SCENARIOS))
    start = time.monotonic()
    numbers = {name: given(name) for name in NUMBERS}
    results = Results(command(), git_commit(), time.strftime("%Y-%m-%d"))
    folder = Path(tempfile.mkdtemp(prefix="unroll-chaos-"))
    print(f"chaos: the runs are in {folder}", flush=True)
    for row in rows(Place(folder, folder / "cache"), chosen, **numbers):
        results.rows.append(row)
        results.keep(PLACE)
        print(f"  {', '.join(cells(row)[:5])} ({time.monotonic() - start:.0f} s)", flush=True)
    print(aligned([HEAD, *results.table()]))
    print(f"chaos: {PLACE} ({time.monotonic() - start:.0f} s)")
    if not results.equal:
        return FAILED
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def rows(place: Place, chosen: Sequence[str], KILLS: int, SEED: int) -> Iterator[Row]:  # noqa: N803
    """The row of each scenario, as soon as it is done."""
    if "runs" in chosen:
        for number, (label, cell) in enumerate(CELLS.items()):
            share = (KILLS + number) // len(CELLS)
            yield killed_run(place, label, cell, share, SEED + number)
    if "sweeps" in chosen:
        undisturbed = undisturbed_sweep(place)
        for launcher in installed_launchers():
            yield killed_sweep(place, launcher, undisturbed, SEED)
    if "server" in chosen:
        yield from server_rows(place, SEED)


def given(name: str) -> int:
    """A number of the environment.

    Raises:
        Refused: it is none.
    """
    text = os.environ.get(name) or str(NUMBERS[name])
    require(text.isdigit(), f"{name}={text}: must be an integer of at least 0")
    return int(text)


def command() -> str:
    """The command with what it was given."""
    found = [f"{name}={os.environ[name]}" for name in NUMBERS if os.environ.get(name)]
    if chosen := os.environ.get("SCENARIOS"):
        found.append(f'SCENARIOS="{chosen}"')
    return " ".join(["make chaos", *found])


if __name__ == "__main__":
    main()
