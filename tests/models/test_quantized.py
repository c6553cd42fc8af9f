"""Int8 versions of trained models: close to the float32 ones, refused if there are none."""

from __future__ import annotations

import sys
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.errors import Refused
from unroll.models.language_model import LanguageModel
from unroll.models.quantized import (
    SCALE,
    Int8Linear,
    quantize,
    quantized_model,
    require_quantizable,
    weights_of,
)

VOCABULARY = 40
KINDS = [
    ("rnn", {}),
    ("rnn", {"nonlinearity": "relu"}),
    ("lstm", {}),
    ("gru", {}),
    ("lstm", {"tie_weights": True}),
    ("gru", {"one_hot": True}),
    ("rnn", {"implementation": "scratch"}),
    ("gru", {"implementation": "scratch", "initialization": "orthogonal"}),
    ("rnn", {"bias": "single"}),
    ("lstm", {"bias": "single", "spectral_radius": 0.9}),
    ("gru", {"bias": "single", "tie_weights": True}),
    ("rnn", {"mogrifier_rounds": 1}),
    ("lstm", {"mogrifier_rounds": 5, "mogrifier_rank": 8}),
    ("gru", {"mogrifier_rounds": 2, "implementation": "scratch"}),
]


@pytest.fixture
def model(composed):
    def model_(name: str, **changes) -> LanguageModel:
        torch.manual_seed(3)
        sizes = {"embedding_size": 32, "hidden_size": 32, "layers": 2}
        config = replace(composed(f"model={name}").model, **(sizes | changes))
        made = LanguageModel(config, VOCABULARY).eval()
        with torch.no_grad():
            for parameter in made.cell.parameters():
                parameter *= 2
        return made

    return model_


def twin(made: LanguageModel) -> LanguageModel:
    return quantized_model(made.config, VOCABULARY, quantize(weights_of(made)))


def rounded(made: LanguageModel) -> LanguageModel:
    """The plain twin: the float32 model with each matrix rounded to int8 and back."""
    plain, kept = deepcopy(made), quantize(weights_of(made))
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name + SCALE in kept:
                parameter.copy_(kept[name] * kept[name + SCALE][:, None])
    return plain


@pytest.mark.parametrize(("name", "changes"), KINDS)
@pytest.mark.parametrize(
    ("rows", "steps", "within"),
    [(3, 1, 0.01), (1, 2, 0.01), (1, 7, 1e-5), (5, 3, 0.01), (9, 1, 1e-5), (9, 6, 1e-5)],
)
def test_the_int8_model_computes_what_the_float32_one_does_with_the_rounded_weights(
    model, name: str, changes, rows: int, steps: int, within: float
) -> None:
    made = model(name, **changes)
    small, plain = twin(made), rounded(made)
    ids = torch.randint(0, VOCABULARY, (rows, steps))
    with torch.inference_mode():
        hidden, state = plain(ids, plain.initial_state(rows))
        near, near_state = small(ids, small.initial_state(rows))
        assert_near(near, hidden, within)
        assert_near(small.softmax.logits(near), plain.softmax.logits(hidden), within)
    for part, other in zip(parts(near_state), parts(state), strict=True):
        assert_near(part, other, within)


def assert_near(found: torch.Tensor, wanted: torch.Tensor, within: float) -> None:
    """Within a share of the largest entry: a few rows are read by a kernel for bfloat16."""
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= within * wanted.abs().max()


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_the_int8_state_can_be_carried_and_selected_from_like_any_state(model, name: str) -> None:
    small = twin(model(name))
    ids = torch.randint(0, VOCABULARY, (3, 8))
    with torch.inference_mode():
        for row in range(3):
            whole, _ = small(ids[row : row + 1], small.initial_state(1))
            _, state = small(ids[row : row + 1, :5], small.initial_state(1))
            state = small.select(small.detach(state), torch.tensor([0, 0]))
            rest, _ = small(ids[row : row + 1, 5:].expand(2, -1), state)
            torch.testing.assert_close(rest[1:], whole[:, 5:], rtol=0, atol=0.02)


def test_a_row_comes_back_within_a_step_of_its_scale() -> None:
    matrix = torch.randn(5, 9) * torch.tensor([1e-3, 1, 30, 0, 1])[:, None]
    found = quantize({"m": matrix, "b": matrix[0]})
    back = found["m"] * found["m.scale"][:, None]
    assert found["m"].dtype == torch.int8
    assert found["m.scale"].dtype == torch.float32
    torch.testing.assert_close(found["b"], matrix[0], rtol=0, atol=0)
    assert ((back - matrix).abs() <= found["m.scale"][:, None]).all()
    assert (found["m"].int().abs().amax(dim=1)[[0, 1, 2, 4]] >= 126).all()
    assert not found["m"][3].any()


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 9), width=st.integers(2, 70), height=st.integers(1, 1100))
def test_a_product_of_any_shape_is_that_of_the_rounded_matrix(rows, width, height) -> None:
    torch.manual_seed(rows + width)
    matrix, inputs = torch.randn(height, width), torch.randn(2, rows, width)
    weights = quantize({"x.weight": matrix, "x.bias": torch.randn(height)})
    back = weights["x.weight"] * weights["x.weight.scale"][:, None]
    exact = F.linear(inputs, back, weights["x.bias"])
    with torch.inference_mode():
        layer = Int8Linear(weights, "x")
        assert_near(layer(inputs), exact, 0.02)
        assert_near(layer.repeated(100)(inputs), exact, 1e-5)
        assert_near(layer._many(F.pad(inputs[0], layer.padding)), exact[0], 1e-5)


def test_without_torchao_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(Refused, match=r"pip install 'unroll\[int8\]'"):
        quantize({"m": torch.ones(2, 2)})


def test_a_tied_matrix_is_saved_once(model) -> None:
    kept = Counter(
        tuple(tensor.shape) for tensor in weights_of(model("lstm", tie_weights=True)).values()
    )
    assert kept[VOCABULARY, 32] == 1


def test_a_model_that_cannot_be_int8_is_refused_in_one_line(composed) -> None:
    both = replace(composed("model=lstm").model, bidirectional=True)
    with pytest.raises(Refused, match="bidirectional=false"):
        require_quantizable(both, "precision", "int8")
    with pytest.raises(Refused, match="take a run of rnn, lstm or gru"):
        require_quantizable(SimpleNamespace(name="ngram"), "precision", "int8")


@pytest.mark.parametrize(
    ("part", "value"), [("layer_norm", True), ("residual", True), ("last_size", 9)]
)
def test_stacks_with_more_than_equal_layers_are_refused(composed, part, value):
    config = replace(composed("model=lstm").model, layers=2, **{part: value})
    message = rf"model\.{part}={str(value).lower()} cannot be .* which task=deploy needs"
    with pytest.raises(Refused, match=message):
        require_quantizable(config, "task", "deploy")
