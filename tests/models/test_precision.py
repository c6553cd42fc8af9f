"""Which number format the products of a model have."""

from __future__ import annotations

import math

import pytest
import torch

from unroll.errors import Refused
from unroll.models import precision
from unroll.models.language_model import LanguageModel
from unroll.models.precision import Precision, resolve_precision
from unroll.tasks.run import resolved

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("gain", "expected"), [(0.01, "float32"), (1.1, "float32"), (1.9, "bfloat16")]
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it_faster(
    monkeypatch, composed, gain, expected
):
    monkeypatch.setattr(precision, "kept_gain", lambda: gain)
    assert resolve_precision("auto", CPU) == expected
    assert resolved(composed("device=cpu")).precision == expected
    for name in ("float32", "bfloat16", "int8"):
        assert resolve_precision(name, CPU) == name


@pytest.mark.parametrize("native", [True, False])
def test_auto_asks_a_gpu_whether_it_has_bfloat16(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    expected = "bfloat16" if native else "float32"
    assert resolve_precision("auto", torch.device("cuda")) == expected


def test_the_gain_of_bfloat16_is_a_number_from_0_on():
    assert 0 <= precision.bfloat16_gain() < math.inf


def test_the_gain_is_measured_once_for_a_machine(monkeypatch, tmp_path):
    measured = iter([1.9, 1.1, 0.3])
    monkeypatch.setattr(precision, "HOME", tmp_path)
    monkeypatch.setattr(precision, "bfloat16_gain", lambda: next(measured))
    new_process = precision.kept_gain.__wrapped__
    assert [new_process(), new_process()] == [1.9, 1.9]
    (kept,) = (tmp_path / ".cache" / "bfloat16").iterdir()
    kept.write_text("damaged")
    assert new_process() == 1.1


def test_an_unknown_precision_is_refused():
    with pytest.raises(Refused, match="unknown precision 'auto'"):
        Precision("auto")


@pytest.mark.parametrize(("name", "dtype"), [("float32", "float32"), ("bfloat16", "bfloat16")])
def test_products_are_of_the_precision_and_only_within_its_context(name, dtype):
    rows = torch.ones(2, 3)
    with Precision(name).products(CPU):
        assert (rows @ rows.T).dtype == getattr(torch, dtype)
    assert (rows @ rows.T).dtype == torch.float32


@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_bfloat16_is_near_float32_and_keeps_weights_states_and_losses_in_float32(
    composed, cell, implementation
):
    config = composed(f"model={cell}", f"model.implementation={implementation}").model
    ids = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(0))
    found = {}
    for name in ("float32", "bfloat16"):
        torch.manual_seed(1)
        model = LanguageModel(config, 50, name)
        hidden, state = model(ids, model.initial_state(4))
        loss = model.softmax.loss(hidden.flatten(0, 1), ids.flatten())
        loss.backward()
        kept = [loss, *model.state_parts(state), *model.parameters()]
        kept += [parameter.grad for parameter in model.parameters()]
        assert all(tensor.dtype == torch.float32 for tensor in kept)
        gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        found[name] = (hidden.detach().float(), gradients, loss.item())
    (exact, gradient, loss), (rough, near, low_loss) = found.values()
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0, atol=0.02)
    assert torch.linalg.norm(gradient - near) < 0.05 * torch.linalg.norm(gradient)
    assert low_loss == pytest.approx(loss, rel=0.01)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_training_in_bfloat16_ends_within_a_percent_of_the_perplexity_of_float32(composed, cell):
    changes = ("model.hidden_size=24", "model.embedding_size=16", "model.layers=2")
    config = composed(f"model={cell}", *changes).model
    ids = torch.randint(20, (8, 13), generator=torch.Generator().manual_seed(0))
    found = {}
    for name in ("float32", "bfloat16"):
        torch.manual_seed(1)
        model = LanguageModel(config, 20, name)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(40):
            hidden, _ = model(ids[:, :-1], model.initial_state(8))
            loss = model.softmax.loss(hidden.flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found[name] = math.exp(loss.item())
    assert found["float32"] < 15  # of 20 at the start
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.01)
