"""Training by counting: one look at the stream, no gradient."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from unroll.data.batching import Batching, shifted
from unroll.data.token_stream import TokenStream
from unroll.errors import require
from unroll.evaluation.perplexity import Score
from unroll.models.ngram import NGramModel
from unroll.training.config import OptimizerConfig, TrainingConfig
from unroll.training.loop import Log, Outcome, perplexity

TOKENS_AT_ONCE = 1 << 16
"""Positions whose probabilities are looked up together."""


class Counting:
    """Counts one stream; made, and told where to report, as ``Trainer`` is.

    Args:
        stream: what to count, read as one text: ``batching``, ``config``, ``optimizer_config``,
            ``seed`` and ``log_every`` change nothing, for there is one step and nothing random.
        validate: scores the validation split; None where there is none.
        save: writes a checkpoint, ``save(name, step)`` with name "best" or "last".
        log: takes the point of the curves.

    Raises:
        Refused: the stream has no token that another one comes before.
    """

    def __init__(
        self,
        model: NGramModel,
        stream: TokenStream,
        batching: Batching,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        *,
        seed: int,
        validate: Callable[[], Score] | None,
        save: Callable[[str, int], None],
        log: Log,
        log_every: int,
    ) -> None:
        require(len(stream) > 1, f"{len(stream)} tokens are too few to count: give at least 2")
        self.model, self.stream = model, stream
        self.validate, self.save, self.log = validate, save, log
        self.outcome = Outcome()

    def fit(self) -> Outcome:
        """Count, score what was counted, validate, keep the model."""
        outcome, stream = self.outcome, self.stream
        start = time.perf_counter()
        self.model.count(stream.tokens)
        outcome.seconds = time.perf_counter() - start
        outcome.epochs, outcome.steps, outcome.tokens = 1.0, 1, len(stream)
        outcome.train_loss = self._train_loss()
        figures = {"train/epoch_loss": outcome.train_loss, "train/loss": outcome.train_loss}
        figures["train/epoch_perplexity"] = perplexity(outcome.train_loss)
        figures["train/perplexity"] = perplexity(outcome.train_loss)
        self._log(figures | {"tokens_per_second": outcome.tokens_per_second})
        self.save("last", outcome.steps)
        if self.validate is not None:
            found = outcome.best_valid = self.validate()
            self._log({"valid/loss": found.nats_per_token, "valid/perplexity": found.perplexity})
        outcome.best_step = outcome.steps
        self.save("best", outcome.steps)
        return outcome

    def _train_loss(self) -> float:
        """Mean nats of the tokens that were counted, save the first, which has no context."""
        nats, state, total = 0.0, self.model.initial_state(1), len(self.stream) - 1
        with torch.inference_mode():
            for first in range(0, total, TOKENS_AT_ONCE):
                length = min(TOKENS_AT_ONCE, total - first)
                batch = shifted(self.stream, np.array([first]), length, carry=first > 0)
                batch = batch.to(self.model.device)
                hidden, state = self.model(batch.inputs, state)
                nats += self.model.softmax.score(hidden[0], batch.targets[0])[0]
        return nats / total

    def _log(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.outcome.history.setdefault(name, []).append((self.outcome.steps, value))
        self.log.log(figures, self.outcome.steps)
