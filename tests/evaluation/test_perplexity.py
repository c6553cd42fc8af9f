"""Perplexity under every protocol, against slow twins that read one word at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.evaluation import perplexity
from unroll.evaluation.perplexity import Score, Stream, score
from unroll.models.language_model import LanguageModel
from unroll.registry import build

CELLS = ["rnn", "lstm", "gru"]
PROTOCOLS = ["stream", "document", "last", "window", "handout"]
VOCABULARY, CONTEXT, UNKNOWN = 9, 4, 0
LENGTHS = [3, 1, CONTEXT, 0, 2, CONTEXT + 1, CONTEXT - 1, 13, 7, 1, CONTEXT + 2, 2]

Nats = tuple[float, int]
"""A sum of nats and the number of tokens behind it."""


@pytest.fixture
def model(leaning):
    return lambda name="lstm", factor=3, **changes: leaning(VOCABULARY, factor, name, **changes)


@pytest.fixture
def setting(composed):
    base = replace(composed().evaluation, context=CONTEXT, rows=3)
    return lambda protocol, **changes: replace(base, protocol=protocol, **changes)


@pytest.fixture
def stream() -> TokenStream:
    return stream_of(LENGTHS)


def stream_of(lengths: list[int]) -> TokenStream:
    generator = np.random.default_rng(2)
    documents = [generator.integers(0, VOCABULARY, length) for length in lengths]
    return TokenStream.from_documents(documents, characters=5 * sum(lengths))


def texts(stream: TokenStream) -> list[list[int]]:
    return [stream.document(n).tolist() for n in range(stream.documents)]


# The slow twins


def step(model: LanguageModel, word: int, state) -> tuple[torch.Tensor, object]:
    """log p of every next word after one more word, and the state."""
    hidden, state = model(torch.tensor([[word]]), state)
    scores = hidden[0, -1] @ model.softmax.linear.weight.T + model.softmax.linear.bias
    return scores - scores.exp().sum().log(), state


def read_afresh(model: LanguageModel, words: list[int]) -> torch.Tensor:
    """log p of every next word after these, read from a fresh state."""
    hidden, _ = model(torch.tensor([words]), model.initial_state(1))
    scores = hidden[0, -1] @ model.softmax.linear.weight.T + model.softmax.linear.bias
    return scores - scores.exp().sum().log()


def one_text(model: LanguageModel, words: list[int]) -> Nats:
    nats, state = 0.0, model.initial_state(1)
    for word, following in pairwise(words):
        logs, state = step(model, word, state)
        nats -= logs[following].item()
    return nats, max(len(words) - 1, 0)


def slow_stream(model: LanguageModel, documents: list[list[int]]) -> Nats:
    return one_text(model, [word for document in documents for word in document])


def slow_document(model: LanguageModel, documents: list[list[int]]) -> Nats:
    found = [one_text(model, document) for document in documents]
    return sum(nats for nats, _ in found), sum(tokens for _, tokens in found)


def slow_last(model: LanguageModel, documents: list[list[int]]) -> Nats:
    long = [words for words in documents if len(words) > 1]
    return -sum(read_afresh(model, words[:-1])[words[-1]].item() for words in long), len(long)


def slow_window(model: LanguageModel, documents: list[list[int]]) -> Nats:
    nats, tokens = 0.0, 0
    for words in documents:
        for i in range(1, len(words)):
            nats -= read_afresh(model, words[max(0, i - CONTEXT) : i])[words[i]].item()
            tokens += 1
    return nats, tokens


def slow_handout(model: LanguageModel, documents: list[list[int]]) -> Nats:
    """The lab's compute_perplexity, its off-by-one included."""
    total, divided_by = 0.0, 0
    for words in documents:
        num_tokens = max(len(words) - 1, 0)
        for i in range(num_tokens):
            known = words[max(0, i - CONTEXT) : i]
            if not known:
                continue
            total += read_afresh(model, known)[words[i]].item()
        divided_by += num_tokens
    return -total, divided_by


