"""Rank and frequency: equal to a plain Counter, and a power law is found again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unroll.config import Config
from unroll.data.token_stream import TokenStream, encode
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.data.zipf import (
    FIRST_RANK,
    LEAST_COUNT,
    ORDERS,
    POINTS,
    fit,
    ngram_counts,
    rank_frequency,
    spaced,
)
from unroll.errors import Refused
from unroll.registry import build


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 4))
def test_ngrams_are_counted_as_a_counter_counts_them(tokens: list[int], order: int) -> None:
    plain = Counter(zip(*(tokens[position:] for position in range(order)), strict=False))
    counts, starts = ngram_counts(np.array(tokens, np.int32), order, 7)
    found = [tuple(tokens[start : start + order]) for start in starts.tolist()]
    assert list(zip(found, counts.tolist(), strict=True)) == plain.most_common()


def test_ngrams_of_a_large_vocabulary_are_told_apart() -> None:
    size = 2_000_000
    ends = [0, 1, size - 2, size - 1]
    tokens = [token for a in ends for b in ends for c in ends for token in (a, b, c)]
    counts, _ = ngram_counts(np.array(tokens, np.int32), 3, size)
    plain = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    assert counts.tolist() == [count for _, count in plain.most_common()]


def test_ngrams_that_no_number_holds_are_refused() -> None:
    with pytest.raises(Refused, match=r"data\.vocabulary\.max_size"):
        ngram_counts(np.zeros(5, np.int32), 3, 3_000_000)


@pytest.mark.parametrize("exponent", [0.3, 1.0, 1.7])
def test_the_fit_finds_the_power_law_that_made_the_counts(exponent: float) -> None:
    counts = 1e6 * np.arange(1, 5001, dtype=float) ** -exponent
    counts[: FIRST_RANK - 1] *= 7  # the first few bend away, and are left out
    found = fit(counts)
    assert found.exponent == pytest.approx(exponent)
    assert found.scale == pytest.approx(1e6)
    assert found.first_rank == FIRST_RANK
    assert found.last_rank == sum(counts >= LEAST_COUNT)


def test_counts_below_the_least_one_do_not_decide() -> None:
    counts = np.round(1e4 / np.arange(1, 200))
    long_tail = np.concatenate([counts, np.full(100_000, LEAST_COUNT - 1.0)])
    assert fit(long_tail) == fit(counts)
    plateau = np.full(2 * FIRST_RANK, LEAST_COUNT)
    assert fit(np.concatenate([plateau, plateau - 1])).last_rank == len(plateau)


@pytest.mark.parametrize("ranks", [0, 1, FIRST_RANK])
def test_a_text_too_short_to_fit_has_no_exponent(ranks: int) -> None:
    found = fit(np.full(ranks, 100))
    assert math.isnan(found.exponent)
    assert math.isnan(found.scale)


@given(st.integers(1, 50), st.integers(0, 100_000))
def test_ranks_are_few_rising_and_reach_both_ends(first: int, more: int) -> None:
    ranks = spaced(first, first + more).tolist()
    assert (ranks[0], ranks[-1]) == (first, first + more)
    assert ranks == sorted(set(ranks))
    assert len(ranks) <= POINTS
    assert more >= POINTS / 2 or len(ranks) > more / 2


def test_points_lie_on_the_counts_and_texts_are_named() -> None:
    vocabulary = Vocabulary([*SPECIALS, "x", "y"])
    stream = TokenStream.from_documents([np.array(row, np.int32) for row in ([4, 5], [4, 5, 5])])
    found = rank_frequency(stream, vocabulary, 2)
    # "y x" spans two documents
    assert found.most_frequent == [("x y", 2), ("y x", 1), ("y y", 1)]
    assert (found.occurrences, found.distinct, found.once) == (4, 3, 2)
    assert found.points == [(1, 2), (2, 1), (3, 1)]


def test_ngrams_of_the_time_machine_have_the_counts_that_d2l_publishes(
    composed: Callable[..., Config], shared: Callable[[str], Path]
) -> None:
    words = ("data=time_machine", f"data.path={shared('timemachine.txt')}", "data/tokenizer=word")
    data = composed(*words).data
    encoded = encode(data, build("data", data))
    found = {
        name: dict(
            rank_frequency(encoded.streams["train"], encoded.vocabulary, order).most_frequent
        )
        for name, order in ORDERS.items()
    }
    assert found["unigrams"]["the"] == 2261
    bigrams = {"of the": 309, "in the": 169, "i had": 130, "i was": 112, "and the": 109}
    bigrams |= {"the time": 102, "it was": 99, "to the": 85, "as i": 78, "of a": 73}
    assert found["bigrams"] == bigrams
    trigrams = {"the time traveller": 59, "the time machine": 30, "the medical man": 24}
    trigrams |= {"it seemed to": 16, "it was a": 15, "here and there": 15, "seemed to me": 14}
    assert trigrams.items() <= found["trigrams"].items()
