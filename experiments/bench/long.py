"""The rows that take long (FULL=1): time to a perplexity, and an epoch of AG News."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import torch

from experiments.bench import others, ours, peer, plain
from experiments.bench.contest import Bench, Ours
from experiments.bench.ours import Subject
from experiments.bench.text import Text
from experiments.bench.turns import Repeated, Turn
from unroll.config import Config
from unroll.evaluation.perplexity import Score
from unroll.training.learner import Silent

EPOCHS = 4
FAST = (
    "model=lstm model.layers=2 model.embedding_size=200 model.hidden_size=200 "
    "training.dropout=0.2 training.clip_norm=1.0 optimizer=adam optimizer.learning_rate=3e-3 "
    "data.batching.batch_size=20 data.batching.length=35 training.validate_every=200 "
    "training.epochs=20 training.max_steps=null"
)
"""The sizes of PyTorch's example, trained for speed."""
NEWS = "model=lstm model.embedding_size=256 model.hidden_size=256"


class Reached(Exception):
    """The perplexity is reached."""


class Until(Silent):
    """Callbacks that validate, and end the training at a perplexity."""

    def __init__(self, one: Subject, perplexity: float) -> None:
        self._one, self._perplexity = one, perplexity

    def validate(self) -> Score:
        found = ours.scored(self._one, self._one.text.valid)
        if found.perplexity <= self._perplexity:
            raise Reached
        return found


@functools.cache
def example_epochs(checkout: str, corpus: str) -> list[peer.Epoch]:
    """The epochs of PyTorch's example, run once."""
    return peer.trained(checkout, corpus, "lstm", 200, EPOCHS)


def _epochs(bench: Bench) -> list[peer.Epoch]:
    return example_epochs(bench.given["PEER"], bench.given["PENN_TREEBANK"])


def example_time(bench: Bench) -> Turn:
    """Seconds of its epochs, with their validations."""
    return lambda: sum(epoch.seconds for epoch in _epochs(bench))


def our_time(softmax: str) -> Callable[[Bench], Ours]:
    """Seconds of our training to its perplexity, with our validations."""

    def make(bench: Bench) -> Ours:
        words = [*FAST.split(), *softmax.split(), *bench.extra]
        one = Subject.of(words, bench.treebank, bench.device)

        def turn() -> float:
            target = _epochs(bench)[-1].perplexity
            trainer = ours.Learning(one, Until(one, target)).trainer
            start = time.perf_counter()
            try:
                trainer.fit()
            except Reached:
                return time.perf_counter() - start
            return float("inf")  # its epochs were not enough

        return Ours(turn, one.precision)

    return make


def our_epoch(softmax: str) -> Callable[[Bench], Ours]:
    """Seconds of an epoch with its validation, and of scoring the test text."""

    def make(bench: Bench) -> Ours:
        words = [*NEWS.split(), *softmax.split(), *bench.extra]
        one = Subject.of(words, bench.news, bench.device)

        def turn() -> float:
            start = time.perf_counter()
            ours.Learning(one)(others.steps(one.config, one.text))
            for stream in (one.text.valid, one.text.test):
                ours.scored(one, stream)
            return time.perf_counter() - start

        return Ours(turn, one.precision)

    return make


def twin_epoch(bench: Bench) -> Turn:
    """Seconds that the plain twin would take, from its rates over a part of the text."""
    config, text = ours.composed(NEWS.split()), bench.news

    def turn() -> float:
        learning = Repeated(others.twin_learning(config, text, bench.device))
        scoring = Repeated(_twin_scoring(config, text, bench.device), 1024)
        learning(), scoring()
        assert text.valid is not None
        assert text.test is not None
        scored = len(text.valid) + len(text.test)
        return len(text.stream) / learning() + scored / scoring()

    return turn


def _twin_scoring(config: Config, text: Text, device: str) -> Callable[[int], float]:
    model = others.model(config, text, device).eval()
    ids = torch.from_numpy(np.asarray(text.stream.tokens[:100_000]).astype(np.int64)).to(device)

    def work(words: int) -> float:
        plain.score_in_sequence(model, ids[: words + 1])
        return min(words, len(ids) - 1)

    return work
