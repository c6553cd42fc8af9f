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
from unroll.generation.sampler import choose, drawable, encode_prefixes, sample
from unroll.models.language_model import LanguageModel
from unroll.registry import build

CELLS = ["rnn", "lstm", "gru"]
WORDS = ["oil", "prices", "rise", "fall", "again", "today"]
VOCABULARY = Vocabulary([*SPECIALS, *WORDS])
CONTEXT = 4
DRAWS = 20_000


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


def test_drawn_text_equals_drawing_while_reading_everything_again(model, setting, written):
    made, config = model("gru"), setting(temperature=0.7)
    made.eval()
    generator, read = torch.Generator().manual_seed(config.seed), [4, 5]
    for _ in range(config.length):
        with torch.no_grad():
            hidden, _ = made(torch.tensor([read]), made.initial_state(1))
            shares = (made.softmax.logits(hidden[:, -1]) / 0.7).softmax(dim=-1)
            shares[:, [0, 1, 2]] = 0
            shares /= shares.sum()
        read.append(int(torch.multinomial(shares, 1, generator=generator)))
    assert written(made, config) == [" ".join(VOCABULARY.decode(read[2:]))]


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


# What is drawn


LOGITS = torch.tensor([0.5, 2.0, -1.0, 1.0, 0.1, -3.0, 1.5])


def drawn(config) -> list[float]:
    """How often each token is drawn."""
    generator = torch.Generator().manual_seed(9)
    found = choose(LOGITS.expand(DRAWS, -1), config, generator)
    return (torch.bincount(found, minlength=len(LOGITS)) / DRAWS).tolist()


def shares(kept: list[int], temperature: float = 1.0) -> list[float]:
    """exp(logit / temperature) of the kept tokens over their sum."""
    weights = [
        math.exp(logit / temperature) if token in kept else 0.0
        for token, logit in enumerate(LOGITS.tolist())
    ]
    return [weight / sum(weights) for weight in weights]


def agree(found: list[float], expected: list[float]) -> bool:
    """Within four standard errors, and never where nothing is expected."""
    return all(
        abs(seen - share) <= 4 * math.sqrt(share * (1 - share) / DRAWS)
        for seen, share in zip(found, expected, strict=True)
    )


EVERY = list(range(len(LOGITS)))
RANKED = [1, 6, 3, 0, 4, 2, 5]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_the_softmax_at_the_temperature_says(setting, temperature):
    assert agree(drawn(setting(temperature=temperature)), shares(EVERY, temperature))


@pytest.mark.parametrize("top_k", [1, 2, 3, 6, 7, 100])
def test_top_k_draws_only_the_k_most_likely_in_proportion(setting, top_k):
    assert agree(drawn(setting(top_k=top_k)), shares(RANKED[:top_k]))


def nucleus(top_p: float, temperature: float = 1.0) -> list[int]:
    """The fewest most likely tokens that together have top_p."""
    kept, held = [], 0.0
    for token in RANKED:
        if held >= top_p:
            break
        kept.append(token)
        held += shares(EVERY, temperature)[token]
    return kept


@pytest.mark.parametrize("top_p", [0.01, 0.4, 0.5, 0.75, 0.95, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_top_p_draws_only_the_nucleus_in_proportion(setting, top_p, temperature):
    kept = nucleus(top_p, temperature)
    found = drawn(setting(top_p=top_p, temperature=temperature))
    assert agree(found, shares(kept, temperature))


def test_top_p_is_taken_among_what_top_k_leaves(setting):
    # of the three most likely the first has 0.51 and the second 0.31
    assert agree(drawn(setting(top_k=3, top_p=0.6)), shares([1, 6]))


def test_every_row_is_drawn_by_itself(setting):
    logits = torch.full((3, 4), -50.0)
    logits[[0, 1, 2], [2, 0, 3]] = 50.0
    for config in (setting(), setting(top_k=2), setting(top_p=0.9), setting(greedy=True)):
        assert choose(logits, config, torch.Generator()).tolist() == [2, 0, 3]


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
