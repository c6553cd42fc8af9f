"""Measure, print the table and write ``outputs/bench/bench.json``: ``make bench``.

    python -m experiments.bench [override ...]

Overrides apply to every config of ours, such as ``precision=float32``. The environment may give:

ROWS="twin lab"          rows to measure, also growth and encoding; all where it is empty
PEER=FOLDER              a checkout of github.com/pytorch/examples, with PENN_TREEBANK=FOLDER
PENN_TREEBANK, AG_NEWS   folders of the texts; generated text of the same vocabulary without them
FULL=1                   also the rows that take an hour
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from experiments.bench import encoding, growth, machine
from experiments.bench.contest import GIVEN, Bench, Row, selected
from experiments.bench.results import HEAD, PLACE, Measurement, Results, aligned, cells
from experiments.bench.rows import CONTESTS
from experiments.command import run_command
from unroll.app import compose
from unroll.tracking.source import git_commit

GROWTH, ENCODING = "growth", "encoding"


def main() -> None:
    """The command; exits with 2 if the request cannot be met."""
    rows = os.environ.get("ROWS", "").split()
    run_command(
        "bench",
        lambda: bench(sys.argv[1:], rows),
        f"what was measured is in {PLACE}",
    )


def bench(extra: Sequence[str], rows: Sequence[str]) -> int:
    """Measure what ROWS names on every device, and keep it after each row; the exit code.

    Raises:
        Refused: a row or an override does not exist, or PEER has no program.
    """
    start = time.monotonic()
    compose(extra)
    keys = selected(CONTESTS, rows, [GROWTH, ENCODING])
    Bench.from_environment(machine.Machine("cpu"), extra)  # refused before anything is measured
    results = Results(command(extra), git_commit(), time.strftime("%Y-%m-%d"))
    for device in machine.devices():
        found = Measurement(machine.measure(device))
        results.devices[device] = found
        context = Bench.from_environment(found.machine, extra)
        for contest in CONTESTS:
            if contest.key in keys and device in contest.on:
                measured = contest.rows(context)
                found.rows += measured
                results.keep(PLACE)
                say(measured, found.machine, time.monotonic() - start)
    if GROWTH in keys:
        results.growth += growth.measured(extra)
        results.keep(PLACE)
    if ENCODING in keys:
        results.growth += encoding.measured()
        results.keep(PLACE)
    print(aligned([HEAD, *results.table()]))
    print(f"bench: {PLACE} ({time.monotonic() - start:.0f} s)")
    return 0


def say(rows: Sequence[Row], machine: machine.Machine, seconds: float) -> None:
    """Print rows as soon as they are measured."""
    for row in rows:
        name, against, _, _, ratio, *_ = cells(row, machine)
        print(f"  {name}, against {against}: {ratio} ({seconds:.0f} s)", flush=True)


def command(extra: Sequence[str]) -> str:
    """The command with what it was given, without the places of this machine."""
    given = [f"{name}=..." for name in GIVEN if os.environ.get(name)]
    if rows := os.environ.get("ROWS"):
        given.append(f'ROWS="{rows}"')
    if extra:
        given.append(f'OVERRIDES="{" ".join(extra)}"')
    return " ".join(["make bench", *given])


if __name__ == "__main__":
    main()
