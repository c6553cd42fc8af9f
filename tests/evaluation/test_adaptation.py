"""Dynamic evaluation, the neural cache and mixtures, against twins that go token by token."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.app import compose
from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.evaluation.adaptation import Ensemble, expectation_maximisation, mean_squares
from unroll.evaluation.perplexity import score
from unroll.registry import build

VOCABULARY, UNKNOWN = 9, 0
MODELS = ["rnn", "lstm", "gru", "transformer"]


def stream_of(length: int, seed: int = 2) -> TokenStream:
    words = np.random.default_rng(seed).integers(0, VOCABULARY, length)
    return TokenStream.from_documents([words], characters=5 * length)


@pytest.fixture
def model(leaning):
    def model_(name: str = "lstm", factor: int = 2, **changes):
        changes |= {"heads": 1, "context": 6} if name == "transformer" else {}
        return leaning(VOCABULARY, factor, name, **changes)

    return model_


@pytest.fixture
def counted(composed):
    def counted_(stream: TokenStream, **changes):
        made = build("model", replace(composed("model=ngram").model, **changes), VOCABULARY)
        made.count(stream.tokens)
        return made

    return counted_


@pytest.fixture
def setting(composed):
    """The config with these values of ``dynamic`` and ``cache``, rates and sizes off by default."""

    def setting_(dynamic=None, cache=None):
        base = composed().evaluation
        return replace(
            base,
            dynamic=replace(base.dynamic, **(dynamic or {})),
            cache=replace(base.cache, **(cache or {})),
        )

    return setting_


def distributions(ensemble: Ensemble, stream: TokenStream) -> torch.Tensor:
    """p of every next token by the first model, ``(tokens - 1, vocabulary)``."""
    return torch.cat([parts[0] for parts, _ in ensemble.predictions(stream)])


def cached_token_by_token(made, words: list[int], size: int, theta: float, weight: float):
    """p of every next token, with a cache that is a list of pairs."""
    found, remembered, state = [], [], made.initial_state(1)
    for place, word in enumerate(words[:-1]):
        hidden, state = made(torch.tensor([[word]]), state)
        vector = hidden[0, 0].double()
        chances = made.softmax.log_probabilities(hidden[0, 0]).double().exp().tolist()
        if remembered:
            powers = [math.exp(theta * float(vector @ old)) for old, _ in remembered]
            chances = [(1 - weight) * chance for chance in chances]
            for power, (_, following) in zip(powers, remembered, strict=True):
                chances[following] += weight * power / sum(powers)
        found.append(chances)
        remembered = [*remembered, (vector, words[place + 1])][-size:]
    return torch.tensor(found)


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 40),
    theta=st.sampled_from([0.0, 0.3, 2.0]),
    weight=st.floats(0.01, 0.99),
    length=st.integers(2, 30),
)
def test_a_cache_equals_its_pairs_written_out(composed, size, theta, weight, length):
    torch.manual_seed(1)
    config = replace(composed().model, embedding_size=4, hidden_size=5)
    made = build("model", config, VOCABULARY).eval()
    base = composed().evaluation
    config = replace(base, cache=replace(base.cache, size=size, theta=theta, weight=weight))
    stream = stream_of(length)
    found = distributions(Ensemble([made], config), stream)
    expected = cached_token_by_token(made, stream.tokens.tolist(), size, theta, weight)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(length - 1))


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 7, 500])
def test_the_cache_of_an_ngram_is_the_share_of_each_word_among_the_last(counted, setting, size):
    stream = stream_of(300)
    made = counted(stream)
    config = setting(cache={"size": size, "theta": 0.0, "weight": 0.3})
    found = distributions(Ensemble([made], config), stream)
    plain = distributions(Ensemble([made], setting()), stream)
    words = stream.tokens.tolist()
    expected = plain[:1].tolist()
    for place in range(1, len(words) - 1):
        last = Counter(words[max(1, place + 1 - size) : place + 1])
        expected.append(
            [
                0.7 * chance + 0.3 * last[word] / last.total()
                for word, chance in enumerate(plain[place].tolist())
            ]
        )
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_cache_remembers_across_segments(model, setting):
    made, stream = model(factor=3).eval(), stream_of(300)
    config = setting(cache={"size": 150, "theta": 1.0, "weight": 0.3})
    found = distributions(Ensemble([made], config), stream)
    expected = cached_token_by_token(made, stream.tokens.tolist(), 150, 1.0, 0.3)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-4)


def dynamic_by_hand(made, words: list[int], config, squares):
    """p of every next token, with the weights moved by the formula of the paper."""
    weights = list(made.parameters())
    trained = [weight.detach().clone() for weight in weights]
    roots = [square.double().sqrt() for square in squares]
    mean = sum(float(root.sum()) for root in roots) / max(1, sum(root.numel() for root in roots))
    found, state = [], made.initial_state(1)
    for first in range(0, len(words) - 1, config.segment):
        given_ = words[first : min(first + config.segment, len(words) - 1)]
        targets = torch.tensor(words[first + 1 : first + 1 + len(given_)])
        hidden, state = made(torch.tensor([given_]), made.detach(state))
        logs = (hidden[0] @ made.softmax.linear.weight.T + made.softmax.linear.bias).log_softmax(1)
        found.append(logs.detach().exp())
        for weight in weights:
            weight.grad = None
        F.nll_loss(logs, targets).backward()
        for place, weight in enumerate(weights):
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            rate, decay = config.learning_rate, config.decay
            if config.rule == "rms":
                rate = config.learning_rate / (roots[place] + config.epsilon)
                decay = torch.clamp(config.decay * roots[place] / mean, max=1)
            moved = weight.data - rate * gradient + decay * (trained[place] - weight.data)
            weight.data = moved.to(weight.dtype)
    for weight, before in zip(weights, trained, strict=True):
        weight.data = before
    return torch.cat(found)


@pytest.mark.parametrize("rule", ["rms", "sgd"])
@pytest.mark.parametrize("name", MODELS)
def test_dynamic_evaluation_equals_the_formula_written_out(model, setting, name, rule):
    # with a small epsilon, or with few units after attention, the steps of a Transformer enlarge a
    # rounding many thousand times
    wide = {"feedforward_size": 1024} if name == "transformer" else {}
    made, stream = model(name, **wide).eval(), stream_of(33)
    rate = {"rms": 0.05, "sgd": 0.3}[rule]
    values = {"learning_rate": rate, "rule": rule, "decay": 0.05, "segment": 5, "epsilon": 0.1}
    config = setting(dynamic=values)
    squares = mean_squares(made, stream_of(200, seed=5))
    expected = dynamic_by_hand(made, stream.tokens.tolist(), config.dynamic, squares)
    found = distributions(Ensemble([made], config, squares), stream)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(32))
    plain = distributions(Ensemble([made], setting()), stream)
    torch.testing.assert_close(found[:5], plain[:5])  # nothing was learned yet
    assert not torch.allclose(found[5:], plain[5:], atol=1e-3)


def test_mean_squares_are_those_of_the_gradients_one_sequence_after_the_other(model):
    made, stream = model("gru").eval(), stream_of(40)
    found, expected = mean_squares(made, stream), []
    starts = range(40 - 35)
    for start in starts:
        row = torch.from_numpy(stream.tokens[start : start + 36].astype(np.int64))
        hidden, _ = made(row[None, :-1], made.initial_state(1))
        loss = F.cross_entropy(made.softmax.logits(hidden[0]), row[1:])
        gradients = torch.autograd.grad(loss, list(made.parameters()))
        expected.append([gradient.square() for gradient in gradients])
    for square, parts in zip(found, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(square, sum(parts) / len(starts), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_a_token_is_scored_before_anything_is_learned_from_it(model, setting, name):
    made, stream = model(name), stream_of(24)
    config = setting(
        dynamic={"learning_rate": 0.3, "rule": "sgd", "segment": 3},
        cache={"size": 8, "weight": 0.4},
    )
    before = distributions(Ensemble([made], config), stream)
    words = stream.tokens.copy()
    words[14] = (words[14] + 1) % VOCABULARY
    after = distributions(Ensemble([made], config), TokenStream.from_documents([words]))
    assert torch.equal(before[:14], after[:14])
    assert not torch.equal(before[14:], after[14:])


def test_the_trained_weights_come_back_bit_for_bit_also_if_reading_ends_early(model, setting):
    made, stream = model().train(), stream_of(40)
    trained = [weight.clone() for weight in made.parameters()]
    config = setting(dynamic={"learning_rate": 0.5, "rule": "sgd"})
    ensemble = Ensemble([made], config)
    ensemble.score(stream, [1.0], UNKNOWN)
    assert all(map(torch.equal, trained, made.parameters()))
    reading = ensemble.predictions(stream)
    for _ in range(3):
        next(reading)
    assert not all(map(torch.equal, trained, made.parameters()))
    reading.close()
    assert all(map(torch.equal, trained, made.parameters()))
    assert made.training


@pytest.mark.parametrize("name", MODELS)
def test_with_nothing_adapted_the_score_is_that_of_one_row(model, setting, name):
    made, stream = model(name), stream_of(400)
    expected = score(made, stream, replace(setting(), rows=1), UNKNOWN)
    found = Ensemble([made], setting()).score(stream, [1.0], UNKNOWN)
    assert found.nats == pytest.approx(expected.nats, rel=1e-5)
    assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-4)
    for key in ("tokens", "counted", "hits", "unknown", "characters"):
        assert getattr(found, key) == getattr(expected, key)


def test_what_is_repeated_becomes_likelier_with_a_cache_and_with_dynamic_evaluation(model, setting):
    words = np.random.default_rng(1).integers(4, 7, 300)
    made, stream = model(factor=1), TokenStream.from_documents([words])

    def nats(**changes) -> float:
        return Ensemble([made], setting(**changes)).score(stream, [1.0], UNKNOWN).nats_per_token

    plain = nats()
    assert nats(cache={"size": 100, "theta": 0.0, "weight": 0.5}) < plain - 0.2
    assert nats(dynamic={"learning_rate": 0.5, "rule": "sgd", "decay": 0.0}) < plain - 0.2


@torch.no_grad()
def test_a_mixture_is_the_weighted_sum_of_the_probabilities_of_its_models(model, setting, counted):
    stream, shares = stream_of(60), [0.5, 0.3, 0.2]
    models = [model().eval(), model("gru", factor=3).eval(), counted(stream_of(90, seed=4))]
    found = Ensemble(models, setting()).score(stream, shares, UNKNOWN)
    rows = torch.from_numpy(stream.tokens.astype(np.int64))
    parts = []
    for one in models:
        hidden, _ = one(rows[None, :-1], one.initial_state(1))
        parts.append(one.softmax.log_probabilities(hidden[0]).double().exp())
    mixed = sum(share * part for share, part in zip(shares, parts, strict=True))
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(59).double())
    own = mixed.gather(1, rows[1:, None])
    assert found.nats == pytest.approx(-float(own.log().sum()), rel=1e-5)
    assert found.hits == int((own >= mixed.amax(dim=1, keepdim=True)).sum())


def test_fitted_shares_beat_every_other_on_the_text_that_they_are_fitted_on(
    model, setting, counted
):
    stream = stream_of(150)
    models = [model(), counted(stream_of(400, seed=4), smoothing="none", order=1)]
    ensemble = Ensemble(models, setting(cache={"size": 20}))
    fitted = ensemble.fitted_weights(stream)
    assert sum(fitted) == pytest.approx(1)
    best = ensemble.score(stream, fitted, UNKNOWN).nats
    for share in np.linspace(0, 1, 21):
        assert best <= ensemble.score(stream, [share, 1 - share], UNKNOWN).nats + 1e-3


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_expectation_maximisation_finds_the_best_share(share, seed):
    generator = torch.Generator().manual_seed(seed)
    both = torch.rand(5000, 2, generator=generator, dtype=torch.float64)
    both[0] = 0  # no model expects it
    found = expectation_maximisation(both)

    def gain(weight: float) -> float:
        return float((both[1:] @ torch.tensor([weight, 1 - weight]).double()).log().sum())

    best = gain(float(found[0]))
    assert best >= max(gain(weight) for weight in (share, 0.01, 0.5, 0.99)) - 1e-3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.cache.size=0"], "evaluation.cache.size=0: must be at least 1"),
        (["evaluation.cache.size=-1"], "must be at least 1"),
        (["evaluation.cache.weight=1"], "evaluation.cache.weight=1.0: must be above 0 and below 1"),
        (["evaluation.cache.theta=-1"], "evaluation.cache.theta=-1.0: must be at least 0"),
        (["evaluation.dynamic.learning_rate=0"], "must be above 0 and finite, or null"),
        (["evaluation.dynamic.rule=adam"], "unknown evaluation.dynamic.rule|evaluation.dynamic"),
        (["evaluation.dynamic.decay=2"], "evaluation.dynamic.decay=2.0: must be from 0 to 1"),
        (["evaluation.dynamic.segment=0"], "evaluation.dynamic.segment=0: must be at least 1"),
        (["evaluation.dynamic.epsilon=0"], "evaluation.dynamic.epsilon=0.0: must be above 0"),
        (["evaluation.dynamic.rate=1"], "evaluation"),
        (
            ["evaluation.cache.size=9", "evaluation.protocol=document"],
            "evaluation.protocol=document does not carry .*: set evaluation.protocol=stream",
        ),
        (["evaluation.mixture=[a,a]"], "has a duplicate"),
        (["evaluation.mixture_weights=[0.5,0.5]"], "evaluation.mixture_weights"),
        (
            ["evaluation.mixture=[a]", "evaluation.mixture_weights=[0.5,0.6]"],
            "which add up to 1, or null",
        ),
        (["model=ngram", "evaluation.cache.size=9"], "set evaluation.cache.theta=0"),
        (["model=ngram", "evaluation.dynamic.learning_rate=1"], "which has no gradient"),
        (
            ["task=evaluate", "run=x", "precision=int8", "evaluation.dynamic.learning_rate=1"],
            "precision=int8 rounds the weights",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_in_one_line(words, message):
    with pytest.raises(Refused, match=message) as refused:
        compose(words)
    assert "\n" not in str(refused.value)
