"""How much texts repeat themselves and each other: counts of n-grams of any kind of token."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

Token = TypeVar("Token", bound=Hashable)


def distinct_n(texts: Sequence[Sequence[Token]], n: int) -> float:
    """Number of different n-grams of all texts, divided by the number of their n-grams (Li et al.
    2016).

    It falls with the amount of text, so compare only equal amounts. NaN if no text has ``n``
    tokens.
    """
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repetition(texts: Sequence[Sequence[Token]], n: int) -> float:
    """Share of a text's n-grams that occur in it earlier, the mean over texts: seq-rep-n of
    Welleck et al. (2020). NaN if no text has ``n`` tokens."""
    shares = [1 - distinct_n([text], n) for text in texts if len(text) >= n]
    return sum(shares) / len(shares) if shares else math.nan


def ngrams(text: Sequence[Token], n: int) -> Iterator[tuple[Token, ...]]:
    """The n-grams of a text, in order."""
    return zip(*(text[start:] for start in range(n)), strict=False)
