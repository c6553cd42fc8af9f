"""How far back a model makes use of what it reads: the same tokens scored with their context cut to
the last n tokens, for several n (Khandelwal et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from unroll.data.batching import IGNORE, Batch, last_target_only
from unroll.data.token_stream import TokenStream
from unroll.errors import require
from unroll.evaluation.config import EvaluationConfig
from unroll.evaluation.perplexity import POSITIONS_AT_ONCE, Stream, perplexity
from unroll.models.config import require_one_direction
from unroll.models.model import Model

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ContextScore:
    """The mean nats of the scored tokens, each after at most ``context`` tokens; None: after
    everything before it in the split."""

    context: int | None
    nats_per_token: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the mean; inf on overflow."""
        return perplexity(self.nats_per_token)


def positions(stream: TokenStream, config: EvaluationConfig) -> Positions:
    """Where the scored tokens stand, ascending: ``context_tokens`` of them at most, evenly spaced,
    each with as many tokens before it as the longest context has.

    Raises:
        Refused: the text has no such token.
    """
    assert config.contexts is not None
    first, tokens = config.contexts[-1], len(stream)
    require(
        tokens > first,
        f"evaluation.contexts={config.contexts}: the text has {tokens} tokens, so none stands "
        f"after {first} others: leave out the largest, or take a longer text",
    )
    count = min(config.context_tokens, tokens - first)
    return first + np.arange(count) * (tokens - first) // count


def scores_by_context(
    model: Model, stream: TokenStream, config: EvaluationConfig
) -> list[ContextScore]:
    """The score of the same tokens for each of ``config.contexts``, then after everything before
    them, by a model in evaluation mode.

    Raises:
        Refused: the text is shorter than the longest context, or the model reads ahead.
    """
    assert config.contexts is not None
    require_one_direction(model.bidirectional, "evaluation.contexts", str(config.contexts))
    places = positions(stream, config)
    training = model.training
    model.eval()
    with torch.inference_mode():
        nats = [_cut(model, stream, places, context) for context in config.contexts]
        nats.append(_whole(model, stream, places, config))
    model.train(training)
    return [
        ContextScore(context, total / len(places), len(places))
        for context, total in zip((*config.contexts, None), nats, strict=True)
    ]


def _cut(model: Model, stream: TokenStream, places: Positions, context: int) -> float:
    """Nats of the tokens at ``places``, each after ``context`` tokens from a fresh state."""
    rows, sums = max(1, POSITIONS_AT_ONCE // context), []
    for first in range(0, len(places), rows):
        chosen = places[first : first + rows]
        ids = torch.from_numpy(stream.rows(chosen - context, context + 1))
        batch = last_target_only(ids[:, :-1], ids[:, -1]).to(model.device)
        hidden, _ = model(batch.inputs, model.initial_state(len(chosen)))
        sums.append(model.softmax.score(*batch.scored(hidden))[0])
    return math.fsum(sums)


def _whole(model: Model, stream: TokenStream, places: Positions, config: EvaluationConfig) -> float:
    """Nats of the tokens at ``places``, with the state carried through the split."""
    numbered = TokenStream(np.arange(len(stream), dtype=np.int32), stream.offsets, 0)
    reading = Stream(config, every_position=True)
    sums, state = [], None
    for batch, numbers in zip(reading.batches(stream), reading.batches(numbered), strict=True):
        unwanted = ~torch.isin(numbers.targets, torch.from_numpy(places))
        targets = batch.targets.masked_fill(unwanted, IGNORE)
        batch = Batch(batch.inputs, targets, batch.carry).to(model.device)
        if not batch.carry:
            state = model.initial_state(len(batch.inputs))
        hidden, state = model(batch.inputs, state)
        hidden, wanted = batch.scored(hidden)
        if len(wanted):
            sums.append(model.softmax.score(hidden, wanted)[0])
    return math.fsum(sums)
