"""Runs of other machines: their files, fetched from the store and checked by their digests."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unroll.errors import Refused, require
from unroll.tracking import journal, ledger
from unroll.tracking.store import (
    Unavailable,
    address,
    connect,
    exists,
    find_run,
    is_run_id,
    store_errors,
)

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

FOLDER, NAME = "model", ledger.BEST
"""The artifact that a task reads: one file with weights, config, vocabulary and tokenizer."""
DIGEST = "checkpoint_sha256"
"""Tag of a run: the digest of that artifact."""
CACHE = "checkpoints"
"""Folder of the cache; each file in it has its digest as its name."""
STATE, STATE_TAG = "state", "saved_state"
"""Artifacts that ``resume=`` reads, and the tag with their digests."""
FETCHED = "fetched"
"""Folder beside the ledger: run directories of trainings of other machines."""
_STATE_FOLDER, _SHA256, _NAME = r"state-\d{9}", "[0-9a-f]{64}", r"\w[\w.]*"


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(folder: Path) -> str:
    """A saved state as the tag of its run names it: its folder, and the digest of each file."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    return json.dumps({"folder": folder.name, "files": files})


def fetch_checkpoint(directory: Path, run_id: str, cache: Path) -> Path | None:
    """The checkpoint of a run in the store, as a file of the cache. It is downloaded if the cache
    lacks it, or has it with other content.

    Args:
        directory: of the embedded store, as ``tracking.directory``.

    Returns:
        None if ``run_id`` is no run id, or there is no store that could know it.

    Raises:
        Refused: the store does not know the run, or has no checkpoint of it, or one whose digest
            is not the recorded one.
        Unavailable: the store does not answer.
    """
    if not is_run_id(run_id) or not exists(directory):
        return None
    client, run = _find(directory, run_id, "run")
    digest = run.data.tags.get(DIGEST, "")
    require(
        re.fullmatch(_SHA256, digest),
        f"run={run_id} has no checkpoint in {address(directory)} that could be checked: it did not "
        f"reach its end, is no training, or has no tag {DIGEST} because an earlier version "
        f"recorded it; if it has the artifact {FOLDER}/{NAME}, download that and give its path",
    )
    path = cache / CACHE / f"{digest}.safetensors"
    if path.is_file() and sha256(path) == digest:
        return path
    with _aside(path.parent) as folder, _naming(f"run={run_id}"):
        os.replace(_download(client, directory, run, f"{FOLDER}/{NAME}", digest, folder), path)
    return path


def fetch_training(directory: Path, run_id: str) -> Path | None:
    """The run directory of a training that was stopped or finished on another machine, made anew
    from its last saved state in the store.

    Returns:
        None as ``fetch_checkpoint``.

    Raises:
        Refused: the store does not know the run, or has no saved state of it, or a damaged one.
        Unavailable: the store does not answer.
    """
    if not is_run_id(run_id) or not exists(directory):
        return None
    client, run = _find(directory, run_id, "resume")
    place = address(directory)
    require(
        run.info.status != "RUNNING",
        f"resume={run_id} is not on this machine, and RUNNING in {place}: resume it where it was "
        "started",
    )
    require(
        STATE_TAG in run.data.tags,
        f"resume={run_id} is not on this machine and has no saved state in {place}: only a "
        "training that a server tracked, and that was not killed (kill -9), leaves one there",
    )
    state, files = _parsed(run.data.tags[STATE_TAG], run_id)
    found = directory / FETCHED / str(run.info.run_id)
    require(not journal.is_written(found), f"another process is writing the run in {found}")
    with _aside(found.parent) as folder, _naming(f"resume={run_id}"):
        made = folder / "run"
        states = made / ledger.CHECKPOINTS / state
        states.mkdir(parents=True)
        for name, digest in files.items():
            fetched = _download(client, directory, run, f"{STATE}/{name}", digest, folder)
            top = name in (ledger.CONFIG, ledger.RESULT, journal.NAME)
            os.replace(fetched, (made if top else states) / name)
        _mark_delivered(made, place, run)
        shutil.rmtree(found, ignore_errors=True)
        os.replace(made, found)
    return found


def _find(directory: Path, run_id: str, key: str) -> tuple[MlflowClient, Run]:
    client = connect(directory)
    with store_errors(directory):
        run = find_run(client, run_id)
    if run is None or run.info.lifecycle_stage == "deleted":
        raise Refused(
            f"{key}={run_id} is not a run in {directory} on this machine, nor in the tracking "
            f"store {address(directory)}: give the id of one of its runs"
        )
    return client, run


def _parsed(tag: str, run_id: str) -> tuple[str, dict[str, str]]:
    """The folder and the digests of ``described``; they become paths, so their form is checked."""
    try:
        values = json.loads(tag)
        folder, files = str(values["folder"]), dict(values["files"])
        names = [re.fullmatch(_NAME, name) for name in files]
        digests = [re.fullmatch(_SHA256, digest) for digest in files.values()]
        whole = {ledger.CONFIG, journal.NAME} <= set(files)
        if whole and all(names) and all(digests) and re.fullmatch(_STATE_FOLDER, folder):
            return folder, files
    except (ValueError, KeyError, TypeError):
        pass
    raise Refused(f"resume={run_id}: the tag {STATE_TAG} of the run is damaged")


@contextmanager
def _aside(parent: Path) -> Iterator[Path]:
    """A folder beside the place of what is fetched; what is left in it goes at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".fetching-") as folder:
        yield Path(folder)


@contextmanager
def _naming(request: str) -> Iterator[None]:
    """Name the request before an error of a file that is fetched."""
    try:
        yield
    except Refused as error:
        raise Refused(f"{request}: {error}") from error


def _download(
    client: MlflowClient, directory: Path, run: Run, artifact: str, digest: str, folder: Path
) -> Path:
    """An artifact as a file below ``folder``, with this SHA-256."""
    try:
        with store_errors(directory):
            path = Path(client.download_artifacts(run.info.run_id, artifact, str(folder)))
    except Unavailable as error:
        raise Refused(f"{artifact} cannot be fetched: {error}") from error
    fetched = sha256(path)
    require(
        fetched == digest,
        f"{artifact} in {address(directory)} is not what the run recorded: its SHA-256 begins with "
        f"{fetched[:12]}, that of the run with {digest[:12]}; it was damaged or replaced, and is "
        "not used",
    )
    return path


def _mark_delivered(made: Path, place: str, run: Run) -> None:
    """Note that the store has the whole journal in ``made``, and how the run ended."""
    opened = journal.Journal(made)
    opened.append("finish", status=run.info.status)
    number = opened.number
    opened.close()
    key = next(entry["key"] for entry in journal.entries(made) if entry["kind"] == "start")
    journal.Cursor(place, key, str(run.info.run_id), number).write(made)
