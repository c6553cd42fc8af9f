"""The checkpoint of a run of another machine: fetched from the store once, checked at every use."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from unroll.errors import Refused, require
from unroll.tracking.store import (
    Unavailable,
    address,
    connect,
    exists,
    find_run,
    is_run_id,
    store_errors,
)

FOLDER, NAME = "model", "best.safetensors"
"""The artifact: one file with weights, config, vocabulary and tokenizer."""
DIGEST = "checkpoint_sha256"
"""Tag of a run: the digest of that artifact."""
CACHE = "checkpoints"
"""Folder of the cache; each file in it has its digest as its name."""


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    client, place = connect(directory), address(directory)
    with store_errors(directory):
        run = find_run(client, run_id)
    require(
        run is not None and run.info.lifecycle_stage != "deleted",
        f"run={run_id} is not a run in {directory} on this machine, nor in the tracking store "
        f"{place}: give the id of one of its runs",
    )
    assert run is not None
    digest = run.data.tags.get(DIGEST, "")
    require(
        re.fullmatch("[0-9a-f]{64}", digest),
        f"run={run_id} has no checkpoint in {place} that could be checked: it did not reach its "
        f"end, is no training, or has no tag {DIGEST} because an earlier version recorded it; if "
        f"it has the artifact {FOLDER}/{NAME}, download that and give its path",
    )
    path = cache / CACHE / f"{digest}.safetensors"
    if path.is_file() and sha256(path) == digest:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as folder:
        try:
            with store_errors(directory):
                found = client.download_artifacts(run.info.run_id, f"{FOLDER}/{NAME}", folder)
        except Unavailable as error:
            raise Refused(f"run={run_id}: {FOLDER}/{NAME} cannot be fetched: {error}") from error
        fetched = sha256(Path(found))
        require(
            fetched == digest,
            f"run={run_id}: {FOLDER}/{NAME} in {place} is not what the run recorded: its SHA-256 "
            f"begins with {fetched[:12]}, that of the run with {digest[:12]}; it was damaged or "
            "replaced, and is not used",
        )
        os.replace(found, path)
    return path
