"""Figures of a split: equal to a plain count, and to what is published of real text."""

from __future__ import annotations

import statistics as plain
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unroll.config import Config
from unroll.data import statistics as module
from unroll.data.statistics import Frequent, Statistics, most_frequent, statistics, token_counts
from unroll.data.token_stream import TokenStream, encode
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.registry import build

VOCABULARY = Vocabulary([*SPECIALS, "a", "b", "c", "d", "e", "f"])
DOCUMENTS = st.lists(
    st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=12), min_size=1, max_size=12
).filter(any)


def stream_of(documents: list[list[int]]) -> TokenStream:
    return TokenStream.from_documents([np.array(row, np.int32) for row in documents], 77)


def described(config: Config, window: int = 100) -> dict[str, Statistics]:
    encoded = encode(config.data, build("data", config.data))
    return {
        split: statistics(stream, encoded.vocabulary, window)
        for split, stream in encoded.streams.items()
    }


@given(DOCUMENTS, st.integers(1, 14))
def test_every_figure_equals_a_plain_count(documents: list[list[int]], window: int) -> None:
    found = statistics(stream_of(documents), VOCABULARY, window)
    tokens = [token for document in documents for token in document]
    lengths = [len(document) for document in documents]
    windows = sum(1 for document in documents for end in range(len(document)) if end - window >= 0)
    assert (found.documents, found.tokens, found.characters) == (len(documents), len(tokens), 77)
    assert found.types == len(set(tokens))
    assert found.unknown_rate == tokens.count(VOCABULARY.unknown) / len(tokens)
    assert (found.window, found.windows) == (window, windows)
    assert found.target_rate == windows / len(tokens)
    assert found.longer_documents == sum(length > window for length in lengths)
    assert found.longer_rate == found.longer_documents / len(documents)
    assert (found.lengths.minimum, found.lengths.maximum) == (min(lengths), max(lengths))
    assert found.lengths.mean == pytest.approx(plain.fmean(lengths))
    assert found.lengths.median == plain.median(lengths)
    counts = Counter(token for token in tokens if token >= len(SPECIALS))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert found.most_frequent == [
        Frequent(VOCABULARY.tokens[token], token, count) for token, count in ranked
    ]


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=40))
def test_quartiles_and_histogram_are_those_of_the_lengths(lengths: list[int]) -> None:
    offsets = np.cumsum([0, *lengths])
    found = module.lengths(TokenStream(np.zeros(0, np.int32), offsets, 0))
    quartiles = plain.quantiles(lengths, n=4, method="inclusive")
    assert [found.lower_quartile, found.median, found.upper_quartile] == pytest.approx(quartiles)
    width, counts = found.histogram.width, found.histogram.counts
    assert counts == [
        sum(bar * width <= length < (bar + 1) * width for length in lengths)
        for bar in range(len(counts))
    ]
    assert sum(counts) == len(lengths)
    assert 1 <= len(counts) <= module.BINS
    assert counts[-1] > 0


def test_tokens_are_counted_the_same_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = stream_of([[4, 5, 5, 9], [0, 4, 4]])
    whole = token_counts(stream, len(VOCABULARY)).tolist()
    monkeypatch.setattr(module, "COUNTED_AT_ONCE", 2)
    assert token_counts(stream, len(VOCABULARY)).tolist() == whole == [1, 0, 0, 0, 3, 2, 0, 0, 0, 1]


def test_the_most_frequent_are_counted_and_not_the_first_of_the_vocabulary() -> None:
    counts = np.array([50, 0, 0, 60, 1, 2, 9, 2, 0, 3])
    found = [(item.token, item.id, item.count) for item in most_frequent(counts, VOCABULARY, 4)]
    assert found == [("c", 6, 9), ("f", 9, 3), ("b", 5, 2), ("d", 7, 2)]
    assert len(most_frequent(counts, VOCABULARY)) == 5  # what does not occur is not listed


def test_lee_news_has_the_published_figures(composed: Callable[..., Config]) -> None:
    found = described(composed("data=lee_news", "data.valid_fraction=0"))
    train, test = found["train"], found["test"]
    assert (train.documents, train.tokens) == (300, 59_890)
    assert (train.longer_documents, train.windows) == (277, 30_301)
    assert (test.documents, test.tokens) == (50, 3_983)
    assert train.unknown_rate == 0
    assert train.types == 10_186


def test_ag_news_has_the_published_figures(
    composed: Callable[..., Config], shared: Callable[[str], Path]
) -> None:
    folder = shared("ag_news")
    found = described(composed("data=ag_news", f"data.path={folder}", "data.valid_fraction=0"))
    assert (found["train"].documents, found["train"].longer_documents) == (19_998, 25)
    assert (found["test"].documents, found["test"].longer_documents) == (7_600, 18)
    assert found["train"].target_rate < 0.01
