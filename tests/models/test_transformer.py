"""The Transformer, against its equations written out token by token."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unroll.app import compose
from unroll.data.token_stream import TokenStream
from unroll.data.tokenizer import WordTokenizer
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.errors import Refused
from unroll.evaluation.gradient_flow import gradient_flow
from unroll.evaluation.perplexity import score
from unroll.generation.sampler import sample
from unroll.models import parameters
from unroll.models.language_model import LanguageModel
from unroll.models.quantized import require_quantizable

VOCABULARY, CONTEXT, UNKNOWN = 11, 5, 0


@pytest.fixture
def model(leaning):
    def model_(factor: int = 1, **changes) -> LanguageModel:
        sizes = {"embedding_size": 8, "hidden_size": 12, "layers": 2, "heads": 3}
        sizes |= {"feedforward_size": 7, "context": CONTEXT}
        made = leaning(VOCABULARY, factor, "transformer", **(sizes | changes))
        return made.eval()

    return model_


def ids(rows: int, steps: int, seed: int = 3) -> Tensor:
    return torch.randint(VOCABULARY, (rows, steps), generator=torch.Generator().manual_seed(seed))


def normalised(vector: Tensor, norm) -> Tensor:
    spread = (vector - vector.mean()).square().mean()
    return (vector - vector.mean()) / (spread + norm.eps).sqrt() * norm.weight + norm.bias


def linear(layer, vector: Tensor) -> Tensor:
    return layer.weight @ vector + layer.bias


def turned(vector: Tensor, place: int) -> Tensor:
    """Pairs of entries as complex numbers, times e^(i place / 10000^(pair / pairs))."""
    pairs, found = len(vector) // 2, vector.clone()
    for pair in range(pairs):
        number = complex(vector[pair], vector[pair + pairs])
        number *= cmath.exp(1j * place / 10_000 ** (pair / pairs))
        found[pair], found[pair + pairs] = number.real, number.imag
    return found


def written_out(made: LanguageModel, words: list[int]) -> Tensor:
    """Hidden vectors of one text, ``(time, width)``."""
    config, cell = made.config, made.cell
    below = [linear(cell.projection, made.embedding.weight[word]) for word in words]
    for block in cell.blocks:
        inputs = [linear(block.attention_in, normalised(x, block.attention_norm)) for x in below]
        parts = [vector.split(config.hidden_size) for vector in inputs]
        above = []
        for now, x in enumerate(below):
            heads = []
            for head in torch.arange(config.hidden_size).chunk(config.heads):
                first = max(0, now - config.context + 1)
                query = turned(parts[now][0][head], now)
                weights = [
                    math.exp(query @ turned(parts[past][1][head], past) / math.sqrt(len(head)))
                    for past in range(first, now + 1)
                ]
                values = [parts[past][2][head] for past in range(first, now + 1)]
                heads.append(
                    sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
                )
            x = x + linear(block.attention_out, torch.cat(heads))
            inner = linear(block.feedforward_in, normalised(x, block.feedforward_norm))
            inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
            above.append(x + linear(block.feedforward_out, inner))
        below = above
    return torch.stack([normalised(x, cell.norm) for x in below])


@torch.no_grad()
@pytest.mark.parametrize("context", [1, 2, CONTEXT, 40])
def test_hidden_vectors_equal_the_equations_written_out(model, context):
    made, words = model(context=context), ids(2, 13)
    found, _ = made(words, made.initial_state(2))
    for row, expected in zip(words.tolist(), found, strict=True):
        torch.testing.assert_close(written_out(made, row), expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    context=st.integers(1, 12),
    layers=st.integers(1, 3),
)
def test_reading_in_pieces_with_a_carried_state_equals_reading_at_once(
    composed, pieces, context, layers
):
    torch.manual_seed(0)
    config = replace(
        composed("model=transformer").model,
        **{"embedding_size": 8, "hidden_size": 8, "heads": 2, "feedforward_size": 5},
        layers=layers,
        context=context,
    )
    made, words = LanguageModel(config, VOCABULARY).eval(), ids(2, sum(pieces))
    with torch.no_grad():
        whole, last = made(words, made.initial_state(2))
        state, found = made.initial_state(2), []
        for piece in torch.split(words, pieces, dim=1):
            hidden, state = made(piece, made.detach(state))
            found.append(hidden)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state, last, atol=1e-4, rtol=1e-4)
    assert last[0].shape[2] == min(context - 1, sum(pieces))


def test_a_prediction_depends_on_the_tokens_before_it_that_its_layers_reach_and_on_no_other(model):
    layers, steps = 2, 20
    made = model(layers=layers)
    vectors = made.embedding(ids(1, steps)).detach().requires_grad_()
    hidden, _ = made.cell(vectors, made.initial_state(1))
    reach = 1 + layers * (CONTEXT - 1)
    for now in range(steps):
        (gradient,) = torch.autograd.grad(hidden[0, now].square().sum(), vectors, retain_graph=True)
        seen = gradient[0].abs().sum(dim=1) > 0
        expected = [max(0, now + 1 - reach) <= place <= now for place in range(steps)]
        assert seen.tolist() == expected


@torch.no_grad()
def test_joined_and_selected_states_of_unequal_length_go_on_as_each_would(model):
    made = model()
    prefixes = [ids(1, length, seed=length) for length in (1, 2, 4, 9)]
    following = ids(4, 7, seed=8)
    states = [made(prefix, made.initial_state(1))[1] for prefix in prefixes]
    order = torch.tensor([2, 0, 0, 3])
    found, _ = made(following, made.select(made.join(states), order))
    for row, place in enumerate(order.tolist()):
        expected, _ = made(following[row : row + 1], states[place])
        torch.testing.assert_close(found[row : row + 1], expected, atol=1e-4, rtol=1e-4)


def test_detaching_the_state_cuts_the_gradient_and_scaling_it_scales_it(model):
    made, words = model(), ids(2, 8)

    def gradient(change) -> Tensor:
        vectors = made.embedding(words[:, :4]).detach().requires_grad_()
        _, state = made.cell(vectors, made.initial_state(2))
        hidden, _ = made(words[:, 4:], change(state))
        return torch.autograd.grad(hidden.square().sum(), vectors, allow_unused=True)[0]

    plain = gradient(lambda state: state)
    assert plain.abs().sum(dim=(1, 2)).min() > 0
    assert gradient(made.detach) is None
    factors = torch.tensor([0.0, 3.0])
    scaled = gradient(lambda state: made.scale_gradient(state, factors))
    torch.testing.assert_close(scaled, plain * factors[:, None, None])


def stream_of(lengths: list[int]) -> TokenStream:
    generator = np.random.default_rng(2)
    documents = [generator.integers(0, VOCABULARY, length) for length in lengths]
    return TokenStream.from_documents(documents, characters=5 * sum(lengths))


@torch.no_grad()
def token_by_token(made: LanguageModel, words: list[int]) -> list[float]:
    """Nats of every word but the first."""
    found, state = [], made.initial_state(1)
    for word, following in pairwise(words):
        hidden, state = made(torch.tensor([[word]]), state)
        found.append(-made.softmax.log_probabilities(hidden[0, -1])[following].item())
    return found


@pytest.mark.parametrize("protocol", ["stream", "document", "last", "window"])
def test_batched_scoring_equals_reading_token_by_token(model, composed, protocol):
    made, stream = model(factor=3), stream_of([3, 1, 30, 0, 8, 2, 17])
    texts = [stream.document(n).tolist() for n in range(stream.documents)]
    config = replace(composed().evaluation, protocol=protocol, rows=3, context=4)
    if protocol == "stream":
        nats = token_by_token(made, [word for text in texts for word in text])
    elif protocol == "window":
        nats = [
            token_by_token(made, text[max(0, place - 4) : place + 1])[-1]
            for text in texts
            for place in range(1, len(text))
        ]
    else:
        each = [token_by_token(made, text) for text in texts]
        nats = [one for text in each for one in (text[-1:] if protocol == "last" else text)]
    found = score(made, stream, config, UNKNOWN)
    assert found.tokens == len(nats)
    assert found.nats_per_token == pytest.approx(sum(nats) / len(nats), abs=1e-4)


def test_columns_of_a_stream_score_as_one_row_does(model, composed):
    made, stream = model(factor=3, context=40), stream_of([6000])
    config = replace(composed().evaluation, protocol="stream", rows=256)
    one = score(made, stream, replace(config, rows=1), UNKNOWN)
    many = score(made, stream, config, UNKNOWN)
    assert many.nats_per_token == pytest.approx(one.nats_per_token, abs=1e-4)


@torch.no_grad()
def test_greedy_text_equals_reading_everything_again_at_every_step(composed, leaning):
    vocabulary = Vocabulary([*SPECIALS, "oil", "prices", "rise", "fall"])
    sizes = {"embedding_size": 8, "hidden_size": 12, "heads": 3, "context": CONTEXT}
    made = leaning(len(vocabulary), 4, "transformer", **sizes).eval()
    config = replace(composed().sampling, greedy=True, length=15, stop=None)
    config = replace(config, samples=2)
    tokenizer = WordTokenizer(composed("data/tokenizer=word").data.tokenizer)
    prefixes = ["oil", "oil prices rise", "fall rise oil fall prices prices rise"]
    found = sample(made, tokenizer, vocabulary, prefixes, config, 4).samples
    for prefix, written in zip(prefixes, found[::2], strict=True):
        read = vocabulary.encode(prefix.split()).tolist()
        for _ in range(config.length):
            hidden, _ = made(torch.tensor([read]), made.initial_state(1))
            read.append(3 + int(made.softmax.logits(hidden[0, -1])[3:].argmax()))
        expected = read[-config.length :]
        assert written.text == " ".join(vocabulary.decode(expected))


def test_the_table_of_parameters_lists_each_layer_and_adds_up(model, composed):
    made = model()
    table = {layer.layer: layer.parameters for layer in parameters.layers(made.config, VOCABULARY)}
    width, inner = 12, 7
    block = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    assert table == {
        "embedding": VOCABULARY * 8,
        "projection": 8 * width + width,
        "transformer 1": block,
        "transformer 2": block,
        "norm": 2 * width,
        "softmax": VOCABULARY * (width + 1),
    }
    assert made.parameter_count == sum(table.values())


def test_tied_weights_one_hot_vectors_and_sparse_softmaxes_work_as_with_a_cell(model, composed):
    tied = model(embedding_size=12, tie_weights=True)
    assert tied.softmax.linear.weight is tied.embedding.weight
    assert tied.cell.projection is None
    one_hot = model(one_hot=True)
    hidden, _ = one_hot(ids(2, 3), one_hot.initial_state(2))
    assert hidden.shape == (2, 3, 12)


@pytest.mark.parametrize(("words", "units"), [([], 4 * 64), (["model.feedforward_size=5"], 5)])
def test_the_network_after_attention_is_four_times_as_wide_as_a_layer_or_as_wide_as_set(
    composed, words, units
):
    config = composed("model=transformer", "model.hidden_size=64", *words).model
    block = LanguageModel(config, 10).cell.blocks[0]
    assert (block.feedforward_in.out_features, block.feedforward_out.in_features) == (units, units)


def test_weights_start_small_and_those_added_to_the_stream_smaller(composed):
    config = replace(composed("model=transformer").model, layers=8)
    made = LanguageModel(config, 2000)
    block = made.cell.blocks[3]
    assert made.cell.width == 256
    for weight, deviation in {
        made.embedding.weight: 1,
        block.attention_in.weight: 1,
        block.attention_out.weight: 1 / 4,
        block.feedforward_in.weight: 1,
        block.feedforward_out.weight: 1 / 4,
        made.softmax.linear.weight: 1,
    }.items():
        of_width_768 = weight.std().item() / 3**0.5
        assert of_width_768 == pytest.approx(0.02 * deviation, rel=0.05)
    assert torch.equal(block.attention_norm.weight, torch.ones(256))
    assert not block.attention_in.bias.any()


def test_dropout_changes_what_training_reads_and_not_what_is_scored(model):
    made, words = model(dropout=0.5), ids(2, 6)
    first, second = (made(words, made.initial_state(2))[0] for _ in range(2))
    assert torch.equal(first, second)
    made.train()
    first, second = (made(words, made.initial_state(2))[0] for _ in range(2))
    assert not torch.equal(first, second)


@torch.no_grad()
def test_bfloat16_keeps_states_and_hidden_vectors_in_float32(composed):
    config = replace(composed("model=transformer").model, hidden_size=16, context=4)
    made = LanguageModel(config, VOCABULARY, "bfloat16").eval()
    hidden, state = made(ids(2, 9), made.initial_state(2))
    assert hidden.dtype == state[0].dtype == torch.float32
    assert torch.isfinite(hidden).all()


def test_the_gradient_reaches_as_far_back_as_the_layers_do(model):
    norms = gradient_flow(model(factor=2), stream_of([40]), 15, batch_size=4)
    reach = 2 * (CONTEXT - 1)
    assert min(norms[:reach]) > 0
    assert norms[reach + CONTEXT :] == [0.0] * len(norms[reach + CONTEXT :])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.heads=3"], "must be a multiple of 2 . model.heads .6."),
        (["model.heads=0"], "model.heads=0: must be at least 1"),
        (["model.context=0"], "model.context=0: must be at least 1"),
        (["model.feedforward_size=0"], "model.feedforward_size=0: must be at least 1"),
        (["model.bidirectional=true"], "bidirectional"),
        (["model.implementation=scratch"], "implementation"),
        (["model.tie_weights=true", "model.embedding_size=8"], "set model.embedding_size=256"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(words, message):
    with pytest.raises(Refused, match=message) as refused:
        compose(["model=transformer", *words])
    assert "\n" not in str(refused.value)


def test_int8_is_refused(composed):
    with pytest.raises(Refused, match="model=transformer cannot be converted to int8"):
        require_quantizable(composed("model=transformer").model, "precision", "int8")
