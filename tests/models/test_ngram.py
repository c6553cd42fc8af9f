"""n-gram models, compared with the formulas computed over dicts and with published figures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from drawn import assert_drawn_from
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.app import compose
from unroll.data.token_stream import TokenStream, encode
from unroll.data.tokenizer import WordTokenizer
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.errors import Refused
from unroll.evaluation import perplexity
from unroll.evaluation.perplexity import score
from unroll.generation.sampler import sample
from unroll.models.config import NGramConfig
from unroll.models.ngram import NOTHING, NGramModel
from unroll.models.smoothing import SMOOTHINGS, discount_ratios, discounts_of
from unroll.registry import build
from unroll.training import checkpoint

VOCABULARY = 5
texts = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60)
orders = st.integers(1, 4)
smoothings = st.sampled_from(sorted(SMOOTHINGS))
Words = tuple[int, ...]


def model_of(
    text: list[int],
    order: int,
    smoothing: str,
    vocabulary: int = VOCABULARY,
    pseudocount: float = 0.7,
) -> NGramModel:
    config = NGramConfig("ngram", order, smoothing, pseudocount)
    made = build("model", config, vocabulary)
    made.count(np.array(text, dtype=np.int32))
    return made


def zipfian(length: int = 1500, vocabulary: int = 12) -> list[int]:
    """A text with enough n-grams of every frequency to estimate all discounts."""
    falling = 1 / np.arange(1, vocabulary + 1) ** 1.5
    generator = np.random.default_rng(4)
    return generator.choice(vocabulary, length, p=falling / falling.sum()).tolist()


def every_context(order: int, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """All contexts of order - 1 words, and all shorter ones."""
    known = [
        (NOTHING,) * (order - 1 - length) + words
        for length in range(order)
        for words in product(range(vocabulary), repeat=length)
    ]
    return torch.tensor(known).reshape(len(known), order - 1)


def words_of(context: torch.Tensor) -> Words:
    return tuple(word for word in context.tolist() if word != NOTHING)


def test_words_are_drawn_by_their_tempered_probabilities_and_the_first_where_none_has_any():
    model = model_of([0, 3, 0, 4, 0, 4, 1, 2, 0], 2, "none")
    contexts = torch.tensor([[0], [1]]).repeat_interleave(4000, dim=0)
    ids = model.softmax.draw(contexts, 0.5, 3, torch.Generator().manual_seed(1)).view(2, -1)
    assert_drawn_from(ids[:1], torch.tensor([[0.2, 0.8]]), 3)  # p = 1/3 and 2/3, squared
    assert (ids[1] == 3).all()


# The formulas over dicts


class Slow:
    """The counts of all: words after each context, different words before each n-gram."""

    def __init__(
        self, text: list[int], order: int, vocabulary: int, pseudocount: float = 0.7
    ) -> None:
        self.order, self.vocabulary, self.pseudocount = order, vocabulary, pseudocount
        self.counts: dict[Words, Counter[int]] = defaultdict(Counter)
        before: dict[Words, set[int]] = defaultdict(set)
        for start in range(len(text)):
            for length in range(1, order + 1):
                gram = tuple(text[start : start + length])
                if len(gram) == length:
                    self.counts[gram[:-1]][gram[-1]] += 1
                    before[gram[1:]].add(gram[0])
        self.before = {gram: len(words) for gram, words in before.items() if gram}


class SlowMaximumLikelihood(Slow):
    def p(self, word: int, context: Words) -> float:
        while context and not self.counts[context]:
            context = context[1:]
        return self.counts[context][word] / self.counts[context].total()


class SlowLaplace(Slow):
    def p(self, word: int, context: Words) -> float:
        n, e = self.counts[()].total(), self.pseudocount
        single = (self.counts[()][word] + e / self.vocabulary) / (n + e)
        if not context:
            return single
        seen = self.counts[context]
        return (seen[word] + e * single) / (seen.total() + e)


class SlowAdditive(Slow):
    def p(self, word: int, context: Words) -> float:
        seen, k = self.counts[context], self.pseudocount
        return (seen[word] + k) / (seen.total() + k * self.vocabulary)


class SlowWittenBell(Slow):
    def p(self, word: int, context: Words) -> float:
        lower = self.p(word, context[1:]) if context else 1 / self.vocabulary
        seen = self.counts[context]
        if not seen:
            return lower
        return (seen[word] + len(seen) * lower) / (seen.total() + len(seen))


class SlowGoodTuring(Slow):
    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.ratios = [self.estimated(length) for length in range(self.order)]

    def estimated(self, length: int) -> dict[int, float]:
        n = Counter(
            count
            for context, words in self.counts.items()
            for count in words.values()
            if len(context) == length
        )
        for k in (5, 4, 3, 2):
            if all(n[r] for r in range(1, k + 2)):
                common = (k + 1) * n[k + 1] / n[1]
                if common < 1:
                    good = {r: (r + 1) * n[r + 1] / n[r] for r in range(1, k + 1)}
                    found = {r: (good[r] / r - common) / (1 - common) for r in good}
                    if all(0 < ratio < 1 for ratio in found.values()):
                        return found
        return {r: (r - 0.5) / r for r in (1, 2, 3, 4, 5)}

    def p(self, word: int, context: Words) -> float:
        def lower(word: int) -> float:
            return self.p(word, context[1:]) if context else 1 / self.vocabulary

        fewest = 2 if len(context) >= 2 else 1
        seen = {word: count for word, count in self.counts[context].items() if count >= fewest}
        if not seen:
            return lower(word)
        ratios = self.ratios[len(context)]
        kept = {word: count * ratios.get(count, 1) for word, count in seen.items()}
        rest = sum(lower(word) for word in range(self.vocabulary) if word not in seen)
        if rest < 1e-9:
            return kept.get(word, 0) / sum(kept.values())
        total = self.counts[context].total()
        total += sum(kept.values()) == total
        if word in seen:
            return kept[word] / total
        return (1 - sum(kept.values()) / total) * lower(word) / rest


class SlowKneserNey(Slow):
    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.after: dict[Words, dict[int, int]] = defaultdict(dict)
        for context, words in list(self.counts.items()):
            for word, count in words.items():
                highest = len(context) == self.order - 1
                found = count if highest else self.before.get((*context, word), 0)
                if found:
                    self.after[context][word] = found
        self.discounts = [self.estimated(length) for length in range(self.order)]

    def estimated(self, length: int) -> list[float]:
        n = [0, 0, 0, 0, 0]
        for context, words in self.after.items():
            for count in words.values():
                if len(context) == length and count <= 4:
                    n[count] += 1
        if 0 in n[1:]:
            return [0.5, 1.0, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        found = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        return found if min(found) > 0 else [0.5, 1.0, 1.5]

    def p(self, word: int, context: Words) -> float:
        lower = self.p(word, context[1:]) if context else 1 / self.vocabulary
        seen = self.after[context]
        if not seen:
            return lower
        discounts = self.discounts[len(context)]
        taken = {found: discounts[min(count, 3) - 1] for found, count in seen.items()}
        kept = seen.get(word, 0) - taken.get(word, 0)
        return (kept + sum(taken.values()) * lower) / sum(seen.values())


SLOW = {
    "additive": SlowAdditive,
    "good_turing": SlowGoodTuring,
    "kneser_ney": SlowKneserNey,
    "laplace": SlowLaplace,
    "none": SlowMaximumLikelihood,
    "witten_bell": SlowWittenBell,
}


def test_every_smoothing_has_its_formula():
    assert set(SLOW) == set(SMOOTHINGS)


@settings(deadline=None, max_examples=60)
@given(text=texts, order=orders, smoothing=smoothings)
def test_every_context_seen_or_not_has_probabilities_that_sum_to_1(text, order, smoothing):
    found = model_of(text, order, smoothing).softmax.probabilities(every_context(order))
    assert (found >= 0).all()
    assert torch.allclose(found.sum(-1), torch.ones(len(found)), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(text=texts, order=orders, smoothing=smoothings)
def test_looking_up_a_word_gives_what_the_whole_distribution_gives(text, order, smoothing):
    softmax, contexts = model_of(text, order, smoothing).softmax, every_context(order)
    logs = softmax.log_probabilities(contexts)
    assert torch.equal(softmax.logits(contexts), logs)
    for word in range(VOCABULARY):
        aims = torch.full((len(contexts),), word)
        assert softmax.score(contexts, aims)[0] == pytest.approx(
            -logs[:, word].sum().item(), rel=1e-5
        )
        for row in (0, len(contexts) - 1):
            alone = softmax.score(contexts[row : row + 1], aims[:1])[0]
            assert alone == pytest.approx(-logs[row, word].item(), rel=1e-5, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(text=texts, order=orders, smoothing=smoothings)
def test_probabilities_equal_the_formula_over_dicts(text, order, smoothing):
    slow, contexts = SLOW[smoothing](text, order, VOCABULARY), every_context(order)
    expected = [[slow.p(word, words_of(one)) for word in range(VOCABULARY)] for one in contexts]
    found = model_of(text, order, smoothing).softmax.probabilities(contexts)
    assert torch.allclose(found, torch.tensor(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", SLOW)
def test_a_text_with_every_discount_equals_the_formula_too(smoothing):
    text, contexts = zipfian(), every_context(3, 12)
    slow = SLOW[smoothing](text, 3, 12)
    if smoothing == "kneser_ney":
        assert slow.discounts[2] != [0.5, 1.0, 1.5]
    if smoothing == "good_turing":
        assert len(slow.ratios[2]) > 2
        assert slow.ratios[2] != {r: 1 - 0.5 / r for r in range(1, 6)}
    expected = [[slow.p(word, words_of(one)) for word in range(12)] for one in contexts]
    found = model_of(text, 3, smoothing, 12).softmax.probabilities(contexts)
    assert torch.allclose(found, torch.tensor(expected), rtol=1e-5, atol=1e-7)


# Discounts


def test_discounts_follow_the_formula_of_counts_of_counts():
    counts = np.repeat([0, 1, 2, 3, 4, 5, 90], [7, 40, 20, 10, 5, 3, 2])
    assert discounts_of(counts) == pytest.approx((1 - 0.5, 2 - 0.75, 3 - 1.0))


@settings(deadline=None)
@given(numbers=st.lists(st.integers(0, 30), min_size=5, max_size=5))
def test_discounts_are_above_zero_and_at_most_the_count(numbers):
    found = discounts_of(np.repeat([1, 2, 3, 4, 9], numbers))
    for count, discount in enumerate(found, start=1):
        assert 0 < discount <= count


def test_the_shares_that_counts_keep_follow_the_formula_of_katz():
    counts = np.repeat([0, 1, 2, 3, 4, 5, 6, 90], [7, 60, 24, 14, 9, 6, 4, 2])
    common = 6 * 4 / 60
    good_turing = (2 * 24 / 60, 3 * 14 / 24 / 2, 4 * 9 / 14 / 3, 5 * 6 / 9 / 4, 6 * 4 / 6 / 5)
    expected = [(each - common) / (1 - common) for each in good_turing]
    assert discount_ratios(counts) == pytest.approx(expected)
    # what singles lose is what Good and Turing give to n-grams never seen: n(1) of all counts
    kept = np.array([0, *expected])
    lost = sum((1 - kept[r]) * r * (counts == r).sum() for r in range(1, 6))
    assert lost == pytest.approx((counts == 1).sum())


@settings(deadline=None)
@given(numbers=st.lists(st.integers(0, 40), min_size=7, max_size=7))
def test_a_count_keeps_more_than_nothing_and_less_than_all(numbers):
    found = discount_ratios(np.repeat([1, 2, 3, 4, 5, 6, 9], numbers))
    assert 2 <= len(found) <= 5
    assert all(0 < share < 1 for share in found)


def test_a_context_that_is_followed_by_one_frequent_word_alone_leaves_something_to_the_others():
    model = model_of([0, 1] * 20 + [2, 3, 4], 2, "good_turing")
    found = model.softmax.probabilities(torch.tensor([[0]]))[0]
    assert found[1] == pytest.approx(20 / 21)
    assert (found > 0).all()


def test_a_context_that_is_followed_by_every_word_backs_off_to_nothing():
    model = model_of([0, 0, 1, 0, 1, 0, 2, 0, 3, 0, 4], 2, "good_turing")
    found = model.softmax.probabilities(torch.tensor([[0]]))[0]
    kept = np.array([1 * 0.5, 2 * 0.75, 0.5, 0.5, 0.5])
    assert found.tolist() == pytest.approx((kept / kept.sum()).tolist())


def test_only_without_smoothing_an_unseen_word_has_probability_zero():
    text = [0, 1, 2, 0, 1, 3]
    stream = TokenStream.from_documents([np.array([0, 1, 4])], 3)
    base = compose(["tracking=disabled"]).evaluation
    assert score(model_of(text, 3, "none"), stream, base, unknown=4).perplexity == math.inf
    for smoothing in set(SMOOTHINGS) - {"none"}:
        found = score(model_of(text, 3, smoothing), stream, base, unknown=4)
        assert math.isfinite(found.perplexity)


def test_a_model_that_has_counted_nothing_is_uniform():
    softmax = NGramModel(NGramConfig("ngram", 3, "kneser_ney", 1.0), VOCABULARY).softmax
    found = softmax.probabilities(every_context(3))
    assert torch.allclose(found, torch.full_like(found, 1 / VOCABULARY))


def test_parameters_are_the_probabilities_and_the_back_off_weights():
    text = [0, 1, 0, 1, 2]  # words: 5 with those unseen; pairs: 01 10 12; triples: 010 101 012
    made = model_of(text, 3, "kneser_ney")
    assert made.parameter_count == 5 + (3 + 5) + (3 + 3)


# The interface of a model


@pytest.fixture
def setting(composed):
    base = replace(composed().evaluation, context=4, rows=3)
    return lambda protocol: replace(base, protocol=protocol)


@settings(deadline=None, max_examples=30)
@given(text=texts, order=orders, cut=st.integers(0, 60))
def test_a_text_read_in_pieces_has_the_contexts_of_the_text_read_whole(text, order, cut):
    made, ids = model_of(text, order, "none"), torch.tensor([text, text[::-1]])
    whole, end = made(ids, made.initial_state(2))
    first, state = made(ids[:, :cut], made.initial_state(2))
    second, state = made(ids[:, cut:], made.detach(state))
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert torch.equal(state, end)
    swapped, _ = made(ids[[1, 0]], made.select(made.initial_state(1), torch.tensor([0, 0])))
    assert torch.equal(swapped, whole[[1, 0]])
    for row in range(2):
        for place in range(len(text)):
            known = ids[row, max(0, place - order + 2) : place + 1] if order > 1 else ids[0, :0]
            assert words_of(whole[row, place]) == tuple(known.tolist())


@pytest.mark.parametrize("smoothing", SLOW)
@pytest.mark.parametrize("protocol", ["stream", "document", "window"])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_scores_equal_the_formula_over_dicts(setting, monkeypatch, protocol, smoothing, order):
    monkeypatch.setattr(perplexity, "STEPS_AT_ONCE", 5)
    text = zipfian(300, VOCABULARY)
    lengths = [7, 1, 3, 12, 2, 30]
    parts = np.split(np.array(text[: sum(lengths)]), np.cumsum(lengths)[:-1])
    read = [text[: sum(lengths)]] if protocol == "stream" else [part.tolist() for part in parts]
    slow, nats, tokens = SLOW[smoothing](text, order, VOCABULARY), 0.0, 0
    for words in read:
        for place in range(1, len(words)):
            context = tuple(words[max(0, place - order + 1) : place])
            nats -= math.log(slow.p(words[place], context))
            tokens += 1
    made = model_of(text, order, smoothing)
    found = score(made, TokenStream.from_documents(parts), setting(protocol), unknown=0)
    assert found.tokens == tokens
    assert found.nats == pytest.approx(nats, rel=1e-5)


WORDS = Vocabulary([*SPECIALS, "oil", "prices", "rise", "fall", "again"])


@pytest.fixture
def written(composed):
    """The words that a model generates after "oil"."""

    def written_(made: NGramModel, **changes) -> list[list[str]]:
        config = composed()
        tokenizer: WordTokenizer = build("data/tokenizer", config.data.tokenizer)
        setting = replace(config.sampling, **({"length": 12, "samples": 3} | changes))
        found = sample(made, tokenizer, WORDS, ["oil"], setting, context=4)
        return [one.text.split() for one in found.samples]

    return written_


TEXT = "oil prices rise again oil prices fall again prices rise oil prices rise"


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("smoothing", SLOW)
def test_a_model_writes_as_many_words_as_it_is_asked_for(written, smoothing, order):
    made = model_of(WORDS.encode(TEXT.split()), order, smoothing, len(WORDS))
    assert [len(text) for text in written(made)] == [12, 12, 12]


def test_without_smoothing_a_model_writes_only_pairs_that_it_has_read(written):
    made = model_of(WORDS.encode(TEXT.split()), 2, "none", len(WORDS))
    for text in written(made, length=50):
        assert set(pairwise(["oil", *text])) <= set(pairwise(TEXT.split()))


def test_greedy_writing_takes_the_likeliest_word(written):
    made = model_of(WORDS.encode(TEXT.split()), 3, "kneser_ney", len(WORDS))
    assert written(made, greedy=True, samples=1, length=2) == [["prices", "rise"]]


# Checkpoints


HEADER = {"run_id": "1", "config": {}, "vocabulary": "[]", "tokenizer": "{}", "step": 1}


@pytest.mark.parametrize("smoothing", SLOW)
@pytest.mark.parametrize("order", [1, 4])
def test_a_model_comes_back_as_it_was_saved(tmp_path, smoothing, order):
    made, path = model_of(zipfian(), order, smoothing, 12), tmp_path / "best.safetensors"
    checkpoint.save(path, made, **HEADER)
    for other in (NGramModel(made.config, 12), model_of([1, 2, 3], order, smoothing, 12)):
        checkpoint.read(path).load(other)
        contexts = torch.cat([every_context(order, 5)] * 2)
        assert torch.equal(other.softmax.logits(contexts), made.softmax.logits(contexts))
        assert other.parameter_count == made.parameter_count


@pytest.mark.parametrize(("order", "vocabulary"), [(2, 12), (4, 12), (3, 11)])
def test_a_model_of_another_order_or_vocabulary_is_refused(tmp_path, order, vocabulary):
    path = tmp_path / "best.safetensors"
    checkpoint.save(path, model_of(zipfian(), 3, "none", 12), **HEADER)
    with pytest.raises(Refused, match="does not fit the model"):
        checkpoint.read(path).load(model_of([1, 2], order, "none", vocabulary))


# Refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.order=0"], r"model\.order=0: must be at least 1"),
        (["model.order=-2"], r"model\.order=-2: must be at least 1"),
        (["model.smoothing=laplce"], "did you mean 'laplace'"),
        (["model.smoothing=laplace", "model.pseudocount=0"], r"model\.pseudocount=0.*above 0"),
        (["model.smoothing=additive", "model.pseudocount=0"], r"above 0.*for additive smoothing"),
        (["model.smoothing=laplace", "model.pseudocount=-1"], r"model\.pseudocount=-1.*above 0"),
        (["model.smoothing=laplace", "model.pseudocount=inf"], r"model\.pseudocount=inf.*finite"),
        (["model.smoothing=laplace", "model.pseudocount=nan"], r"model\.pseudocount=nan.*finite"),
        (["model.hidden_size=3"], "hidden_size"),
    ],
)
def test_a_setting_that_makes_no_model_is_refused(composed, words, said):
    with pytest.raises(Refused, match=said):
        composed("model=ngram", *words)


def test_the_pseudocount_is_checked_only_where_it_is_used(composed):
    assert composed("model=ngram", "model.pseudocount=0").model.pseudocount == 0


# Published figures


PUBLISHED = {
    ("kneser_ney", 3): 148.3,
    ("kneser_ney", 5): 141.2,
    ("good_turing", 3): 165.2,
    ("good_turing", 5): 162.3,
}
"""Perplexities of Penn Treebank's test set (Mikolov et al. 2011)."""


def test_penn_treebank_has_the_published_perplexities(composed, shared):
    config = composed("data=penn_treebank", f"data.path={shared('ptb')}")
    encoded = encode(config.data, build("data", config.data))

    def found(smoothing: str, order: int) -> float:
        made = model_of(
            encoded.streams["train"].tokens,
            order,
            smoothing,
            len(encoded.vocabulary),
            pseudocount=1.0,
        )
        test = score(made, encoded.streams["test"], config.evaluation, encoded.vocabulary.unknown)
        return test.perplexity

    for (smoothing, order), figure in PUBLISHED.items():
        assert found(smoothing, order) == pytest.approx(figure, rel=0.02)
    assert found("kneser_ney", 3) < found("witten_bell", 3) < found("laplace", 3) / 2
    assert found("additive", 3) > found("laplace", 3)