SLOW = {
    "stream": slow_stream,
    "document": slow_document,
    "last": slow_last,
    "window": slow_window,
    "handout": slow_handout,
}


def twin(protocol: str, model: LanguageModel, stream: TokenStream) -> Nats:
    model.eval()
    with torch.no_grad():
        nats, counted = SLOW[protocol](model, texts(stream))
    model.train()
    return nats, counted


# The promises


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_equals_its_slow_twin(model, setting, stream, protocol, name):
    made = model(name)
    nats, counted = twin(protocol, made, stream)
    found = score(made, stream, setting(protocol), UNKNOWN)
    assert found.nats == pytest.approx(nats, rel=1e-4)
    assert found.counted == counted
    assert found.perplexity == pytest.approx(math.exp(nats / counted), rel=1e-4)
    assert found.protocol == protocol


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("protocol", ["window", "handout"])
def test_a_bidirectional_model_is_scored_as_its_slow_twin(model, setting, stream, protocol, name):
    made = model(name, bidirectional=True)
    nats, counted = twin(protocol, made, stream)
    found = score(made, stream, setting(protocol), UNKNOWN)
    assert found.nats == pytest.approx(nats, rel=1e-4)
    assert found.counted == counted


def test_the_protocols_do_not_all_say_the_same(model, setting, stream):
    found = {score(model(), stream, setting(protocol), 0).perplexity for protocol in PROTOCOLS}
    assert len(found) == len(PROTOCOLS)


@pytest.mark.parametrize("length", [2, 3, CONTEXT - 1, CONTEXT, CONTEXT + 1, CONTEXT + 2, 15])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_single_document_of_any_length_equals_the_twin(model, setting, protocol, length):
    made, alone = model("gru"), stream_of([length])
    if protocol == "handout" and length == 2:
        with pytest.raises(Refused, match="no token to score"):
            score(made, alone, setting(protocol), UNKNOWN)
        return
    nats, counted = twin(protocol, made, alone)
    found = score(made, alone, setting(protocol), UNKNOWN)
    assert found.nats == pytest.approx(nats, rel=1e-4)
    assert found.counted == counted == (1 if protocol == "last" else length - 1)
    assert found.tokens == counted - (protocol == "handout")


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [0], []])
@pytest.mark.parametrize("protocol", ["document", "last", "window", "handout"])
def test_text_without_a_second_word_is_refused(model, setting, protocol, lengths):
    with pytest.raises(Refused, match="no token to score"):
        score(model(), stream_of(lengths), setting(protocol), UNKNOWN)


def test_a_stream_of_one_word_is_refused_and_of_two_is_not(model, setting):
    with pytest.raises(Refused, match="no token to score"):
        score(model(), stream_of([1]), setting("stream"), UNKNOWN)
    assert score(model(), stream_of([1, 1]), setting("stream"), UNKNOWN).tokens == 1


@pytest.mark.parametrize(
    ("protocol", "bidirectional"),
    [*((protocol, False) for protocol in PROTOCOLS), ("window", True), ("handout", True)],
)
def test_how_many_rows_are_read_at_once_does_not_matter(
    model, setting, stream, monkeypatch, protocol, bidirectional
):
    made = model("rnn", bidirectional=bidirectional)
    monkeypatch.setattr(perplexity, "POSITIONS_AT_ONCE", 20)
    found = [score(made, stream, setting(protocol, rows=size), UNKNOWN) for size in (1, 2, 5, 256)]
    for other in found[1:]:
        assert other.nats == pytest.approx(found[0].nats, rel=1e-5)
        assert (other.tokens, other.counted) == (found[0].tokens, found[0].counted)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_how_many_steps_are_read_at_once_does_not_matter(
    model, setting, stream, monkeypatch, protocol, name
):
    made = model(name)
    whole = score(made, stream, setting(protocol), UNKNOWN)
    for steps in (1, 3, 5):
        monkeypatch.setattr(perplexity, "STEPS_AT_ONCE", steps)
        found = score(made, stream, setting(protocol), UNKNOWN)
        assert found.nats == pytest.approx(whole.nats, rel=1e-5)
        assert (found.tokens, found.unknown) == (whole.tokens, whole.unknown)


