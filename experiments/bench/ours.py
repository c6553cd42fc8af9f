"""Our side, through the same interfaces as the tasks: train, score, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from experiments.bench.counts import Cluster, Shape
from experiments.bench.text import Text
from unroll.app import compose
from unroll.config import Config
from unroll.data.token_stream import TokenStream
from unroll.evaluation.perplexity import Score, score
from unroll.generation.sampler import continuations
from unroll.models.language_model import LanguageModel
from unroll.models.quantized import quantize, quantized_model, weights_of
from unroll.registry import build
from unroll.tasks.run import keep_freed_memory, resolved
from unroll.training.learner import Silent
from unroll.training.loop import Trainer

PREFIX = 100
"""Words that are read before the first is written."""


PLAIN = (
    "data=lee_news",
    "model.tie_weights=false",
    "optimizer/schedule=constant",
    "optimizer.learning_rate=3e-3",
    "training.dropout=0.0",
)
"""What the other sides do, too, unless a row says something else."""


def composed(words: Sequence[str]) -> Config:
    """A config whose training ends only where it is told to."""
    return resolved(compose([*PLAIN, "training.epochs=null", "training.max_steps=1", *words]))


@dataclass(frozen=True)
class Subject:
    """A model of ours with the text that it reads."""

    config: Config
    text: Text
    model: LanguageModel

    @classmethod
    def of(cls, words: Sequence[str], text: Text, device: str) -> Subject:
        """The model that these overrides make, with the weights of its seed."""
        config = composed(words)
        fitted = config.model.fitted(lambda: text.counts().tolist())
        keep_freed_memory()
        torch.manual_seed(config.seed)
        model: LanguageModel = build("model", fitted, len(text), config.precision)
        return cls(config, text, model.to(device))

    @property
    def precision(self) -> str:
        return self.model.precision.name

    @property
    def shape(self) -> Shape:
        """The sizes from which operations are counted."""
        model: Any = self.model.config
        return Shape.of(model, clusters(model.softmax, model.output_size, self.text))


def clusters(softmax: Any, width: int, text: Text) -> list[Cluster]:
    """What of the vocabulary a softmax scores for a word of the text: all of it, or where its
    config has cutoffs a shortlist with an entry for each tail, and the tail of the word."""
    counts, settings = text.counts(), vars(softmax)
    starts = [0, *(settings.get("cutoffs") or ())]
    ends = [*starts[1:], len(text)]
    found = [Cluster(ends[0] + len(starts) - 1)]
    for tail in range(1, len(starts)):
        place = slice(starts[tail], ends[tail])
        narrow = max(1, int(width / settings["div_value"] ** tail))
        share = float(counts[place].sum() / counts.sum())
        projection = narrow if narrow < width else None
        found.append(Cluster(ends[tail] - starts[tail], share, projection))
    return found


class Learning:
    """A training that goes on by a number of steps."""

    def __init__(self, one: Subject, callbacks: Silent | None = None) -> None:
        self.trainer = Trainer.from_config(
            one.config, one.model, one.text.stream, callbacks or Silent()
        )

    def __call__(self, steps: int) -> float:
        """Take ``steps`` more optimizer steps; the number of words that they learned."""
        trainer = self.trainer
        before = trainer.outcome.tokens
        trainer.config = replace(trainer.config, max_steps=trainer.outcome.steps + steps)
        return trainer.fit().tokens - before


def scoring(one: Subject) -> Callable[[int], float]:
    """Scores the first words of a text after its first one; the number of words."""
    ids, unknown = one.text.stream.tokens, one.text.vocabulary.unknown

    def work(words: int) -> float:
        stream = TokenStream.from_documents([np.asarray(ids[: words + 1])])
        return score(one.model, stream, one.config.evaluation, unknown).tokens

    return work


def scored(one: Subject, stream: TokenStream | None) -> Score:
    """Our score of a split of the text."""
    assert stream is not None
    return score(one.model, stream, one.config.evaluation, one.text.vocabulary.unknown)


def writing(one: Subject, texts: int) -> Callable[[int], float]:
    """Writes ``texts`` texts of some words side by side; the number of words in all."""
    prefix = torch.from_numpy(np.asarray(one.text.stream.tokens[:PREFIX]).astype(np.int64))

    def work(words: int) -> float:
        sampling = replace(one.config.sampling, length=words, samples=texts)
        (found,) = continuations(one.model, one.text.vocabulary, [prefix], sampling, PREFIX)
        return sum(map(len, found))

    return work


def eight_bits(one: Subject) -> Subject:
    """The same model with weights of eight bits."""
    model = one.model
    config: Any = model.config  # of a cell
    small = quantized_model(config, model.vocabulary_size, quantize(weights_of(model)))
    return replace(one, model=small)
