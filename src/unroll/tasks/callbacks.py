"""What a run does while its model trains: validate, save checkpoints, log."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from unroll.config import Config
from unroll.data.token_stream import Encoded
from unroll.errors import redacted_value
from unroll.evaluation.perplexity import OneReader, Score, score
from unroll.registry import free_text
from unroll.tasks.run import Run, absolute
from unroll.tracking import ledger
from unroll.training import checkpoint
from unroll.training.learner import Silent
from unroll.training.parallel import OneProcess
from unroll.training.saved_state import Saved, StateWriter, go_back

ShouldStop = Callable[[float, int], bool]
"""``Callbacks.should_stop``: of a validation loss and its number."""


class Validation(Silent):
    """The callbacks of a learner that validates and writes nothing, as in every process but the
    first.

    Args:
        model: a ``LanguageModel`` or an ``NGramModel``.
        processes: those that train it, which share out the validation split.
    """

    def __init__(self, config: Config, model: Any, encoded: Encoded, processes: OneProcess) -> None:
        self.config, self.model, self.encoded = config, model, encoded
        self.processes = processes

    @property
    def log_every(self) -> int:
        return self.config.tracking.every

    def validate(self) -> Score | None:
        return self.score("valid", self.processes)

    def score(self, split: str, reader: OneReader | None = None) -> Score | None:
        """The score of a split; None if the corpus does not have it."""
        if split not in self.encoded.streams:
            return None
        unknown, stream = self.encoded.vocabulary.unknown, self.encoded.streams[split]
        return score(self.model, stream, self.config.evaluation, unknown, reader)


class RunCallbacks(Validation):
    """The callbacks of a learner whose run has a directory and a tracker.

    Args:
        should_stop: asked after each validation.
    """

    def __init__(
        self,
        run: Run,
        model: Any,
        encoded: Encoded,
        processes: OneProcess,
        should_stop: ShouldStop,
    ) -> None:
        super().__init__(run.config, model, encoded, processes)
        self.run, self._should_stop = run, should_stop
        self.header = checkpoint_header(run.config, encoded)
        self.folder = run.directory / ledger.CHECKPOINTS
        self.states = StateWriter(self.folder, ledger.BEST, run.config.training.checkpoints_kept)

    def log(self, figures: dict[str, float], step: int) -> None:
        self.run.tracker.log(figures, step)

    def should_stop(self, loss: float, validation: int) -> bool:
        return self._should_stop(loss, validation)

    def begin(self, saved: Saved | None) -> None:
        """Write what it takes to go on with the run, or to find it with ``run=``; take the files
        of a run that goes on back to ``saved``. The journal must be open: it shows that no other
        process is writing the run."""
        run, store = self.run, Path(self.run.config.tracking.directory)
        ledger.write_config(run.directory, self.header["config"])
        ledger.record(
            store, run.tracker.run_id, run.name, run.directory, run.started, run.fingerprint
        )
        if run.resumed_at is None:
            run.tracker.checkpoint(0)
        else:
            go_back(saved, self.folder, ledger.BEST)

    def save(self, name: str, step: int) -> None:
        """Write a checkpoint of the model."""
        path, run_id = self.folder / f"{name}.safetensors", self.run.tracker.run_id
        checkpoint.save(path, self.model, run_id=run_id, step=step, **self.header)

    def keep_state(self, state: Mapping[str, Any], step: int) -> None:
        self.run.tracker.checkpoint(step)
        self.states.save(state, step)

    def state_kept(self) -> None:
        self.states.wait()


def restore_best(model: nn.Module, directory: Path) -> None:
    """Load the best checkpoint of a run directory into ``model``."""
    checkpoint.read(directory / ledger.CHECKPOINTS / ledger.BEST).load(model)


def checkpoint_header(config: Config, encoded: Encoded) -> dict[str, Any]:
    """What a checkpoint says besides weights, run and step. Paths to data are absolute, so that
    the run can be read from any folder. A secret of the environment in a key that may be any text
    is left out."""
    values = asdict(config)
    for key in ("path", "valid_path", "test_path"):
        if values["data"].get(key):
            values["data"][key] = absolute(values["data"][key])
    values["tracking"]["directory"] = os.path.abspath(values["tracking"]["directory"])
    for key in free_text:
        group, _, name = key.rpartition(".")
        place = values[group] if group else values
        if place.get(name) is not None:
            place[name] = redacted_value(place[name])
    return {
        "config": values,
        "vocabulary": encoded.vocabulary.to_json(),
        "tokenizer": encoded.tokenizer.to_json(),
    }
