"""What a run does while its model trains: validate, save checkpoints, log."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from unroll.config import Config
from unroll.data.token_stream import Encoded
from unroll.evaluation.perplexity import Score, score
from unroll.tasks.run import Run
from unroll.tracking import ledger
from unroll.training import checkpoint


class RunCallbacks:
    """The callbacks of a learner whose run has a directory and a tracker.

    Args:
        model: a ``LanguageModel`` or an ``NGramModel``.
    """

    def __init__(self, run: Run, model: Any, encoded: Encoded) -> None:
        self.run, self.model, self.encoded = run, model, encoded
        self.header = checkpoint_header(run.config, encoded)
        self.folder, self.recorded = run.directory / ledger.CHECKPOINTS, False

    @property
    def log_every(self) -> int:
        return self.run.tracker.every

    def log(self, figures: dict[str, float], step: int) -> None:
        self.run.tracker.log(figures, step)

    def validate(self) -> Score | None:
        return self.score("valid")

    def score(self, split: str) -> Score | None:
        """The score of a split; None if the corpus does not have it."""
        if split not in self.encoded.streams:
            return None
        unknown = self.encoded.vocabulary.unknown
        return score(self.model, self.encoded.streams[split], self.run.config.evaluation, unknown)

    def save(self, name: str, step: int) -> None:
        """Write a checkpoint; from the first one on, ``run=`` finds the run."""
        run, run_id = self.run, self.run.tracker.run_id
        path = self.folder / f"{name}.safetensors"
        run.tracker.flush()  # first: the points of a checkpoint that survives survive too
        checkpoint.save(path, self.model, run_id=run_id, step=step, **self.header)
        if not self.recorded:
            store = Path(run.config.tracking.directory)
            ledger.record(store, run_id, run.name, run.directory, run.started)
            self.recorded = True


def restore_best(model: nn.Module, directory: Path) -> None:
    """Load the best checkpoint of a run directory into ``model``."""
    checkpoint.read(directory / ledger.CHECKPOINTS / ledger.BEST).load(model)


def checkpoint_header(config: Config, encoded: Encoded) -> dict[str, Any]:
    """What a checkpoint says besides weights, run and step. Paths to data are absolute, so that
    the run can be read from any folder."""
    values = asdict(config)
    for key in ("path", "valid_path", "test_path"):
        if values["data"].get(key):
            values["data"][key] = os.path.abspath(values["data"][key])
    return {
        "config": values,
        "vocabulary": encoded.vocabulary.to_json(),
        "tokenizer": encoded.tokenizer.to_json(),
    }
