"""The parameter table: equal to the closed forms, to the model itself, and to a count by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from unroll.config import Config
from unroll.models import parameters
from unroll.models.parameters import Layer
from unroll.registry import build

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
VOCABULARY, EMBEDDING, HIDDEN = 11, 3, 5


@pytest.fixture
def config(composed: Callable[..., Config]) -> Callable[..., Any]:
    def config_(name: str, **changes: Any) -> Any:
        sizes = {"embedding_size": EMBEDDING, "hidden_size": HIDDEN, "layers": 1}
        return replace(composed(f"model={name}").model, **(sizes | changes))

    return config_


def counts(layers: list[Layer]) -> dict[str, int]:
    return {layer.layer: layer.parameters for layer in layers}


def recurrent(name: str, inputs: int, hidden: int = HIDDEN, biases: int = 2) -> int:
    return GATES[name] * hidden * (inputs + hidden + biases)


@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("name", GATES)
def test_every_layer_has_as_many_parameters_as_its_closed_form(config, name, implementation):
    found = parameters.layers(config(name, layers=3, implementation=implementation), VOCABULARY)
    assert counts(found) == {
        "embedding": VOCABULARY * EMBEDDING,
        f"{name} 1": recurrent(name, EMBEDDING),
        f"{name} 2": recurrent(name, HIDDEN),
        f"{name} 3": recurrent(name, HIDDEN),
        "softmax": VOCABULARY * (HIDDEN + 1),
    }
    rows = GATES[name] * HIDDEN
    assert found[1].shapes == {
        "weight_ih": [rows, EMBEDDING],
        "weight_hh": [rows, HIDDEN],
        "bias_ih": [rows],
        "bias_hh": [rows],
    }


@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("name", GATES)
def test_with_a_single_bias_every_layer_has_one_bias_vector(config, name, implementation):
    changes = {"layers": 2, "bidirectional": True, "implementation": implementation}
    found = parameters.layers(config(name, bias="single", **changes), VOCABULARY)
    assert counts(found) == {
        "embedding": VOCABULARY * EMBEDDING,
        f"{name} 1": recurrent(name, EMBEDDING, biases=1),
        f"{name} 1 backwards": recurrent(name, EMBEDDING, biases=1),
        f"{name} 2": recurrent(name, 2 * HIDDEN, biases=1),
        f"{name} 2 backwards": recurrent(name, 2 * HIDDEN, biases=1),
        "softmax": VOCABULARY * (2 * HIDDEN + 1),
    }
    assert list(found[1].shapes) == ["weight_ih", "weight_hh", "bias_ih"]
    double = parameters.layers(config(name, **changes), VOCABULARY)
    for one in (found, double):
        assert [layer.parameters_with_one_bias for layer in one] == list(counts(found).values())


@pytest.mark.parametrize("name", GATES)
def test_a_bidirectional_layer_counts_twice_and_feeds_both_halves_on(config, name):
    found = counts(parameters.layers(config(name, layers=2, bidirectional=True), VOCABULARY))
    assert found == {
        "embedding": VOCABULARY * EMBEDDING,
        f"{name} 1": recurrent(name, EMBEDDING),
        f"{name} 1 backwards": recurrent(name, EMBEDDING),
        f"{name} 2": recurrent(name, 2 * HIDDEN),
        f"{name} 2 backwards": recurrent(name, 2 * HIDDEN),
        "softmax": VOCABULARY * (2 * HIDDEN + 1),
    }


def test_a_tied_matrix_counts_once_and_one_hot_vectors_have_none(config):
    tied = counts(
        parameters.layers(config("gru", embedding_size=HIDDEN, tie_weights=True), VOCABULARY)
    )
    assert (tied["embedding"], tied["softmax"]) == (VOCABULARY * HIDDEN, VOCABULARY)
    one_hot = counts(parameters.layers(config("gru", one_hot=True), VOCABULARY))
    assert "embedding" not in one_hot
    assert one_hot["gru 1"] == recurrent("gru", VOCABULARY)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": 2, "bidirectional": True, "mogrifier_rounds": 3},
        {"forget_gate_bias": 1.0},
        {"bias": "single"},
    ],
)
def test_the_layers_add_up_to_the_model(config, changes):
    found = config("lstm", **changes)
    total = sum(layer.parameters for layer in parameters.layers(found, VOCABULARY))
    assert total == build("model", found, VOCABULARY).parameter_count


def test_two_layers_of_three_units_are_40_by_hand_and_46_in_pytorch(config):
    # input 1, two layers of 3 units, output 1
    for bias, expected in (("single", [15, 21, 4]), ("double", [18, 24, 4])):
        made = config("rnn", one_hot=True, hidden_size=3, layers=2, bias=bias)
        assert [layer.parameters for layer in parameters.layers(made, 1)] == expected
        assert build("model", made, 1).parameter_count == sum(expected)


@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("name", GATES)
def test_rounds_of_the_mogrifier_count_with_their_layer(config, name, implementation):
    """Of five rounds three gate the input and two the state, each with a matrix or, of rank k, with
    two narrow ones."""
    changes = {"layers": 2, "implementation": implementation, "mogrifier_rounds": 5}
    for rank in (None, 2):
        found = parameters.layers(config(name, mogrifier_rank=rank, **changes), VOCABULARY)
        for layer, below in zip(found[1:3], (EMBEDDING, HIDDEN), strict=True):
            of_each = below * HIDDEN if rank is None else rank * (below + HIDDEN)
            assert layer.parameters == recurrent(name, below) + 5 * of_each
    first = {"weight_q1_right": [2, HIDDEN], "weight_q1_left": [EMBEDDING, 2]}
    assert first.items() <= found[1].shapes.items()


def test_a_model_larger_than_the_memory_is_counted(config):
    found = parameters.layers(config("lstm", hidden_size=1_000_000), VOCABULARY)
    assert counts(found)["lstm 1"] == recurrent("lstm", EMBEDDING, 1_000_000)
