"""Find a training that was cut off, or is to go on past its end, and its last saved state."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from unroll import processes
from unroll.config import Config, flat, require_shareable, restored
from unroll.errors import Refused, require
from unroll.registry import build
from unroll.tasks.run import Run, say
from unroll.tracking import journal, ledger, remote
from unroll.tracking.tracker import Tracker
from unroll.training import saved_state
from unroll.training.saved_state import Saved
from unroll.training.upgrade import upgrade

BOUNDS = ("epochs", "max_steps", "max_minutes", "patience")
"""Keys of ``training`` that can be raised when a training goes on."""
RAISED = " raised"
"""End of the fingerprint of a training whose bounds were raised: a schedule may have had another
end, so no other run may be replaced by it."""


def named_training(config: Config, overrides: list[str]) -> tuple[Run, Saved | None]:
    """The run that ``resume=`` names, and its last saved state; None: it starts again.

    Raises:
        Refused: there is no such training, it is damaged or finished, or the command line sets a
            key that cannot change.
    """
    assert config.resume is not None
    directory = find_training(config.resume, config)
    earlier = config_of(directory)
    raised = with_bounds(earlier, config, overrides)
    require(
        raised != earlier or not ledger.is_finished(directory),
        f"resume={config.resume}: the training in {directory} is finished; raise a bound to go on, "
        f"as in training.epochs={2 * (earlier.training.epochs or 1)}",
    )
    if raised != earlier and raised.optimizer.schedule.name == "cosine":
        say("optimizer/schedule=cosine now falls towards the new end of the training")
    run, saved = _going_on(raised, directory, same=raised == earlier)
    before, now = flat(earlier), flat(raised)
    run.raised = {key: now[key] for key in now if now[key] != before[key]}
    return run, saved


def find_training(reference: str, config: Config) -> Path:
    """The run directory that ``resume=`` names: on this machine, else made from what the store
    has."""
    try:
        return ledger.find_training(Path(config.tracking.directory), reference)
    except Refused:
        tracker: Tracker = build("tracking", config.tracking)
        directory = tracker.fetch_training(reference)
        if directory is None:
            raise
    # its digest was checked
    values = json.loads((directory / ledger.CONFIG).read_text(encoding="utf-8"))
    values["tracking"]["directory"] = os.path.abspath(config.tracking.directory)
    values["data"]["cache"] = config.data.cache  # folders of the other machine
    ledger.write_config(directory, values)
    return directory


def share_state(run: Run) -> None:
    """Give a store that other machines ask too what ``resume=`` needs there: the last saved state,
    with config, journal and result."""
    folder = saved_state.last(run.directory / ledger.CHECKPOINTS)
    if folder is None or not run.tracker.shared:
        return
    run.tracker.flush()
    for name in (ledger.CONFIG, journal.NAME, ledger.RESULT):
        if (run.directory / name).is_file():  # copied, because a journal grows while it is sent
            shutil.copyfile(run.directory / name, folder / name)
    for path in sorted(folder.iterdir()):
        run.tracker.log_file(path, remote.STATE)
    run.tracker.tag(remote.STATE_TAG, remote.described(folder))


def cut_off_training(run: Run) -> tuple[Run, Saved | None] | None:
    """The newest training of the same fingerprint as ``run`` that was cut off, and its state."""
    for entry in reversed(ledger.entries(Path(run.config.tracking.directory))):
        directory = Path(entry.directory)
        if entry.fingerprint == run.fingerprint and (directory / ledger.CONFIG).is_file():
            return (
                None
                if ledger.is_finished(directory)
                else _going_on(run.config, directory, same=True)
            )
    return None


def config_of(directory: Path) -> Config:
    """The config in a run directory.

    Raises:
        Refused: it is damaged.
    """
    path = directory / ledger.CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return restored(upgrade(values, version=1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{path} is damaged, so the training cannot go on: {error}") from error


def with_bounds(earlier: Config, config: Config, overrides: list[str]) -> Config:
    """The earlier config with the bounds that the command line raises.

    Raises:
        Refused: it lowers one, or sets another key.
    """
    allowed = [f"training.{key}" for key in BOUNDS]
    raised: dict[str, Any] = {}
    for word in overrides:
        key, _, _ = word.lstrip("+").partition("=")
        if key == "resume" or key.startswith("tracking"):  # where the run is looked for
            continue
        if key == "device" and config.device == earlier.device:  # by it the processes are connected
            continue
        require(
            key in allowed,
            f"{word} has no effect with resume=: everything comes from the run; only a bound can "
            f"be raised: {', '.join(allowed)}",
        )
        name = key.removeprefix("training.")
        before, now = (getattr(each.training, name) for each in (earlier, config))
        require(
            (math.inf if now is None else now) >= (math.inf if before is None else before),
            f"{word} is below the {before} of the run: with resume= a bound can only be raised",
        )
        raised[name] = now
    return replace(earlier, training=replace(earlier.training, **raised))


def _going_on(config: Config, directory: Path, same: bool) -> tuple[Run, Saved | None]:
    """The run in a directory, with a config that is the ``same`` as before or has other bounds."""
    saved, problems = saved_state.newest(directory / ledger.CHECKPOINTS)
    for line in problems:
        say(line)
    run = Run(config, directory, [])
    run.resumed_at = 0 if saved is None else saved.step
    for entry in journal.entries(directory):
        if entry["kind"] == "start":
            tags = entry["tags"]
            run.name, run.started = entry["name"], entry["time"] / 1000
            require_same_processes(int(tags.get("processes", 1)), directory)
            require(
                tags["corpus_fingerprint"] == run.corpus_fingerprint,
                f"the corpus of the training in {directory} has changed since it began: restore "
                "it, or start a new training",
            )
            run.fingerprint = tags["config_fingerprint"]  # today's code did not make its start
        elif entry["kind"] == "tag" and entry["name"] == "config_fingerprint":
            run.fingerprint = entry["value"]
    require_shareable(config)
    if not same and not run.fingerprint.endswith(RAISED):
        run.fingerprint += RAISED
    return run, saved


def require_same_processes(ran: int, directory: Path) -> None:
    """Raise ``Refused`` if the training in a directory ran in another number of processes."""
    require(
        ran == processes.size(),
        f"the training in {directory} ran in {ran} processes, and this is {processes.size()}: "
        f"go on with it in as many (torchrun --nproc-per-node {ran} -m unroll; 1: without "
        "torchrun)",
    )
