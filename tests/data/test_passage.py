"""Text and special tokens: what a writer has drawn against what a text only spells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.config import Config
from unroll.data.passage import Passage, divided
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.registry import build

TOKENIZERS = ["word", "character", "subword"]
CORPUS = ["the <unk> of a bank", "<unk> <eos> <pad> <bos> caf\u00e9 na\u00efve", "a b c , d"] * 40
SPECIAL = range(len(SPECIALS))


@pytest.fixture(scope="module")
def learned(composed: Callable[..., Config]) -> Callable[[str], tuple[Any, Vocabulary]]:
    """Tokenizer and vocabulary of a corpus that spells every special many times."""
    made = {}
    for name in TOKENIZERS:
        config = composed(f"data/tokenizer={name}").data
        tokenizer = build("data/tokenizer", config.tokenizer)
        tokenizer.train(CORPUS)
        counts = Counter(token for text in CORPUS for token in tokenizer.tokenize(text))
        vocabulary = Vocabulary.from_counts(counts, config.vocabulary, tokenizer.inventory)
        made[name] = tokenizer, vocabulary
    return made.__getitem__


@pytest.mark.parametrize("name", ["character", "subword"])
@pytest.mark.parametrize("special", SPECIALS)
def test_the_name_of_a_special_is_only_text_to_characters_and_subwords(learned, name, special):
    tokenizer, vocabulary = learned(name)
    ids = Passage(f"a {special} b").ids(tokenizer, vocabulary).tolist()
    assert not set(ids) & set(SPECIAL)
    assert tokenizer.join(vocabulary.decode(ids)) == f"a {special} b"


def test_the_word_unk_of_penn_treebank_is_found_in_the_vocabulary_of_words(learned):
    tokenizer, vocabulary = learned("word")
    ids = Passage("the <unk> zebra").ids(tokenizer, vocabulary).tolist()
    assert ids[1:] == [vocabulary.unknown] * 2


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("special", SPECIALS)
def test_a_special_that_was_drawn_is_that_special_to_every_reader(learned, name, special):
    tokenizer, vocabulary = learned(name)
    text = f"a {special} b{special}"
    found = Passage(text, ((2, special), (len(text) - len(special), special)))
    ids = found.ids(tokenizer, vocabulary).tolist()
    number = SPECIALS.index(special)
    assert [position for position in ids if position in SPECIAL] == [number, number]
    assert ids[-1] == number
    rest = [position for position in ids if position not in SPECIAL]
    around = [*tokenizer.tokenize("a "), *tokenizer.tokenize(" b")]
    assert vocabulary.decode(rest) == around


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_text_divided_and_put_together_has_the_same_tokens_and_specials(learned, name, data):
    tokenizer, _ = learned(name)
    words = st.sampled_from(["the", "caf\u00e9", "<unk>", "<eos>", "b,", "na\u00efve"])
    tokens: list[str] = []
    specials = []
    for part in data.draw(st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=8)):
        word, drawn = part
        if drawn and word in SPECIALS:
            specials.append(len(tokens))
            tokens.append(word)
        else:
            tokens += tokenizer.tokenize(word)
    length = data.draw(st.sampled_from([0, *specials, len(tokens)]))
    first, second = divided(tokenizer, tokens, specials, length)
    assert first.text + second.text == tokenizer.join(tokens)
    for passage in (first, second):
        for place, special in passage.specials:
            assert passage.text[place : place + len(special)] == special
    before, after = first.split(tokenizer), second.split(tokenizer)
    found = [*before[1], *(len(before[0]) + position for position in after[1])]
    names = [*before[0], *after[0]]
    assert [names[position] for position in found] == [tokens[position] for position in specials]
    if name != "subword":  # whose text has more than one division into tokens
        assert (names, found) == (tokens, specials)
