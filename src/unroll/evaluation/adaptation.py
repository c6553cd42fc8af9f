"""Scores of a stream by a model that adapts to it, and by mixtures of models.

The stream is read by one row, segment by segment. For each segment every model gives the
probabilities of every next token, given all tokens before it, and only then learns from it:

    dynamic evaluation    the weights take a step down the gradient of the segment's loss
    neural cache          p = (1 - weight) p_model + weight p_cache, where p_cache(w) is
                          proportional to the sum of exp(theta h_t . h_i) over the positions i
                          before t, at most ``size`` back, that were followed by w; with theta = 0
                          the share of w in them (the cache of Kuhn and De Mori 1990)
    mixture               p = the sum of weight_k p_k over models k
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unroll.data.batching import shifted
from unroll.data.token_stream import TokenStream
from unroll.evaluation.config import CacheConfig, DynamicConfig, EvaluationConfig
from unroll.evaluation.perplexity import Score, require_scorable
from unroll.models.config import require_one_direction
from unroll.models.cross_entropy import sum_of
from unroll.models.model import Model

STEPS = 128
"""Tokens of a segment where no weights are adapted."""
STATISTICS_STEPS = 35
"""Tokens of the sequences of which the mean square of gradients is taken."""
STATISTICS_SEQUENCES = 2000
"""Sequences of it, at most, spread evenly over the training split."""
ITERATIONS, CLOSE = 1000, 1e-7
"""Of the fit of a mixture: its steps at most, and the change of a weight that ends it."""


class Dynamic:
    """The weights of a model, which learn from each segment after it was scored.

    With the trained weights w0, the gradient g of the segment's mean loss, and the root mean square
    r of gradients over the training text (Krause et al. 2018, section 4):

        w <- w - rate * g / (r + epsilon) + min(decay * r / mean(r), 1) * (w0 - w)

    Under ``sgd`` r is left out of both terms: w <- w - rate * g + decay * (w0 - w).

    Args:
        squares: mean squares of the gradient of each parameter; read only under ``rms``.
    """

    def __init__(self, model: Any, config: DynamicConfig, squares: Sequence[Tensor]) -> None:
        assert config.learning_rate is not None
        self.weights = list(model.parameters())
        self.trained = [weight.detach().clone() for weight in self.weights]
        one = torch.ones((), device=model.device)
        self.rates: list[Tensor] = [one * config.learning_rate] * len(self.weights)
        self.decays: list[Tensor] = [one * config.decay] * len(self.weights)
        if config.rule == "rms":
            roots = [square.sqrt() for square in squares]
            mean = torch.cat([root.flatten() for root in roots]).mean()
            self.rates = [config.learning_rate / (root + config.epsilon) for root in roots]
            self.decays = [(config.decay * root / mean).clamp(max=1) for root in roots]

    def step(self, loss: Tensor) -> None:
        """Learn from a segment, given its mean loss."""
        gradients = gradients_of(loss, self.weights)
        with torch.no_grad():
            parts = zip(self.weights, gradients, self.trained, self.rates, self.decays, strict=True)
            for weight, gradient, trained, rate, decay in parts:
                weight += decay * (trained - weight) - rate * gradient

    def restore(self) -> None:
        """Give the model its trained weights back, bit for bit."""
        with torch.no_grad():
            for weight, trained in zip(self.weights, self.trained, strict=True):
                weight.copy_(trained)


class Cache:
    """The hidden vectors of the last ``size`` tokens, with the token that followed each."""

    def __init__(self, config: CacheConfig) -> None:
        assert config.size is not None
        self.config, self.size = config, config.size
        self.keys: Tensor | None = None
        self.words: Tensor | None = None

    def mixed(self, chances: Tensor, hidden: Tensor, targets: Tensor) -> Tensor:
        """``chances (steps, vocabulary)`` with the cache mixed in, each position with what was
        before it; then ``hidden (steps, width)`` and ``targets (steps,)`` are remembered. The very
        first position has nothing before it, and keeps its chances."""
        steps = len(targets)
        keys, words = hidden, targets
        if self.keys is not None and self.words is not None:
            keys, words = torch.cat([self.keys, hidden]), torch.cat([self.words, targets])
        places = torch.arange(len(words), device=words.device)
        distance = places[-steps:, None] - places
        remembered = (distance > 0) & (distance <= self.size)
        logits = torch.zeros(distance.shape, device=words.device)
        if self.config.theta:  # else the hidden vectors, which an n-gram lacks, do not matter
            logits = self.config.theta * (hidden @ keys.t())
        shares = logits.masked_fill(~remembered, -torch.inf).softmax(dim=1)
        shares = shares.nan_to_num()  # of a row with nothing before it
        weights = self.config.weight * remembered.any(dim=1, keepdim=True)
        found = chances * (1 - weights)
        found.index_add_(1, words, (weights * shares).to(found.dtype))
        self.keys, self.words = keys[-self.size :], words[-self.size :]
        return found


def gradients_of(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of the loss for each of the weights, dense."""
    found = torch.autograd.grad(loss, list(weights), allow_unused=True, materialize_grads=True)
    return [gradient.to_dense() if gradient.is_sparse else gradient for gradient in found]


@contextmanager
def scored(model: Any) -> Iterator[None]:
    """The model in evaluation mode, with gradients that can be had; then as before."""
    training = model.training
    model.eval()
    try:
        with torch.backends.cudnn.flags(enabled=False):  # in eval mode it has no backward pass
            yield
    finally:
        model.train(training)


