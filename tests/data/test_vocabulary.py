"""Tokens to ids and back."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unroll.data.config import VocabularyConfig
from unroll.data.vocabulary import SPECIALS, FirstSeen, Vocabulary
from unroll.errors import Refused

WORDS = st.lists(st.text(alphabet='abc<unk>é\u2028\n"\\', max_size=4), max_size=60)


def vocabulary(words, min_frequency=1, max_size=None, always=()):
    return Vocabulary.from_counts(Counter(words), VocabularyConfig(min_frequency, max_size), always)


def written_out(words, min_frequency, max_size):
    """Specials, then words by falling frequency, ties in the order in which they were seen."""
    seen = list(dict.fromkeys(words))
    ranked = sorted(seen, key=lambda word: (-words.count(word), seen.index(word)))
    often = [word for word in ranked if words.count(word) >= min_frequency]
    return [*SPECIALS, *(word for word in often if word not in SPECIALS)][:max_size]


@settings(max_examples=60, deadline=None)
@given(WORDS, st.integers(1, 4), st.none() | st.integers(5, 12))
def test_specials_come_first_then_words_by_falling_frequency(words, min_frequency, max_size):
    found = vocabulary(words, min_frequency, max_size)
    assert found.tokens == written_out(words, min_frequency, max_size)


def test_words_as_frequent_as_each_other_stand_as_first_seen():
    found = vocabulary(["b", "a", "c", "a", "b", "d"])
    assert found.tokens == ["<unk>", "<pad>", "<bos>", "<eos>", "b", "a", "c", "d"]


def test_the_bound_on_the_size_counts_the_specials():
    assert vocabulary(["a", "a", "a", "b", "b", "c"], max_size=6).tokens == [*SPECIALS, "a", "b"]


def test_required_tokens_are_kept_even_if_rare_and_above_the_maximum_size():
    found = vocabulary(["a", "a", "b"], min_frequency=2, max_size=5, always=["y", "z"])
    assert found.tokens == [*SPECIALS, "y", "z"]
    assert vocabulary(["a", "a", "b"], min_frequency=2, always=["y", "a"]).tokens == [
        *SPECIALS,
        "y",
        "a",
    ]


def test_unknown_words_become_unk_and_a_literal_unk_is_the_special():
    found = vocabulary(["a", "b", "<unk>", "<unk>", "<unk>", "<eos>"])
    assert found.tokens == [*SPECIALS, "a", "b"]
    assert found.encode(["a", "zebra", "<unk>", "b", "<eos>"]).tolist() == [4, 0, 0, 5, 3]
    assert (found.unknown, found.end) == (0, 3)
    assert "a" in found
    assert "zebra" not in found


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(), max_size=40))
def test_decoding_undoes_encoding_of_any_known_tokens(words):
    found = vocabulary(words)
    assert found.decode(found.encode(words).tolist()) == words
    assert len(found) == len(set(words) | set(SPECIALS))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(), max_size=40))
@example(["a\u2028b", "a b", "\r", "\n", "\x00", '"', "\\", "\U0001f600", ""])
def test_a_vocabulary_comes_back_from_its_json(words):
    found = vocabulary(words)
    back = Vocabulary.from_json(found.to_json())
    assert back.tokens == found.tokens
    assert back.encode(words).tolist() == found.encode(words).tolist()


@pytest.mark.parametrize("tokens", [["a", *SPECIALS], [*SPECIALS, "a", "a"], []])
def test_a_list_that_is_no_vocabulary_is_not_taken_for_one(tokens):
    with pytest.raises(ValueError, match="specials"):
        Vocabulary(tokens)


@pytest.mark.parametrize(("min_frequency", "max_size"), [(0, None), (1, 4), (-1, 10)])
def test_bounds_that_leave_no_room_for_a_word_are_refused(min_frequency, max_size):
    with pytest.raises(Refused, match=r"data\.vocabulary\."):
        VocabularyConfig(min_frequency, max_size)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=4))
def test_numbers_are_given_in_the_order_in_which_tokens_are_first_seen(parts):
    numbers = FirstSeen()
    found = [numbers.encode(part).tolist() for part in parts]
    seen = list(dict.fromkeys(word for part in parts for word in part))
    assert numbers.tokens == seen
    assert found == [[seen.index(word) for word in part] for part in parts]
