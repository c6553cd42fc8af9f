"""What two ends of the same training are compared by: weights by hash, metric history by row."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from unroll.tracking import journal, ledger
from unroll.tracking.store import connect

CLOCK = ("tokens_per_second", "speed/")
"""Metrics that measure time, which no two runs have in common."""

Row = tuple[str, int, float]


@dataclass
class Comparison:
    """How an end differs from that of an undisturbed run."""

    weights: bool = True
    """Whether the best and the last checkpoint have the same tensors."""
    history: bool = True
    """Whether journal and store have the same rows."""
    doubled: int = 0
    """Rows that are there more often than in the undisturbed run."""

    def add(self, other: Comparison) -> None:
        """Take another run into account."""
        self.weights &= other.weights
        self.history &= other.history
        self.doubled += other.doubled


def compared(directory: Path, undisturbed: Path, store: Path, server: str = "") -> Comparison:
    """The end of the run in ``directory`` against the undisturbed one, which has a journal too.

    Args:
        server: the address of the store's server, where it has one.
    """
    expected = recorded(undisturbed)
    kept, delivered = recorded(directory), stored(directory, store, server)
    return Comparison(
        weights(directory) == weights(undisturbed),
        kept == expected == delivered,
        doubled(kept, expected) + doubled(delivered, expected),
    )


def doubled(rows: Iterable[Row], expected: Iterable[Row]) -> int:
    """How many rows of a key and step are there more often than expected."""
    more = Counter(row[:2] for row in rows) - Counter(row[:2] for row in expected)
    return more.total()


def weights(directory: Path) -> str:
    """A hash of all tensors of the best and the last checkpoint."""
    digest = hashlib.sha256()
    for name in (ledger.BEST, ledger.LAST):
        for key, tensor in sorted(load_file(directory / ledger.CHECKPOINTS / name).items()):
            digest.update(f"{name} {key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def recorded(directory: Path) -> list[Row]:
    """The rows of a journal that do not measure time, sorted."""
    rows = ((point.key, point.step, point.value) for point in journal.history(directory))
    return sorted(row for row in rows if not row[0].startswith(CLOCK))


def stored(directory: Path, store: Path, server: str = "") -> list[Row]:
    """The same rows as MLflow has them."""
    run_id = journal.Cursor.read(directory).run
    if run_id is None:
        return []
    with tracking_uri(server):
        client = connect(store)
        keys = client.get_run(run_id).data.metrics
        return sorted(
            (key, point.step, point.value)
            for key in keys
            if not key.startswith(CLOCK)
            for point in client.get_metric_history(run_id, key)
        )


@contextmanager
def tracking_uri(server: str) -> Iterator[None]:
    """Read the store at this address; the SQLite file of the folder if it is empty."""
    before = os.environ.pop(URI, None)
    if server:
        os.environ[URI] = server
    try:
        yield
    finally:
        os.environ.pop(URI, None)
        if before is not None:
            os.environ[URI] = before


URI = "MLFLOW_TRACKING_URI"
