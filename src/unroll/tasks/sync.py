"""Deliver to the tracking store what it lacks of runs that ended, or were cut off."""

from __future__ import annotations

from pathlib import Path

from unroll.config import Config
from unroll.errors import Refused, first_line
from unroll.registry import build
from unroll.tasks.config import TaskConfig
from unroll.tasks.run import Result, require_empty, say, write_result
from unroll.tracking import ledger
from unroll.tracking.journal import NAME
from unroll.tracking.store import Unavailable
from unroll.tracking.tracker import Tracker


def sync(
    task: TaskConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Deliver the journal of the run that ``run=`` names, or of all runs that the store lacks
    something of, those that were started first at first.

    Raises:
        Unavailable: the store does not work.
        Refused: ``run=`` names no run with a journal, or tracking is disabled.
    """
    require_empty(directory)
    tracker: Tracker = build("tracking", config.tracking)
    store = Path(config.tracking.directory)
    if config.run is not None:
        found = [ledger.find_journal(store, config.run)]
    else:
        found = [Path(entry.directory) for entry in ledger.owed(store)]
    runs = []
    for path in found:
        if not (path / NAME).is_file():
            say(f"{path}: its journal was removed or moved; if it was moved, give run=FOLDER")
            continue
        try:
            delivered = tracker.deliver(path)
        except Unavailable:
            raise
        except Refused as error:
            if config.run is not None:
                raise
            say(f"{path}: left as it is: {first_line(error)}")
            continue
        say(f"{path}: {delivered} entries delivered")
        runs.append({"directory": str(path), "delivered": delivered})
    if not found:
        say("the tracking store has everything")
    result: Result = {"task": "sync", "runs": runs}
    write_result(directory, result)
    return result
