"""Zipf's law: how often the n-grams of a text occur, against their rank (Zipf 1949).

n-grams run over the token stream from end to end, across documents, as d2l 8.3 counts them and as
the sequential batching reads them: a document may be no more than a line of a book.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unroll.data.token_stream import TokenStream
from unroll.data.vocabulary import Vocabulary
from unroll.errors import require

ORDERS = {"unigrams": 1, "bigrams": 2, "trigrams": 3}
FIRST_RANK = 10
"""Where the fit starts: the handful of words before it bend away from the law (Mandelbrot 1953)."""
LEAST_COUNT = 5
"""Where the fit ends: rarer n-grams stand on long steps of equal counts, and the slope there is
that of rounding to whole numbers."""
POINTS = 100
"""Ranks, evenly apart on a logarithmic axis, that are drawn, and as many that are fitted: of all
ranks nine in ten lie in the last decade, which would decide alone."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """``count = scale * rank ** -exponent`` by least squares in logarithms over the ranks from
    ``first_rank`` to ``last_rank``; nan where these hold fewer than two ranks."""

    exponent: float
    scale: float
    first_rank: int
    last_rank: int


@dataclass(frozen=True)
class RankFrequency:
    """The n-grams of one length, by falling frequency."""

    occurrences: int
    distinct: int
    once: int
    """n-grams that occur a single time."""
    most_frequent: list[tuple[str, int]]
    """The ten most frequent, as text, with their counts."""
    points: list[tuple[int, int]]
    """``(rank, count)`` at ranks spaced evenly on a logarithmic axis."""
    fit: Fit


def rank_frequency(stream: TokenStream, vocabulary: Vocabulary, order: int) -> RankFrequency:
    """Counts of the n-grams of ``order`` tokens, special ones included.

    Raises:
        Refused: the vocabulary is too large for n-grams of this order to be numbered.
    """
    counts, starts = ngram_counts(stream.tokens, order, len(vocabulary))
    texts = [
        " ".join(vocabulary.decode(stream.tokens[start : start + order].tolist()))
        for start in starts[:10].tolist()
    ]
    ranks = spaced(1, len(counts))
    return RankFrequency(
        occurrences=int(counts.sum()),
        distinct=len(counts),
        once=int((counts == 1).sum()),
        most_frequent=list(zip(texts, counts[:10].tolist(), strict=True)),
        points=list(zip(ranks.tolist(), counts[ranks - 1].tolist(), strict=True)),
        fit=fit(counts),
    )


def ngram_counts(
    tokens: npt.NDArray[np.int32], order: int, vocabulary_size: int
) -> tuple[Counts, Counts]:
    """How often each n-gram that occurs does so, falling, and where in ``tokens`` it first
    stands; of n-grams as frequent as each other the one seen first comes first.

    Each n-gram becomes one number below ``vocabulary_size ** order``, and equal ones are counted
    after sorting: about 40 bytes a token.
    """
    require(
        vocabulary_size**order < 2**63,
        f"n-grams of {order} tokens out of {vocabulary_size:,} are too many to number: set "
        "data.vocabulary.max_size=2000000",
    )
    keys = np.zeros(max(len(tokens) - order + 1, 0), np.int64)
    for position in range(order):
        keys = keys * vocabulary_size + tokens[position : position + len(keys)]
    _, starts, counts = np.unique(keys, return_index=True, return_counts=True)
    falling = np.lexsort((starts, -counts))
    return counts[falling], starts[falling]


def fit(counts: npt.NDArray[Any]) -> Fit:
    """The power law through falling ``counts``, of which the first has rank 1."""
    last = int((counts >= LEAST_COUNT).sum())
    if last <= FIRST_RANK:
        return Fit(math.nan, math.nan, FIRST_RANK, last)
    ranks = spaced(FIRST_RANK, last)
    slope, intercept = np.polyfit(np.log(ranks), np.log(counts[ranks - 1]), 1).tolist()
    return Fit(-slope, math.exp(intercept), FIRST_RANK, last)


def spaced(first: int, last: int) -> Counts:
    """At most ``POINTS`` different ranks from ``first`` to ``last``, evenly apart in logarithm."""
    if last < first:
        return np.zeros(0, np.int64)
    return np.unique(np.geomspace(first, last, POINTS).round().astype(np.int64))
