"""Diversity of texts, against closed forms."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unroll.evaluation.diversity import distinct_n, repetition

texts_of = st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_text_without_repetition_has_1_and_m_equal_words_have_1_in_m(n: int):
    assert distinct_n([range(9)], n) == 1
    assert distinct_n(["x" * 9], n) == pytest.approx(1 / (9 - n + 1))


def test_texts_that_repeat_each_other_are_less_distinct_but_no_text_repeats_itself():
    texts = [range(9), range(9)]
    assert distinct_n(texts, 2) == 0.5
    assert repetition(texts, 4) == 0


@pytest.mark.parametrize("period", [1, 3, 8])
def test_of_a_loop_all_but_the_first_round_is_repetition(period: int):
    loop = [position % period for position in range(43)]
    assert repetition([loop], 4) == pytest.approx(1 - period / 40)


def test_repetition_is_the_mean_over_the_texts_that_are_long_enough():
    assert repetition(["xxxxx", "abcde", "xxx"], 4) == pytest.approx((0.5 + 0) / 2)


def test_without_n_grams_the_result_is_nan():
    assert math.isnan(distinct_n(["ab", ""], 3))
    assert math.isnan(repetition(["ab"], 4))


@given(texts_of, st.integers(1, 4))
def test_distinct_n_counts_each_kind_of_n_gram_once(texts: list[list[int]], n: int):
    counts = Counter(
        tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1)
    )
    if counts:
        assert distinct_n(texts, n) == pytest.approx(len(counts) / counts.total())