# The columns of stream


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(2, 700),
    rows=st.integers(1, 40),
    warm_up=st.integers(1, 6),
    steps=st.integers(1, 50),
)
def test_the_columns_of_a_stream_score_every_token_but_the_first_once(
    composed, length, rows, warm_up, steps
):
    text = TokenStream.from_documents([np.arange(length)])  # each token is its position
    config = replace(composed().evaluation, protocol="stream", rows=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perplexity, "WARM_UP", warm_up)
        patch.setattr(perplexity, "STEPS_AT_ONCE", steps)
        batches = list(Stream(config, every_position=True).batches(text))
    targets = torch.cat([batch.targets[batch.targets >= 0] for batch in batches])
    assert sorted(targets.tolist()) == list(range(1, length))
    assert [batch.carry for batch in batches] == [place > 0 for place in range(len(batches))]
    columns = torch.cat([batch.inputs for batch in batches], dim=1)
    assert len(columns) <= rows
    assert (len(columns) - 1) * warm_up <= 0.1 * length
    scored = torch.cat([batch.targets for batch in batches], dim=1) >= 0
    for column, own in zip(columns.tolist(), scored.tolist(), strict=True):
        if any(own):  # so many rows may leave nothing for the last
            first, end = own.index(True), sum(own)
            assert first == (warm_up if column[0] else 0)
            assert column[: first + end] == list(range(column[0], column[0] + first + end))


@pytest.mark.parametrize("name", CELLS)
def test_many_columns_of_a_stream_score_nearly_as_one_row_does(model, setting, name):
    made, long = model(name, factor=1), stream_of([1000] * 6)
    exact = score(made, long, setting("stream", rows=1), UNKNOWN)
    found = score(made, long, setting("stream", rows=256), UNKNOWN)
    assert found.nats != exact.nats
    assert found.nats_per_token == pytest.approx(exact.nats_per_token, abs=1e-5)
    assert (found.tokens, found.unknown) == (exact.tokens, exact.unknown)


def test_columns_are_exact_for_n_grams_which_need_only_a_few_tokens(composed, setting):
    made = build("model", composed("model=ngram").model, VOCABULARY)
    long = stream_of([1000] * 6)
    made.count(long.tokens[:3000])
    exact = score(made, long, setting("stream", rows=1), UNKNOWN)
    assert score(made, long, setting("stream"), UNKNOWN).nats == pytest.approx(exact.nats, rel=1e-6)


