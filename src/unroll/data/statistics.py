"""Statistics of a split: lengths of documents, frequent tokens, what the lab's task uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unroll.data.batching import WindowIndex
from unroll.data.token_stream import TokenStream
from unroll.data.vocabulary import SPECIALS, Vocabulary

BINS = 50
"""Largest number of bars in a histogram of lengths."""
COUNTED_AT_ONCE = 1 << 23  # ids, so that memory does not grow with the corpus


@dataclass(frozen=True)
class Histogram:
    """``counts[k]`` values are in ``[k * width, (k + 1) * width)``; all are integers."""

    width: int
    counts: list[int]


@dataclass(frozen=True)
class Lengths:
    """Tokens per document, over the documents of a split. Quartiles are interpolated linearly."""

    minimum: int
    lower_quartile: float
    median: float
    mean: float
    upper_quartile: float
    maximum: int
    histogram: Histogram


@dataclass(frozen=True)
class Frequent:
    """A token, its id and its count."""

    token: str
    id: int
    count: int


@dataclass(frozen=True)
class Statistics:
    """Statistics of one split. The lab's task reads ``window`` tokens and predicts the next one of
    the same document, so every token except the first ``window`` of a document is a target."""

    documents: int
    tokens: int
    characters: int
    types: int
    """Distinct tokens, including specials that occur."""
    unknown_rate: float
    """Share of the tokens that are ``<unk>``."""
    window: int
    windows: int
    """Windows of the lab's task, each with one target."""
    longer_documents: int
    """Documents longer than a window: the lab's task reads only these."""
    longer_rate: float
    target_rate: float
    """Share of the tokens that are targets of the lab's task."""
    lengths: Lengths
    most_frequent: list[Frequent]


def statistics(stream: TokenStream, vocabulary: Vocabulary, window: int) -> Statistics:
    """The statistics of a split that contains at least one token."""
    counts = token_counts(stream, len(vocabulary))
    windows = len(WindowIndex(stream, window))
    longer = int((stream.lengths > window).sum())
    return Statistics(
        documents=stream.documents,
        tokens=len(stream),
        characters=stream.characters,
        types=int((counts > 0).sum()),
        unknown_rate=int(counts[vocabulary.unknown]) / len(stream),
        window=window,
        windows=windows,
        longer_documents=longer,
        longer_rate=longer / stream.documents,
        target_rate=windows / len(stream),
        lengths=lengths(stream),
        most_frequent=most_frequent(counts, vocabulary),
    )


def token_counts(stream: TokenStream, vocabulary_size: int) -> npt.NDArray[np.int64]:
    """How often each id occurs, ``(vocabulary_size,)``."""
    counts = np.zeros(vocabulary_size, np.int64)
    for first in range(0, len(stream), COUNTED_AT_ONCE):
        part = stream.tokens[first : first + COUNTED_AT_ONCE]
        counts += np.bincount(part, minlength=vocabulary_size)
    return counts


def most_frequent(
    counts: npt.NDArray[np.int64], vocabulary: Vocabulary, size: int = 10
) -> list[Frequent]:
    """The ``size`` most frequent tokens, without specials; of equally frequent tokens the one with
    the lower id comes first."""
    order = np.argsort(-counts[len(SPECIALS) :], kind="stable")[:size] + len(SPECIALS)
    return [
        Frequent(vocabulary.tokens[position], position, int(counts[position]))
        for position in order.tolist()
        if counts[position]
    ]


def lengths(stream: TokenStream) -> Lengths:
    """Statistics of the lengths of the documents of a split."""
    found = stream.lengths
    quartiles = np.quantile(found, (0.25, 0.5, 0.75)).tolist()
    width = int(found.max()) // BINS + 1
    return Lengths(
        minimum=int(found.min()),
        lower_quartile=quartiles[0],
        median=quartiles[1],
        mean=float(found.mean()),
        upper_quartile=quartiles[2],
        maximum=int(found.max()),
        histogram=Histogram(width, np.bincount(found // width).tolist()),
    )
