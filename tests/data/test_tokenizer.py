"""Text to tokens and back."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unroll.data.config import CharacterConfig, SubwordConfig, WordConfig
from unroll.data.tokenizer import CharacterTokenizer, SubwordTokenizer, WordTokenizer
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.errors import Refused
from unroll.registry import build

TEXTS = ["the cat sat on the mat", "the dog sat on the log, the mat and the cat"] * 5
NASTY = "na\u00efve \U0001f600\u200d\U0001f525 \u5206\u5f00 \u2028\r\n\t  <eos> \x00 I\u0307"


@settings(max_examples=80, deadline=None)
@given(st.text())
@example(NASTY)
def test_words_are_the_labs_lower_cased_text_split_on_white_space(text):
    assert WordTokenizer(WordConfig("word", lower=True)).tokenize(text) == text.lower().split()


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_words_keep_their_case_where_it_is_not_lowered(text):
    tokenizer = WordTokenizer(WordConfig("word", lower=False))
    assert tokenizer.tokenize(text) == text.split()
    assert tokenizer.tokenize(tokenizer.join(tokenizer.tokenize(text))) == text.split()


@settings(max_examples=60, deadline=None)
@given(st.text())
@example(NASTY)
def test_joining_characters_gives_the_text_again(text):
    tokenizer = CharacterTokenizer(CharacterConfig("character", lower=False))
    assert tokenizer.tokenize(text) == list(text)
    assert tokenizer.join(tokenizer.tokenize(text)) == text
    lowered = CharacterTokenizer(CharacterConfig("character", lower=True))
    assert lowered.join(lowered.tokenize(text)) == text.lower()


def subword(size: int = 270, lower: bool = False) -> SubwordTokenizer:
    tokenizer = SubwordTokenizer(SubwordConfig("subword", lower=lower, size=size))
    tokenizer.train(TEXTS)
    return tokenizer


@pytest.fixture(scope="module")
def trained() -> SubwordTokenizer:
    return subword()


@settings(max_examples=80, deadline=None)
@given(text=st.text())
@example(text=NASTY)
def test_subwords_join_to_any_text_again(trained, text):
    assert trained.join(trained.tokenize(text)) == text


@settings(max_examples=60, deadline=None)
@given(text=st.text() | st.text(alphabet="the cat og,", max_size=30))
@example(text=NASTY)
def test_a_restored_subword_tokenizer_gives_the_same_tokens(trained, text):
    restored = SubwordTokenizer(SubwordConfig("subword", lower=False, size=270))
    restored.restore(trained.to_json())
    assert restored.tokenize(text) == trained.tokenize(text)
    assert restored.join(restored.tokenize(text)) == text
    assert restored.inventory == trained.inventory


def test_a_restored_subword_tokenizer_still_lowers_the_case():
    restored = SubwordTokenizer(SubwordConfig("subword", lower=True, size=270))
    restored.restore(subword(lower=True).to_json())
    assert restored.join(restored.tokenize("The CAT")) == "the cat"


def test_subwords_are_the_256_bytes_and_then_what_was_merged_up_to_the_size(trained):
    inventory = trained.inventory
    assert len(inventory) == len(set(inventory)) == 270
    assert all(len(token) == 1 for token in inventory[:256])
    assert all(len(token) > 1 for token in inventory[256:])
    assert len(trained.tokenize("the cat sat")) < len("the cat sat")


@settings(max_examples=40, deadline=None)
@given(text=st.text())
def test_no_subword_of_any_text_is_unknown_to_the_vocabulary(trained, text):
    assert set(trained.tokenize(text)) <= set(trained.inventory)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text() | st.text(alphabet="the cat og,", max_size=30), max_size=6))
@example(texts=[NASTY, "", NASTY])
def test_many_texts_at_once_give_the_tokens_of_each(trained, texts):
    tokenizers = [
        trained,
        WordTokenizer(WordConfig("word", lower=True)),
        CharacterTokenizer(CharacterConfig("character", lower=True)),
    ]
    for tokenizer in tokenizers:
        assert tokenizer.tokenize_all(texts) == [tokenizer.tokenize(text) for text in texts]


def test_learning_subwords_twice_gives_the_same_tokenizer(trained):
    assert subword().to_json() == trained.to_json()


def test_a_subword_size_without_room_beside_the_bytes_is_refused():
    with pytest.raises(Refused, match=r"data\.tokenizer\.size=256"):
        SubwordConfig("subword", lower=False, size=256)


@pytest.mark.parametrize("name", ["word", "character", "subword"])
def test_every_tokenizer_goes_through_registry_vocabulary_and_restoring(composed, name):
    config = composed(f"data/tokenizer={name}").data.tokenizer
    first, second = build("data/tokenizer", config), build("data/tokenizer", config)
    first.train(TEXTS)
    second.restore(first.to_json())
    tokens = [token for document in first.tokenize_all(TEXTS) for token in document]
    assert tokens == [token for text in TEXTS for token in second.tokenize(text)]
    vocabulary = Vocabulary([*SPECIALS, *dict.fromkeys(tokens)])
    ids = vocabulary.encode(first.tokenize(TEXTS[0])).tolist()
    assert second.join(vocabulary.decode(ids)) == TEXTS[0]
