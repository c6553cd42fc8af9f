"""A model and a prefix to text, against a twin that reads everything again at every step."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.data.tokenizer import WordTokenizer
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.errors import Refused
from unroll.generation import sampler
from unroll.generation.sampler import continuations, drawable, encode_prefixes, sample
from unroll.models.language_model import LanguageModel
from unroll.registry import build

CELLS = ["rnn", "lstm", "gru"]
WORDS = ["oil", "prices", "rise", "fall", "again", "today"]
VOCABULARY = Vocabulary([*SPECIALS, *WORDS])
CONTEXT = 4


@pytest.fixture
def tokenizer(composed) -> WordTokenizer:
    return build("data/tokenizer", composed("data/tokenizer=word").data.tokenizer)


@pytest.fixture
def setting(composed):
    base = replace(composed().sampling, length=12, temperature=1.0, seed=5)
    return lambda **changes: replace(base, **changes)


@pytest.fixture
def model(leaning):
    return partial(leaning, len(VOCABULARY), 4)


@pytest.fixture
def written(tokenizer):
    """The texts that a model writes after some prefixes."""

    def written_(made: LanguageModel, config, *prefixes: str) -> list[str]:
        found = sample(made, tokenizer, VOCABULARY, prefixes or ("oil prices",), config, CONTEXT)
        return [one.text for one in found.samples]

    return written_


def reread(made: LanguageModel, prefix: list[int], length: int, context: int | None) -> list[int]:
    """Greedy continuation, among `<eos>` and the words, that reads prefix and drawn tokens again,
    from a fresh state."""
    read = list(prefix)
    made.eval()
    for _ in range(length):
        seen = read if context is None else read[-context:]
        with torch.no_grad():
            hidden, _ = made(torch.tensor([seen]), made.initial_state(1))
            read.append(3 + int(made.softmax.logits(hidden[0, -1])[3:].argmax()))
    return read[len(prefix) :]


@pytest.mark.parametrize("name", CELLS)
def test_greedy_text_equals_reading_everything_again_at_every_step(model, setting, written, name):
    made = model(name)
    for prefix in ("oil prices", "today", "fall again rise rise fall oil zebra"):
        expected = reread(made, VOCABULARY.encode(prefix.split()).tolist(), 12, None)
        assert written(made, setting(greedy=True), prefix) == [
            " ".join(VOCABULARY.decode(expected))
        ]


@pytest.mark.parametrize("prefix", ["oil", "oil prices fall", "oil prices fall again today rise"])
@pytest.mark.parametrize("name", CELLS)
def test_a_bidirectional_model_reads_the_last_tokens_of_its_context_at_every_step(
    model, setting, written, name, prefix
):
    made = model(name, bidirectional=True)
    expected = reread(made, VOCABULARY.encode(prefix.split()).tolist(), 12, CONTEXT)
    assert written(made, setting(greedy=True), prefix) == [" ".join(VOCABULARY.decode(expected))]


def drawn_alone(made, prefixes: list[list[int]], config) -> list[list[list[int]]]:
    """The plain twin: every row reads everything again from a fresh state, by itself, and draws
    one random number at each step, row after row."""
    generator = torch.Generator().manual_seed(config.seed)
    rows = [list(prefix) for prefix in prefixes for _ in range(config.samples)]
    made.eval()
    for _ in range(config.length):
        for row in rows:
            with torch.no_grad():
                hidden, _ = made(torch.tensor([row]), made.initial_state(1))
                logs = made.softmax.log_probabilities(hidden[0, -1])[3:].double()
            sums = (logs / config.temperature).softmax(dim=0).cumsum(dim=0)
            chance = torch.rand(1, 1, dtype=torch.float64, generator=generator).item()
            row.append(3 + int((sums <= chance * sums[-1]).sum()))
    texts = [row[-config.length :] for row in rows]
    return [texts[first : first + config.samples] for first in range(0, len(rows), config.samples)]


PREFIXES = [[4, 5], [9], [7, 8, 6, 6, 7], [5, 4], [8]]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("samples", [1, 3])
def test_many_texts_written_side_by_side_equal_texts_written_alone(model, setting, name, samples):
    made, config = model(name), setting(temperature=0.7, samples=samples)
    found = continuations(made, VOCABULARY, [*map(torch.tensor, PREFIXES)], config, CONTEXT)
    assert found == drawn_alone(made, PREFIXES, config)


def test_n_grams_write_side_by_side_what_they_write_alone(composed, setting):
    made = build("model", replace(composed("model=ngram").model, order=3), len(VOCABULARY))
    made.count(VOCABULARY.encode([*WORDS, *WORDS[::-1], "oil", "rise"]))
    config = setting(samples=2)
    found = continuations(made, VOCABULARY, [*map(torch.tensor, PREFIXES)], config, CONTEXT)
    assert found == drawn_alone(made, PREFIXES, config)


def test_more_texts_than_are_written_at_once_come_batch_by_batch(model, setting, monkeypatch):
    made, config = model(), setting(greedy=True, samples=4)
    prefixes = [*map(torch.tensor, PREFIXES)]
    whole = continuations(made, VOCABULARY, prefixes, config, CONTEXT)
    monkeypatch.setattr(sampler, "ROWS_AT_ONCE", 3)
    assert continuations(made, VOCABULARY, prefixes, config, CONTEXT) == whole
    drawn = continuations(made, VOCABULARY, prefixes, setting(samples=4), CONTEXT)
    assert len({tuple(text) for texts in drawn for text in texts}) > 10


@pytest.mark.parametrize("every", [1, 5, 100])
def test_how_often_the_stop_token_is_looked_for_does_not_matter(model, setting, monkeypatch, every):
    made, config = stubborn(model(), "oil", "<eos>"), setting(samples=5, stop="<eos>", length=40)
    prefixes, read = [torch.tensor([4])], []
    whole = continuations(made, VOCABULARY, prefixes, config, CONTEXT)
    monkeypatch.setattr(sampler, "CHECK_EVERY", every)
    made.register_forward_hook(lambda *_: read.append(1))
    assert continuations(made, VOCABULARY, prefixes, config, CONTEXT) == whole
    steps = max(len(text) for text in whole[0]) + 1
    assert len(read) == min(40, every * -(-steps // every))


def test_the_same_seed_writes_the_same_text_and_another_seed_another(model, setting, written):
    made = model()
    assert written(made, setting(length=40)) == written(made, setting(length=40))
    assert written(made, setting(length=40)) != written(made, setting(length=40, seed=6))


def test_sampling_leaves_out_dropout_and_leaves_the_model_as_it_was(model, setting, written):
    made = model(output_dropout=0.5)
    assert written(made, setting()) == written(model(), setting())
    assert made.training


def test_sampling_draws_nothing_from_torchs_own_generator(model, setting, written):
    made, before = model(), torch.get_rng_state()
    written(made, setting())
    assert torch.equal(torch.get_rng_state(), before)


def test_top_k_of_one_is_the_greedy_choice(model, setting, written):
    made = model()
    greedy = written(made, setting(greedy=True, samples=3))
    assert written(made, setting(top_k=1, samples=3)) == greedy
    assert written(made, setting(top_p=1e-9, samples=3)) == greedy
    assert written(made, setting(temperature=1e-3, samples=3)) == greedy
    assert len(set(greedy)) == 1


def test_a_temperature_very_close_to_zero_is_the_greedy_choice(model, setting, written):
    made = model()
    assert written(made, setting(temperature=1e-40)) == written(made, setting(greedy=True))


# Special tokens


def stubborn(made: LanguageModel, *tokens: str) -> LanguageModel:
    """The model made to expect only these tokens, equally often."""
    torch.nn.init.zeros_(made.softmax.linear.weight)
    torch.nn.init.constant_(made.softmax.linear.bias, -1e4)
    with torch.no_grad():
        made.softmax.linear.bias[torch.from_numpy(VOCABULARY.encode(tokens)).long()] = 0
    return made


WAYS = [
    {"greedy": True},
    {"temperature": 0.5},
    {"temperature": 5.0},
    {"top_k": 1},
    {"top_k": 5},
    {"top_p": 0.3},
    {"top_p": 0.9, "top_k": 9},
]


@pytest.mark.parametrize("changes", WAYS, ids=str)
def test_a_special_token_is_never_drawn_even_if_most_likely(model, setting, written, changes):
    config = setting(samples=50, **changes)
    made = stubborn(model(), "<unk>", "<pad>", "<bos>")
    with torch.no_grad():
        made.softmax.linear.bias[3:] = torch.tensor([-9.0, -1.0, 0.0, 0.0, -2.0, -3.0, 0.5]) - 6
    for text in written(made, config):
        assert len(text.split()) == 12
        assert not {"<unk>", "<pad>", "<bos>"} & set(text.split())
    allowed = " ".join(written(made, replace(config, allow_special=True)))
    assert {"<unk>", "<pad>", "<bos>"} & set(allowed.split())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-20, 20), min_size=5, max_size=12),
    st.floats(0.1, 10),
)
def test_the_other_tokens_share_the_probability_in_proportion(logits, temperature):
    weights = [math.exp((logit - max(logits[3:])) / temperature) for logit in logits]
    expected = [0.0] * 3 + [weight / sum(weights[3:]) for weight in weights[3:]]
    found = (drawable(torch.tensor([logits], dtype=torch.float64)) / temperature).softmax(dim=-1)
    assert found[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_top_k_and_top_p_choose_among_the_tokens_that_may_be_drawn(model, setting, written):
    made = stubborn(model(), "<unk>")
    with torch.no_grad():
        made.softmax.linear.bias[4:6] = torch.tensor([-3.0, -4.0])
    for changes in ({"top_k": 1}, {"top_p": 0.5}):
        assert written(made, setting(**changes)) == [" ".join(["oil"] * 12)]
    assert set(written(made, setting(top_k=2, length=60))[0].split()) == {"oil", "prices"}


def test_the_end_of_a_text_may_be_drawn(model, setting, written):
    assert written(stubborn(model(), "<eos>", "<unk>"), setting(length=2)) == ["<eos> <eos>"]


@pytest.mark.parametrize("changes", WAYS, ids=str)
def test_a_model_that_expects_only_special_tokens_ends_the_text(composed, tokenizer, changes):
    config = replace(composed("model=ngram", "model.smoothing=none").model, order=2)
    made = build("model", config, len(VOCABULARY))
    made.count(VOCABULARY.encode(["oil", "<unk>", "oil", "<unk>", "oil"]))
    base = replace(composed().sampling, length=3, samples=2, **changes)
    for stop, text in (("<eos>", ""), (None, "<eos> oil <eos>")):
        found = sample(made, tokenizer, VOCABULARY, ["oil"], replace(base, stop=stop), CONTEXT)
        assert [one.text for one in found.samples] == [text] * 2


def test_a_stop_token_that_is_never_drawn_is_refused(tokenizer, setting, model):
    config = setting(stop="<unk>")
    with pytest.raises(Refused, match=r"stop='<unk>' is never drawn.*allow_special=true"):
        sample(model(), tokenizer, VOCABULARY, ["oil"], config, CONTEXT)
    config = replace(config, allow_special=True)
    made = stubborn(model(), "<unk>")
    assert sample(made, tokenizer, VOCABULARY, ["oil"], config, CONTEXT).samples[0].text == ""


# Stop, several samples, several prefixes


def test_the_stop_token_ends_a_text_and_is_left_out(model, setting, written):
    made = stubborn(model(), "oil", "<eos>")
    free = written(made, setting(samples=30))
    stopped = written(made, setting(samples=30, stop="<eos>"))
    assert all(len(text.split()) == 12 for text in free)
    for whole, cut in zip(free, stopped, strict=True):
        words = whole.split()
        assert cut.split() == (words[: words.index("<eos>")] if "<eos>" in words else words)
    assert len({len(text.split()) for text in stopped}) > 3
    assert written(stubborn(model(), "<eos>"), setting(stop="<eos>")) == [""]
    assert written(stubborn(model(), "oil"), setting(stop="<eos>")) == [" ".join(["oil"] * 12)]


def test_several_samples_of_several_prefixes_come_in_order(model, setting, tokenizer):
    prefixes = ["oil prices", "today", "fall again rise"]
    found = sample(model(), tokenizer, VOCABULARY, prefixes, setting(samples=4), CONTEXT)
    assert [one.prefix for one in found.samples] == [p for p in prefixes for _ in range(4)]
    assert len({one.text for one in found.samples}) > 6
    assert all(len(one.text.split()) == 12 for one in found.samples)
    assert found.tokens_per_second > 0


@pytest.mark.parametrize("name", CELLS)
def test_each_sample_of_a_batch_carries_its_own_state(model, setting, tokenizer, name):
    """What a row draws last is what a reading of that row alone finds likely."""
    made = model(name)
    found = sample(made, tokenizer, VOCABULARY, ["oil"], setting(samples=40, top_k=2), CONTEXT)
    for one in found.samples:
        ids = [4, *VOCABULARY.encode(one.text.split()).tolist()]
        with torch.no_grad():
            hidden, _ = made(torch.tensor([ids]), made.initial_state(1))
            likeliest = 3 + made.softmax.logits(hidden[0, :-1])[:, 3:].topk(2, dim=-1).indices
        assert all(token in pair for token, pair in zip(ids[1:], likeliest.tolist(), strict=True))


# Prefixes


def test_words_of_the_prefixes_that_are_not_known_are_reported_once(tokenizer, setting, model):
    prefixes = ["Oil zebra prices", "yak zebra today <unk>"]
    found = sample(model(), tokenizer, VOCABULARY, prefixes, setting(), CONTEXT)
    assert found.unknown == ["zebra", "yak"]
    ids, unknown = encode_prefixes(tokenizer, VOCABULARY, prefixes, setting())
    assert [one.tolist() for one in ids] == [[4, 0, 5], [0, 0, 9, 0]]
    assert unknown == ["zebra", "yak"]


@pytest.mark.parametrize("prefix", ["", "  ", "\t\n"])
def test_a_prefix_without_a_word_is_refused(tokenizer, setting, model, prefix):
    with pytest.raises(Refused, match=r"sampling\.prefix=.*is empty"):
        sample(model(), tokenizer, VOCABULARY, ["oil", prefix], setting(), CONTEXT)
    for listed in (prefix, ["oil", prefix]):
        with pytest.raises(Refused, match=r"sampling\.prefix=.*is empty"):
            setting(prefix=listed)


def test_a_stop_token_that_could_never_be_drawn_is_refused(tokenizer, setting, model):
    with pytest.raises(Refused, match=r"sampling\.stop='zebra'"):
        sample(model(), tokenizer, VOCABULARY, ["oil"], setting(stop="zebra"), CONTEXT)


def test_a_prefix_may_be_one_text_a_list_or_left_out(setting):
    assert setting(prefix="oil prices").prefixes == ["oil prices"]
    assert setting(prefix=["oil", 5]).prefixes == ["oil", "5"]
    assert setting(prefix=None).prefixes is None


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"length": 0},
        {"samples": 0},
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_refused_by_name(setting, changes):
    ((key, value),) = changes.items()
    with pytest.raises(Refused, match=rf"sampling\.{key}={value}"):
        setting(**changes)
