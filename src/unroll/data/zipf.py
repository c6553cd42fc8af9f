"""Zipf's law: frequency of the n-grams of a text against their rank (Zipf 1949).

n-grams are counted over the whole token stream, across documents, as in d2l 8.3 and as the
sequential batching reads it: a document may be only one line of a book.
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
"""First rank of the fit: the few words before it deviate from it (Mandelbrot 1953)."""
LEAST_COUNT = 5
"""Smallest count in the fit: rarer n-grams form long steps of equal counts, where the slope is only
an effect of rounding to integers."""
POINTS = 100
"""Number of ranks, evenly spaced on a logarithmic axis, in the plot, and the same in the fit: with
all ranks the last decade, nine in ten of them, would decide the fit alone."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """``count = scale * rank ** -exponent`` by least squares in logarithms over the ranks from
    ``first_rank`` to ``last_rank``; NaN if these are fewer than two ranks."""

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
    """Number of n-grams that occur once."""
    most_frequent: list[tuple[str, int]]
    """The ten most frequent, as text, with their counts."""
    points: list[tuple[int, int]]
    """``(rank, count)`` at ranks spaced evenly on a logarithmic axis."""
    fit: Fit


def rank_frequency(stream: TokenStream, vocabulary: Vocabulary, order: int) -> RankFrequency:
    """Counts of the n-grams of ``order`` tokens, including specials.

    Raises:
        Refused: the vocabulary is too large to number n-grams of this order.
    """
    counts, starts = ngram_counts(np.asarray(stream.tokens), order, len(vocabulary))
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
    """The count of each n-gram, falling, and the position in ``tokens`` where it first occurs; of
    equally frequent n-grams the one that occurs first comes first.

    Each n-gram becomes one number below ``vocabulary_size ** order``, and equal numbers are
    counted after sorting: about 40 bytes per token.
    """
    require(
        vocabulary_size**order < 2**63,
        f"n-grams of {order} tokens from a vocabulary of {vocabulary_size:,} are too many to "
        "number: set data.vocabulary.max_size=2000000",
    )
    keys = np.zeros(max(len(tokens) - order + 1, 0), np.int64)
    for position in range(order):
        keys = keys * vocabulary_size + tokens[position : position + len(keys)]
    _, starts, counts = np.unique(keys, return_index=True, return_counts=True)
    falling = np.lexsort((starts, -counts))
    return counts[falling], starts[falling]


def fit(counts: npt.NDArray[Any]) -> Fit:
    """The power law fitted to falling ``counts``, the first of which has rank 1."""
    last = int((counts >= LEAST_COUNT).sum())
    if last <= FIRST_RANK:
        return Fit(math.nan, math.nan, FIRST_RANK, last)
    ranks = spaced(FIRST_RANK, last)
    slope, intercept = np.polyfit(np.log(ranks), np.log(counts[ranks - 1]), 1).tolist()
    return Fit(-slope, math.exp(intercept), FIRST_RANK, last)


def spaced(first: int, last: int) -> Counts:
    """At most ``POINTS`` different ranks from ``first`` to ``last``, evenly spaced in logarithm."""
    if last < first:
        return np.zeros(0, np.int64)
    return np.unique(np.geomspace(first, last, POINTS).round().astype(np.int64))