def test_one_row_of_a_stream_reads_the_text_as_it_is(model, setting, monkeypatch):
    made, long = model(), stream_of([3000])
    with torch.inference_mode():
        hidden, _ = made.eval()(
            torch.from_numpy(long.document(0)[None, :-1]).long(), made.initial_state(1)
        )
        logs = made.softmax.log_probabilities(hidden[0])
    targets = torch.from_numpy(long.document(0)[1:]).long()
    nats = -logs.gather(1, targets[:, None]).double().sum().item()
    assert score(made, long, setting("stream", rows=1), 0).nats == pytest.approx(nats, rel=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_knows_nothing_is_as_perplexed_as_there_are_words(
    model, setting, stream, protocol
):
    made = model()
    torch.nn.init.zeros_(made.softmax.linear.weight)
    torch.nn.init.zeros_(made.softmax.linear.bias)
    found = score(made, stream, setting(protocol), UNKNOWN)
    share = found.tokens / found.counted
    assert found.perplexity == pytest.approx(VOCABULARY**share, rel=1e-6)
    assert (share < 1) == (protocol == "handout")


def test_bits_per_character_are_nats_over_ln_2_over_the_characters_scored(model, setting, stream):
    found = score(model(), stream, setting("stream"), UNKNOWN)
    characters = 5 * (len(stream) - 1)  # the first token is not scored, nor are its characters
    assert found.characters == pytest.approx(characters)
    assert found.bits_per_character == pytest.approx(found.nats / math.log(2) / characters)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_unknown_words_among_the_scored_ones_are_counted(model, setting, stream, protocol):
    found = score(model(), stream, setting(protocol), unknown=3)
    words = texts(stream)
    scored = {
        "stream": [word for text in words for word in text][1:],
        "handout": [word for text in words for word in text[1:-1]],
        "last": [text[-1] for text in words if len(text) > 1],
    }.get(protocol, [word for text in words for word in text[1:]])
    assert found.unknown == scored.count(3) > 0
    assert found.unknown_rate == scored.count(3) / len(scored)
    assert found.tokens == len(scored)


@pytest.mark.parametrize("name", CELLS)
def test_accuracy_is_the_share_of_scored_tokens_that_are_top_1_correct(
    model, setting, stream, name
):
    made = model(name).eval()
    with torch.no_grad():
        hits = {
            "document": [
                read_afresh(made, words[:i]).argmax() == words[i]
                for words in texts(stream)
                for i in range(1, len(words))
            ],
            "last": [
                read_afresh(made, words[:-1]).argmax() == words[-1]
                for words in texts(stream)
                if len(words) > 1
            ],
        }
    for protocol, found in hits.items():
        scored = score(made, stream, setting(protocol), UNKNOWN)
        assert scored.hits == sum(found)
        assert scored.accuracy == pytest.approx(sum(found) / len(found))
    assert 0 < sum(hits["document"]) < len(hits["document"])


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_dropout_out_and_the_model_as_it_was(model, setting, stream, training):
    made, plain = model(dropout=0.5, embedding_dropout=0.5, output_dropout=0.5), model()
    made.train(training)
    found = score(made, stream, setting("document"), UNKNOWN)
    assert found.nats == score(plain, stream, setting("document"), UNKNOWN).nats
    assert made.training == training
    assert all(parameter.grad is None for parameter in made.parameters())


@pytest.mark.parametrize("protocol", ["stream", "document", "last"])
def test_a_bidirectional_model_is_not_scored_on_words_it_has_seen(model, setting, stream, protocol):
    with pytest.raises(Refused, match=r"set evaluation\.protocol=window"):
        score(model(bidirectional=True), stream, setting(protocol), UNKNOWN)


def test_a_score_derives_its_figures_from_nats_and_counts():
    found = Score("stream", nats=8 * math.log(2), tokens=4, counted=4, hits=3, unknown=1,
                  characters=16.0, seconds=2.0)  # fmt: skip
    assert found.nats_per_token == pytest.approx(2 * math.log(2))
    assert found.perplexity == pytest.approx(4)
    assert found.bits_per_character == pytest.approx(0.5)
    assert found.accuracy == 0.75
    assert found.unknown_rate == 0.25
    assert found.tokens_per_second == 2.0
    assert found.figures() == {
        "perplexity": found.perplexity,
        "nats_per_token": found.nats_per_token,
        "bits_per_character": found.bits_per_character,
        "accuracy": 0.75,
        "tokens": 4,
        "unknown_rate": 0.25,
    }


def test_a_perplexity_past_a_float_is_infinite():
    assert Score("stream", 1e6, 1, 1, 0, 0, 1.0, 1.0).perplexity == math.inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "windows"}, "did you mean 'window'"),
        ({"context": 0}, r"evaluation\.context=0"),
        ({"rows": 0}, r"evaluation\.rows=0"),
    ],
)
def test_a_setting_that_does_not_allow_scoring_is_refused(setting, changes, message):
    with pytest.raises(Refused, match=message):
        replace(setting("stream"), **changes)
