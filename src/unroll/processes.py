"""Which of the processes of a run this is, as ``torchrun`` tells each that it starts."""

from __future__ import annotations

import os


def size() -> int:
    """Number of processes that carry out this command together."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def rank() -> int:
    """Number of this process among them. Process 0, the first, prints and writes the run."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def local_rank() -> int:
    """Number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", rank()))
