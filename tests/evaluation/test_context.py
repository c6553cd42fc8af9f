"""A context that is cut changes what a model reads, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.app import compose
from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.evaluation.context import positions, scores_by_context
from unroll.models.model import Model
from unroll.registry import build

SMALL = ["model.hidden_size=5", "training.dropout=0", "evaluation.rows=1"]


def made(*words: str) -> tuple[Model, object]:
    config = compose([*SMALL, *words])
    torch.manual_seed(0)
    return build("model", config.model, 11), config.evaluation


def text(length: int) -> TokenStream:
    return TokenStream.from_documents([np.arange(length, dtype=np.int32) * 7 % 11])


def plain(model: Model, ids: list[int], place: int, context: int | None) -> float:
    """-log p of one token, read one text at a time."""
    known = ids[:place] if context is None else ids[place - context : place]
    with torch.inference_mode():
        hidden, _ = model(torch.tensor([known]), model.initial_state(1))
        chances = model.softmax.log_probabilities(hidden[0, -1:])
    return -float(chances[0, ids[place]])


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True).map(sorted),
    st.integers(13, 40),
    st.integers(1, 50),
    st.sampled_from(["rnn", "lstm", "gru"]),
)
@settings(max_examples=15, deadline=None)
def test_every_token_has_the_score_that_it_has_alone_after_that_context(
    contexts: list[int], length: int, count: int, cell: str
) -> None:
    model, evaluation = made(
        f"model={cell}", f"evaluation.contexts={contexts}", f"evaluation.context_tokens={count}"
    )
    stream = text(length)
    places, ids = positions(stream, evaluation), stream.tokens.tolist()
    assert len(set(places)) == min(count, length - contexts[-1])
    found = scores_by_context(model, stream, evaluation)
    assert [each.context for each in found] == [*contexts, None]
    for each in found:
        expected = [plain(model, ids, place, each.context) for place in places]
        assert each.tokens == len(places)
        assert each.nats_per_token == pytest.approx(math.fsum(expected) / len(places), abs=1e-4)


def test_a_text_without_a_token_after_the_longest_context_is_refused() -> None:
    model, evaluation = made("evaluation.contexts=[2,9]")
    with pytest.raises(Refused, match="the text has 9 tokens, so none stands after 9 others"):
        scores_by_context(model, text(9), evaluation)


@pytest.mark.parametrize("words", ["[]", "[0]", "[2,1]", "[1,1]"])
def test_contexts_that_do_not_ascend_from_one_are_refused(words: str) -> None:
    with pytest.raises(Refused, match="must be integers of at least 1"):
        compose([f"evaluation.contexts={words}"])


def test_a_context_is_not_cut_where_the_model_adapts() -> None:
    with pytest.raises(Refused, match="a model that does not adapt"):
        compose(["evaluation.contexts=[1]", "evaluation.cache.size=9"])
