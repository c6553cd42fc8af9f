"""Int8 versions of trained models: close to the float32 ones, refused if there are none."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from unroll.errors import Refused
from unroll.models.language_model import LanguageModel
from unroll.models.quantized import (
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


@pytest.mark.parametrize(("name", "changes"), KINDS)
def test_the_int8_model_gives_nearly_the_numbers_of_the_float32_one(
    model, name: str, changes
) -> None:
    made = model(name, **changes)
    small = twin(made)
    ids = torch.randint(0, VOCABULARY, (3, 7))
    with torch.inference_mode():
        hidden, state = made(ids, made.initial_state(3))
        near, near_state = small(ids, small.initial_state(3))
        assert (near - hidden).abs().max() > 0  # it is not the float32 model itself
        assert_near(near, hidden)
        assert_near(small.softmax.logits(near), made.softmax.logits(hidden))
    for part, other in zip(parts(near_state), parts(state), strict=True):
        assert_near(part, other)


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Within 1.5% of the largest entry on average, within 10% everywhere."""
    assert found.shape == wanted.shape
    error, size = (found - wanted).abs(), wanted.abs().max()
    assert error.mean() < 0.015 * size
    assert error.max() < 0.1 * size


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_the_int8_state_can_be_carried_and_selected_from_like_any_state(model, name: str) -> None:
    small = twin(model(name))
    ids = torch.randint(0, VOCABULARY, (3, 8))
    with torch.inference_mode():
        # a row at a time: the scale of the inputs is that of all rows read together
        for row in range(3):
            whole, _ = small(ids[row : row + 1], small.initial_state(1))
            _, state = small(ids[row : row + 1, :5], small.initial_state(1))
            state = small.select(small.detach(state), torch.tensor([0, 0]))
            rest, _ = small(ids[row : row + 1, 5:].expand(2, -1), state)
            torch.testing.assert_close(rest[1:], whole[:, 5:])


def test_a_row_comes_back_within_half_a_step_of_its_scale() -> None:
    matrix = torch.randn(5, 9) * torch.tensor([1e-3, 1, 30, 0, 1])[:, None]
    found = quantize({"m": matrix, "b": matrix[0]})
    back = found["m"] * found["m.scale"][:, None]
    assert found["m"].dtype == torch.int8
    torch.testing.assert_close(found["b"], matrix[0], rtol=0, atol=0)
    assert ((back - matrix).abs() <= found["m.scale"][:, None] / 2 * 1.001).all()
    assert found["m"].abs().amax(dim=1).tolist() == [127, 127, 127, 0, 127]


def test_the_product_adds_up_integers_of_inputs_at_7_bits_and_none_overflows() -> None:
    matrix, inputs = torch.rand(6, 16), torch.rand(1, 16)  # sums of one sign: 8 bits would not fit
    weights = quantize({"softmax.linear.weight": matrix, "softmax.linear.bias": torch.arange(6.0)})
    back = weights["softmax.linear.weight"] * weights["softmax.linear.weight.scale"][:, None]
    with torch.inference_mode():
        found = Int8Linear(weights, "softmax.linear")(inputs)
    exact = inputs @ back.T + weights["softmax.linear.bias"]
    step = float(inputs.max()) / 127
    assert ((found - exact).abs() <= 1.01 * step / 2 * back.sum(dim=1)).all()
    assert (found - exact).abs().max() > 0


def test_a_tied_matrix_is_saved_once(model) -> None:
    kept = Counter(
        tuple(tensor.shape) for tensor in weights_of(model("lstm", tie_weights=True)).values()
    )
    assert kept[VOCABULARY, 32] == 1


def test_a_model_that_cannot_be_int8_is_refused_in_one_line(composed) -> None:
    both = replace(composed("model=lstm").model, bidirectional=True)
    with pytest.raises(Refused, match="bidirectional=false"):
        require_quantizable(both)
    with pytest.raises(Refused, match="take a run of rnn, lstm or gru"):
        require_quantizable(SimpleNamespace(name="ngram"))
