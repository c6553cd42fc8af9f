"""Training by counting: one pass over the stream, no gradient."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from unroll.config import Config
from unroll.data.batching import shifted
from unroll.data.token_stream import TokenStream
from unroll.errors import require
from unroll.evaluation.perplexity import perplexity
from unroll.models.ngram import NGramModel
from unroll.training.learner import Callbacks, Outcome
from unroll.training.parallel import OneProcess

TOKENS_AT_ONCE = 1 << 16
"""Positions whose probabilities are looked up together."""


class Counting:
    """Counts the n-grams of one stream, read as one text.

    Raises:
        Refused: the stream has fewer than two tokens.
    """

    def __init__(self, model: NGramModel, stream: TokenStream, callbacks: Callbacks) -> None:
        require(len(stream) > 1, f"{len(stream)} tokens are too few to count: give at least 2")
        self.model, self.stream, self.callbacks = model, stream, callbacks
        self.outcome = Outcome()

    @classmethod
    def from_config(
        cls,
        config: Config,
        model: NGramModel,
        stream: TokenStream,
        callbacks: Callbacks,
        processes: OneProcess | None = None,
    ) -> Counting:
        """The learner of a composed config: counting has no settings of its own, and several
        processes are refused before."""
        return cls(model, stream, callbacks)

    def fit(self) -> Outcome:
        """Count, score the training text, validate, save the model."""
        outcome, stream = self.outcome, self.stream
        start = time.perf_counter()
        self.model.count(np.asarray(stream.tokens))
        outcome.add_step(time.perf_counter() - start, len(stream))
        outcome.epochs = 1.0
        loss = outcome.train_loss = self._train_loss()
        figures = {"train/epoch_loss": loss, "train/epoch_perplexity": perplexity(loss)}
        figures |= {"train/loss": loss, "train/perplexity": perplexity(loss)}
        self._log(figures | {"tokens_per_second": outcome.tokens_per_second})
        self.callbacks.save("last", outcome.steps)
        found = outcome.best_valid = self.callbacks.validate()
        if found is not None:
            self._log({"valid/loss": found.nats_per_token, "valid/perplexity": found.perplexity})
        outcome.best_step = outcome.steps
        self.callbacks.save("best", outcome.steps)
        return outcome

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Counting takes one pass and keeps no state: one that was cut off counts again."""

    def _train_loss(self) -> float:
        """Mean nats per token of the counted text; its first token has no context and is not
        scored."""
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
        self.outcome.add_point(figures)
        self.callbacks.log(figures, self.outcome.steps)
