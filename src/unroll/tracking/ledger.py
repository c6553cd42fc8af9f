"""The ledger: run id and name to run directory, so that ``run=`` works without MLflow.

One small file a run, written when it starts. The run that was started last is
``latest``. Beside them is a file for each run directory of which the store lacks something.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unroll.errors import Refused, redacted, require
from unroll.folders import write_atomically
from unroll.tracking import journal

CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"
LAST = "last.safetensors"
CONFIG, RESULT = "config.json", "result.json"
LEDGER, UNDELIVERED = "ledger", "ledger/undelivered"


@dataclass(frozen=True)
class Entry:
    run_id: str
    name: str
    directory: str
    started: float
    """Seconds since 1970, when the command began."""
    fingerprint: str = ""
    """Of the config, as ``unroll.config.fingerprint``."""

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint, or the last one if training was cut off before a best."""
        return checkpoint_in(Path(self.directory))

    @property
    def mlflow_id(self) -> str | None:
        """The id in MLflow, which is another one where the store did not answer at the start."""
        return journal.Cursor.read(Path(self.directory)).run


KINDS = {"run_id": str, "name": str, "directory": str, "started": int | float}
"""Types of an entry; one with others is damaged."""


def checkpoint_in(directory: Path) -> Path:
    """The checkpoint to read in a run directory: the best, else the last."""
    best = directory / CHECKPOINTS / BEST
    return best if best.exists() else directory / CHECKPOINTS / LAST


def write_config(directory: Path, values: Mapping[str, Any]) -> None:
    """Write the config of the training in a run directory, from which ``resume=`` reads it."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    write_atomically(directory / CONFIG, text + "\n")


def record(
    store: Path, run_id: str, name: str, directory: Path, started: float, fingerprint: str = ""
) -> None:
    """Enter a run that was ``started`` then, in seconds since 1970."""
    entry = Entry(run_id, redacted(name), str(directory.resolve()), started, fingerprint)
    write_atomically(store / LEDGER / f"{run_id}.json", json.dumps(asdict(entry)))


def owe(store: Path, key: str, name: str, directory: Path, started: float) -> None:
    """Note that the store lacks something of the journal in ``directory``, whose id is ``key``."""
    entry = Entry(key, name, str(directory.resolve()), started)
    write_atomically(store / UNDELIVERED / f"{key}.json", json.dumps(asdict(entry)))


def settle(store: Path, key: str) -> None:
    """Note that the store has all of the journal whose id is ``key``."""
    (store / UNDELIVERED / f"{key}.json").unlink(missing_ok=True)


def owed(store: Path) -> list[Entry]:
    """The journals of which the store lacks something, oldest first, also of runs going on."""
    return entries(store, UNDELIVERED)


def entries(store: Path, folder: str = LEDGER) -> list[Entry]:
    """All runs, oldest first; a damaged entry is left out."""
    found = []
    for path in (store / folder).glob("[!.]*.json"):
        try:
            entry = Entry(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            continue
        if all(isinstance(getattr(entry, name), kind) for name, kind in KINDS.items()):
            found.append(entry)
    return sorted(found, key=lambda entry: entry.started)


def is_finished(directory: Path) -> bool:
    """Whether the run in a directory ended by itself. Its result alone does not say so: it may be
    of an earlier end, past which the run was resumed, or be written just before a kill."""
    try:
        result = json.loads((directory / RESULT).read_text(encoding="utf-8"))
        if result.get("interrupted", False):
            return False
    except (OSError, ValueError, AttributeError):
        return False
    kinds = ("start", "resume", "finish")
    turns = [entry for entry in journal.entries(directory) if entry["kind"] in kinds]
    return not turns or turns[-1].get("status") == "FINISHED"


def finished(store: Path, fingerprint: str) -> Entry | None:
    """The newest training under this config fingerprint that ended by itself, and whose directory
    is there; None if there is none."""
    known = (entry for entry in reversed(entries(store)) if entry.fingerprint == fingerprint)
    return next((entry for entry in known if is_finished(Path(entry.directory))), None)


@contextlib.contextmanager
def claimed(store: Path, fingerprint: str) -> Iterator[bool]:
    """Claim the training with this fingerprint for the time of the context; False if another
    process has it. The claim of a process ends with it, however it ends."""
    from filelock import FileLock, Timeout

    claims = store / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    lock = FileLock(claims / f"{fingerprint}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def find_training(store: Path, reference: str) -> Path:
    """The run directory that ``resume=`` names: a run id, a run name, ``latest`` or a path.

    Raises:
        Refused: there is no such run, or its directory holds no training.
    """
    directory = Path(reference)
    with contextlib.suppress(OSError):  # a name that is too long for a path
        if (directory / CONFIG).is_file():
            return directory
    known = entries(store)
    if reference == "latest":
        usable = [entry for entry in known if (Path(entry.directory) / CONFIG).is_file()]
        require(usable, f"resume=latest: no training in {store}: start one first with unroll")
        return Path(usable[-1].directory)
    directory = Path(_named(store, reference, known, "resume").directory)
    require(
        (directory / CONFIG).is_file(),
        f"resume={reference} has no {CONFIG} in {directory}: its directory was removed or moved; "
        "give its path",
    )
    return directory


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
    checkpoint = _named(store, reference, known).checkpoint
    require(
        checkpoint.is_file(),
        f"run={reference} has no checkpoint in {checkpoint.parent}: its directory was removed or "
        "moved; give the checkpoint's path",
    )
    return checkpoint


def find_journal(store: Path, reference: str) -> Path:
    """The run directory with a journal that ``run=`` names, as ``find_checkpoint``.

    Raises:
        Refused: there is no such run, or it has no journal.
    """
    path = Path(reference)
    with contextlib.suppress(OSError):
        if (path / journal.NAME).is_file():
            return path
    known = sorted([*entries(store), *owed(store)], key=lambda entry: entry.started)
    if reference == "latest" and known:
        directory = Path(known[-1].directory)
    else:
        directory = Path(_named(store, reference, known).directory)
    require(
        (directory / journal.NAME).is_file(),
        f"run={reference} has no {journal.NAME} in {directory}: its directory was removed or "
        "moved; give its path",
    )
    return directory


def _named(store: Path, reference: str, known: list[Entry], key: str = "run") -> Entry:
    """The newest run with this id, name or id in MLflow."""
    named = [entry for entry in known if reference in (entry.run_id, entry.name)]
    named = named or [entry for entry in known if reference == entry.mlflow_id]
    if not named:
        words = {entry.name for entry in known} | {entry.run_id for entry in known} | {"latest"}
        near = difflib.get_close_matches(reference, sorted(words), n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise Refused(
            f"{key}={reference} is not a run in {store} and not a path: {hint}give a run id, a run "
            "name, latest, or the path of a checkpoint or run directory"
        )
    return named[-1]
