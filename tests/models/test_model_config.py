"""Configs of models: defaults, and what a bidirectional model works with."""

from __future__ import annotations

import pytest

from unroll.app import compose
from unroll.errors import Refused
from unroll.models.config import BIDIRECTIONAL, FullSoftmaxConfig, require_one_direction

BOTH = ("model.bidirectional=true", "data/batching=windows", "evaluation.protocol=window")


def test_by_default_a_layer_has_two_bias_vectors_and_the_softmax_is_full(composed):
    for name in ("rnn", "lstm", "gru"):
        config = composed(f"model={name}").model
        assert config.bias == "double"
        assert config.softmax == FullSoftmaxConfig("full")


def test_an_unknown_softmax_is_refused():
    with pytest.raises(Refused, match="did you mean 'full'"):
        compose(["model/softmax=ful"])


@pytest.mark.parametrize("word", ["evaluation.protocol=window", "evaluation.protocol=handout"])
def test_a_bidirectional_model_is_trained_on_windows(composed, word):
    assert composed(*BOTH, word).model.bidirectional


@pytest.mark.parametrize(
    ("word", "given", "suggested"),
    [
        ("data/batching=random", "data/batching=random", "data/batching=windows"),
        ("evaluation.protocol=stream", "evaluation.protocol=stream", "evaluation.protocol=window"),
        (
            "evaluation.gradient_steps=5",
            "evaluation.gradient_steps=5",
            "evaluation.gradient_steps=null",
        ),
        (
            "training/truncation=fixed",
            "training/truncation=fixed",
            "training/truncation=full",
        ),
    ],
)
def test_a_bidirectional_model_is_refused_where_one_direction_is_needed(word, given, suggested):
    with pytest.raises(Refused) as refused:
        compose([*BOTH, word])
    assert str(refused.value) == (
        f"model.bidirectional=true does not work with {given}, which needs a model that reads only "
        f"the tokens before a position: set {suggested}, or model.bidirectional=false"
    )


@pytest.mark.parametrize("key", BIDIRECTIONAL)
def test_a_model_of_one_direction_is_never_refused(key):
    require_one_direction(False, key, "anything")
    for value in BIDIRECTIONAL[key]:
        require_one_direction(True, key, value)
    with pytest.raises(Refused, match=f"{key}=anything"):
        require_one_direction(True, key, "anything")