def mean_squares(model: Any, stream: TokenStream) -> list[Tensor]:
    """The mean square of the gradient of each parameter, over sequences spread evenly over the
    training text, each read from the initial state."""
    weights = list(model.parameters())
    steps = min(STATISTICS_STEPS, len(stream) - 1)
    starts = np.linspace(0, len(stream) - 1 - steps, STATISTICS_SEQUENCES).astype(np.int64)
    starts = np.unique(starts)
    found = [torch.zeros_like(weight) for weight in weights]
    with scored(model):
        for start in starts:
            batch = shifted(stream, np.array([start]), steps, carry=False).to(model.device)
            hidden, _ = model(batch.inputs, model.initial_state(1))
            loss = model.softmax.loss(hidden[0], batch.targets[0])
            for square, gradient in zip(found, gradients_of(loss, weights), strict=True):
                square += gradient.detach().square() / len(starts)
    return found


def predictions(
    model: Any,
    stream: TokenStream,
    steps: int,
    dynamic: Dynamic | None = None,
    cache: Cache | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each segment of ``steps`` tokens p of every next token, ``(steps, vocabulary)``, and the
    tokens that followed, ``(steps,)``. What is adapted learns from a segment when the next one is
    asked for. Weights that were adapted are the trained ones again at the end, also if the iterator
    is closed before it."""
    state, total = model.initial_state(1), len(stream) - 1
    try:
        for first in range(0, total, steps):
            length = min(steps, total - first)
            batch = shifted(stream, np.array([first]), length, carry=first > 0).to(model.device)
            targets = batch.targets[0]
            with scored(model), torch.set_grad_enabled(dynamic is not None):
                hidden, state = model(batch.inputs, state)
                loss = None if dynamic is None else model.softmax.loss(hidden[0], targets)
            with torch.no_grad():
                vectors = hidden[0].detach()
                chances = model.softmax.log_probabilities(vectors).exp()
                if cache is not None:
                    chances = cache.mixed(chances, vectors, targets)
            yield chances, targets
            if dynamic is not None and loss is not None:
                dynamic.step(loss)
            state = model.detach(state)
    finally:
        if dynamic is not None:
            dynamic.restore()


@dataclass(frozen=True)
class Ensemble:
    """Models over the same vocabulary, of which the first adapts as the config says.

    ``squares``: mean squares of the gradient of each of its parameters, where it learns under
    ``rms``.
    """

    models: Sequence[Model]
    config: EvaluationConfig
    squares: Sequence[Tensor] = ()

    def predictions(self, stream: TokenStream) -> Iterator[tuple[list[Tensor], Tensor]]:
        """For each segment p of every next token by each model, and the tokens that followed."""
        first, *others = self.models
        dynamic = cache = None
        steps = STEPS
        if self.config.dynamic.learning_rate is not None:
            dynamic = Dynamic(first, self.config.dynamic, self.squares)
            steps = self.config.dynamic.segment
        if self.config.cache.size is not None:
            cache = Cache(self.config.cache)
        with ExitStack() as stack:
            readers = [predictions(first, stream, steps, dynamic, cache)]
            readers += [predictions(model, stream, steps) for model in others]
            for reader in readers:
                stack.enter_context(closing(reader))  # type: ignore[type-var]
            for parts in zip(*readers, strict=True):
                targets = parts[0][1]
                yield [chances.to(targets.device) for chances, _ in parts], targets

    def score(self, stream: TokenStream, weights: Sequence[float], unknown: int) -> Score:
        """The score of a stream, each model with its share in ``weights``; ``unknown`` is the id
        of ``<unk>``."""
        require_one_direction(
            any(model.bidirectional for model in self.models),
            "evaluation.protocol",
            self.config.protocol,
        )
        require_scorable(stream, self.config, "the text")
        nats, hits, unknowns, start = [], 0, 0, time.perf_counter()
        with closing(self.predictions(stream)) as found:  # type: ignore[type-var]
            for parts, targets in found:
                chances = torch.zeros_like(parts[0])
                for weight, part in zip(weights, parts, strict=True):
                    chances += weight * part
                own = chances.gather(1, targets[:, None])
                nats.append(sum_of(-own.log().squeeze(1)))
                hits += int((own >= chances.amax(dim=1, keepdim=True)).sum())
                unknowns += int((targets == unknown).sum())
        tokens, seconds = len(stream) - 1, time.perf_counter() - start
        characters, name = stream.characters * tokens / len(stream), self.config.protocol
        total = math.fsum(nats)
        return Score(name, total, tokens, tokens, hits, unknowns, characters, seconds)

    def fitted_weights(self, stream: TokenStream) -> list[float]:
        """The shares of the models that give a held-out stream the highest probability."""
        require_scorable(stream, self.config, "valid")
        with closing(self.predictions(stream)) as found:  # type: ignore[type-var]
            chances = [
                torch.cat([part.gather(1, targets[:, None]) for part in parts], dim=1).cpu()
                for parts, targets in found
            ]
        shares: list[float] = expectation_maximisation(torch.cat(chances).double()).tolist()
        return shares


def expectation_maximisation(chances: Tensor) -> Tensor:
    """The weights ``(models,)`` under which the product of ``chances @ weights`` is largest, given
    ``chances (tokens, models)`` (Dempster et al. 1977). Tokens that no model expects say
    nothing."""
    chances = chances[(chances > 0).any(dim=1)]
    weights = chances.new_full((chances.shape[1],), 1 / chances.shape[1])
    for _ in range(ITERATIONS if len(chances) else 0):
        shares = chances * weights
        before, weights = weights, (shares / shares.sum(dim=1, keepdim=True)).mean(dim=0)
        if (weights - before).abs().max() < CLOSE:
            break
    return weights
