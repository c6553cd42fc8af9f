"""A generated corpus that repeats its first word after a gap: how long does a model remember?

    s3  d0 d5 d1 d1  s3        a document of gap 4: symbol, distractors, the symbol again

Symbols and distractors are drawn uniformly and independently, so that the lowest possible
perplexity is known in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from unroll.data.config import RecallConfig
from unroll.data.corpus import TEXT, Corpus, generated

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset

DRAWN_AT_ONCE = 1024


class Recall(Corpus):
    """Documents drawn with ``data.split_seed``; it reads no file."""

    config: RecallConfig

    def files(self) -> dict[str, list[Path]]:
        return {}

    @property
    def reading(self) -> dict[str, Any]:
        keys = ("name", "gap", "symbols", "distractors", "documents", "split_seed")
        return {key: getattr(self.config, key) for key in keys}

    def tables(self) -> dict[str, Dataset]:
        return {"train": generated(_drawn, self.reading, [], self.config.cache)}


def _drawn(
    name: str, gap: int, symbols: int, distractors: int, documents: int, split_seed: int
) -> Iterator[dict[str, str]]:
    generator = np.random.default_rng(split_seed)
    symbol = np.array([f"s{number}" for number in range(symbols)], dtype=object)
    distractor = np.array([f"d{number}" for number in range(distractors)], dtype=object)
    for start in range(0, documents, DRAWN_AT_ONCE):
        rows = min(DRAWN_AT_ONCE, documents - start)
        ends = symbol[generator.integers(symbols, size=(rows, 1))]
        between = distractor[generator.integers(distractors, size=(rows, gap))]
        for words in np.hstack([ends, between, ends]):
            yield {TEXT: " ".join(words)}


def best_perplexity(config: RecallConfig, protocol: str, context: int, documents: int) -> float:
    """The perplexity of a model that knows how ``documents`` documents are drawn and remembers
    everything that ``protocol`` shows it (``context`` tokens, for ``window``).

    A distractor costs ln D nats, the repeated symbol nothing. ``stream`` also scores the symbols
    at the start of documents, except the very first: ln S each. A ``window`` without a symbol is
    one of ``m`` that look the same, of which one is at the end of a document: to predict this
    costs -ln(1/m) at the end and -ln(1 - 1/m) elsewhere, and the repeated symbol costs ln S.
    ``handout`` does not score the repeated symbol but divides by the same number.
    """
    gap, symbol, distractor = config.gap, math.log(config.symbols), math.log(config.distractors)
    if protocol == "last":
        return 1.0
    nats, tokens = documents * gap * distractor, documents * (gap + 1)
    if protocol == "stream":
        nats += (documents - 1) * symbol
        tokens += documents - 1
    alike = gap + 1 - context
    if protocol == "window" and alike > 0:
        nats += documents * (symbol + alike * math.log(alike))
        nats -= documents * (alike - 1) * math.log(max(alike - 1, 1))
    return math.exp(nats / tokens)
