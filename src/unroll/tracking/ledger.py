"""The ledger: run id and name to run directory, so that ``run=`` works without MLflow.

One small file a run, written with the first checkpoint. The run that was started last is
``latest``.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from unroll.errors import Refused, require

CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"
LAST = "last.safetensors"


@dataclass(frozen=True)
class Entry:
    run_id: str
    name: str
    directory: str
    started: float
    """Seconds since 1970, when the command began."""

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint, or the last one if training was cut off before a best."""
        return checkpoint_in(Path(self.directory))


KINDS = {"run_id": str, "name": str, "directory": str, "started": int | float}
"""Types of an entry; one with others is damaged."""


def checkpoint_in(directory: Path) -> Path:
    """The checkpoint to read in a run directory: the best, else the last."""
    best = directory / CHECKPOINTS / BEST
    return best if best.exists() else directory / CHECKPOINTS / LAST


def write_atomically(path: Path, text: str) -> None:
    """Write beside ``path``, then rename: a reader finds all of the text or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        writing.write_text(text, encoding="utf-8")
        os.replace(writing, path)
    finally:
        writing.unlink(missing_ok=True)


def record(store: Path, run_id: str, name: str, directory: Path, started: float) -> None:
    """Enter a run that has a checkpoint from now on and was ``started`` then, in seconds since
    1970."""
    entry = Entry(run_id, name, str(directory.resolve()), started)
    write_atomically(store / "ledger" / f"{run_id}.json", json.dumps(asdict(entry)))


def entries(store: Path) -> list[Entry]:
    """All runs, oldest first; a damaged entry is left out."""
    found = []
    for path in (store / "ledger").glob("[!.]*.json"):
        try:
            entry = Entry(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            continue
        if all(isinstance(getattr(entry, name), kind) for name, kind in KINDS.items()):
            found.append(entry)
    return sorted(found, key=lambda entry: entry.started)


def find_checkpoint(store: Path, reference: str) -> Path:
    """The checkpoint that ``run=`` names: a run id, a run name, ``latest``, a checkpoint's path
    or a run directory's path. A name that several runs have means the newest of them.

    Raises:
        Refused: there is no such run, or it has no checkpoint.
    """
    path = Path(reference)
    with contextlib.suppress(OSError):  # a name that is too long for a path
        if path.is_file():
            return path
        if (path / CHECKPOINTS).is_dir():
            return checkpoint_in(path)
    known = entries(store)
    if reference == "latest":
        usable = [entry for entry in known if entry.checkpoint.is_file()]
        require(
            usable,
            f"run=latest: no run with a checkpoint in {store}: train one first with unroll",
        )
        return usable[-1].checkpoint
    named = [entry for entry in known if reference in (entry.run_id, entry.name)]
    if not named:
        words = {entry.name for entry in known} | {entry.run_id for entry in known} | {"latest"}
        near = difflib.get_close_matches(reference, sorted(words), n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise Refused(
            f"run={reference} is not a run in {store} and not a path: {hint}give a run id, a run "
            "name, latest, or the path of a checkpoint or run directory"
        )
    checkpoint = named[-1].checkpoint
    require(
        checkpoint.is_file(),
        f"run={reference} has no checkpoint in {checkpoint.parent}: its directory was removed or "
        "moved; give the checkpoint's path",
    )
    return checkpoint
