"""The loops over time equal PyTorch's modules: outputs, states and every gradient."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unroll.models import stacks, time_loops
from unroll.models.stacks import GRULayers, LSTMLayers, RNNLayers
from unroll.models.time_loops import LSTMLoop

MODULES = {"rnn": (RNNLayers, nn.RNN), "gru": (GRULayers, nn.GRU), "lstm": (LSTMLayers, nn.LSTM)}
SIZES = st.integers(1, 7)


def results(module, inputs, state, asked):
    """Outputs, last state, and the gradients of what is ``asked``, of inputs, first state and
    weights."""
    given_ = [part.clone().requires_grad_() for part in (inputs, *state)]
    first = tuple(given_[1:]) if isinstance(module, nn.LSTM) else given_[1]
    hidden, last = module(given_[0], first)
    lasts = last if isinstance(last, tuple) else (last,)
    loss = 0
    for number, part in enumerate((hidden, *lasts)):
        if number in asked:
            loss = loss + (part * torch.linspace(-1, 2, part.numel()).view(part.shape)).sum()
    loss.backward()
    weights = [parameter.grad for _, parameter in sorted(module.named_parameters())]
    found = [hidden, *lasts, *(part.grad for part in given_), *weights]
    return [part if part is None else part.detach() for part in found]


@pytest.mark.parametrize("name", MODULES)
@given(
    data=st.data(),
    batch=SIZES,
    time=st.integers(1, 11),
    inputs=SIZES,
    units=SIZES,
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    double=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_layers_equal_pytorchs(
    name, data, batch, time, inputs, units, layers, bidirectional, double
):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    asked = data.draw(st.sets(st.integers(0, 2 if name == "lstm" else 1), min_size=1))
    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": True}
    if name == "rnn":
        options["nonlinearity"] = data.draw(st.sampled_from(["tanh", "relu"]))
    ours, theirs = (kind(inputs, units, **options) for kind in MODULES[name])
    theirs.load_state_dict(ours.state_dict())
    dtype = torch.float64 if double else torch.float32  # float64: the loop of the LSTM
    ours.to(dtype), theirs.to(dtype)
    values = torch.randn(batch, time, inputs, dtype=dtype)
    count = layers * (2 if bidirectional else 1)
    state = [torch.randn(count, batch, units, dtype=dtype) for _ in range(1 + (name == "lstm"))]
    tolerance = {"rtol": 0, "atol": 1e-10} if double else {"rtol": 1e-4, "atol": 1e-4}
    for one, other in zip(*(results(m, values, state, asked) for m in (ours, theirs)), strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, **tolerance)
        else:  # what the loss does not depend on has no gradient, or zeros
            assert not any(part is not None and part.any() for part in (one, other))


@pytest.mark.parametrize("name", MODULES)
def test_without_a_graph_the_numbers_are_the_same_and_nothing_can_be_derived(name):
    torch.manual_seed(0)
    module = MODULES[name][0](3, 4, num_layers=2, batch_first=True).double()
    values = torch.randn(2, 9, 3, dtype=torch.float64)
    zeros = torch.zeros(2, 2, 4, dtype=torch.float64)
    first = (zeros, zeros) if name == "lstm" else zeros
    hidden, _ = module(values, first)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            found, _ = module(values, first)
        assert torch.equal(found, hidden)
        assert not found.requires_grad


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*MODULES, "relu"])
def test_a_step_without_a_graph_equals_one_with_a_graph(name, precision, bidirectional):
    torch.manual_seed(0)
    options = {"num_layers": 2, "bidirectional": bidirectional, "batch_first": True}
    options |= {"nonlinearity": "relu"} if name == "relu" else {}
    module = MODULES["rnn" if name == "relu" else name][0](3, 4, **options)
    values = torch.randn(5, 1, 3)
    one, other = torch.randn(2, 4 if bidirectional else 2, 5, 4)
    first = (one, other) if name == "lstm" else one
    hidden, last = module(values, first)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, precision != torch.float32):
        found, end = module(values, first)
    torch.testing.assert_close((found, end), (hidden, last))


@pytest.mark.parametrize("name", MODULES)
def test_frozen_weights_and_inputs_leave_the_other_gradients_as_they_are(name):
    torch.manual_seed(0)
    module = MODULES[name][0](3, 4, batch_first=True).double()
    values = torch.randn(2, 9, 3, dtype=torch.float64)
    zeros = torch.zeros(1, 2, 4, dtype=torch.float64)
    first = (zeros, zeros) if name == "lstm" else zeros

    def gradients():
        module.zero_grad()
        module(values, first)[0].square().sum().backward()
        return [parameter.grad for parameter in module.parameters()]

    whole = gradients()
    module.weight_ih_l0.requires_grad_(False)
    module.bias_hh_l0.requires_grad_(False)
    part = gradients()
    assert part[0] is part[3] is None
    assert torch.equal(part[1], whole[1])
    assert torch.equal(part[2], whole[2])


@pytest.mark.parametrize(
    ("time", "precision", "loops"),
    [(5, None, 0), (1, None, 1), (5, torch.bfloat16, 1)],
)
def test_an_lstm_loops_for_single_steps_and_in_bfloat16_only(monkeypatch, time, precision, loops):
    seen = []
    apply = LSTMLoop.apply
    monkeypatch.setattr(LSTMLoop, "apply", lambda *given_: seen.append(1) or apply(*given_))
    module, zeros = LSTMLayers(3, 4, batch_first=True), torch.zeros(1, 2, 4)
    with torch.autocast("cpu", precision) if precision else nullcontext():
        module(torch.zeros(2, time, 3), (zeros, zeros))
    assert len(seen) == loops


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])  # LSTM: oneDNN, the loop
@pytest.mark.parametrize("name", MODULES)
@given(
    share=st.sampled_from([0.2, 0.5, 0.9]),
    seed=st.integers(0, 99),
    time=st.integers(1, 9),
    units=SIZES,
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_weight_drop_equals_pytorchs_module_with_its_recurrent_matrices_masked(
    name, precision, share, seed, time, units, layers, bidirectional
):
    """One mask for each matrix in a forward pass, and none in evaluation (Merity et al. 2018)."""
    torch.manual_seed(seed)
    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": True}
    ours = MODULES[name][0](3, units, weight_dropout=share, **options).to(precision)
    theirs = MODULES[name][1](3, units, **options).to(precision)
    count = layers * (2 if bidirectional else 1)
    values = torch.randn(2, time, 3, dtype=precision)
    state = [torch.randn(count, 2, units, dtype=precision) for _ in range(1 + (name == "lstm"))]
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(seed)
    masks = {
        key: stacks.dropout(torch.ones_like(matrix), share, training=True)
        for key, matrix in theirs.named_parameters()
        if "weight_hh" in key
    }
    with torch.no_grad():
        for key, mask in masks.items():
            getattr(theirs, key).mul_(mask)
    torch.manual_seed(seed)
    found, expected = (results(module, values, state, {0, 1}) for module in (ours, theirs))
    names = [key for key, _ in sorted(ours.named_parameters())]
    first = len(found) - len(names)
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        if place >= first and names[place - first] in masks:  # by the chain rule
            other = other * masks[names[place - first]]
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    theirs.load_state_dict(ours.state_dict())
    first_state = tuple(state) if len(state) > 1 else state[0]
    one, other = (module(values, first_state)[0] for module in (ours.eval(), theirs))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_the_kernel_of_another_device_is_called_layer_by_layer_as_the_loops_are(name):
    module = MODULES[name][0](3, 4)
    state = tuple(torch.randn(2, 4) for _ in range(1 + (name == "lstm")))
    given_ = (torch.randn(5, 2, 3), state, module.all_weights[0])
    torch.testing.assert_close(module.on_device(*given_), module.layer(*given_))


@pytest.mark.parametrize("one_mask", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_dropout_acts_on_the_outputs_of_all_layers_but_the_last(monkeypatch, name, one_mask):
    seen = []

    def note(values, share, training, over=None):
        if values.dim() == 3:  # else a matrix
            seen.append((tuple(values.shape), share, training, over))
        return values

    monkeypatch.setattr(stacks, "dropout", note)
    options = {"dropout": 0.25, "one_mask": one_mask, "batch_first": True}
    module = MODULES[name][0](3, 4, num_layers=3, **options)
    zeros = torch.zeros(3, 2, 4)
    module(torch.zeros(2, 5, 3), (zeros, zeros) if name == "lstm" else zeros)
    module.eval()(torch.zeros(2, 5, 3), (zeros, zeros) if name == "lstm" else zeros)
    over = 0 if one_mask else None
    assert seen == [((5, 2, 4), 0.25, training, over) for training in (True, True, False, False)]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("small", [0, time_loops.SMALL])
def test_bfloat16_changes_outputs_and_gradients_by_little(monkeypatch, name, small):
    monkeypatch.setattr(time_loops, "SMALL", small)  # 0: the products of a step are rounded too
    torch.manual_seed(0)
    module = MODULES[name][0](8, 16, num_layers=2, batch_first=True)
    state = [torch.zeros(2, 4, 16) for _ in range(1 + (name == "lstm"))]
    values = torch.randn(4, 12, 8)
    expected = results(module, values, state, {0, 1})
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        found = results(module, values, state, {0, 1})
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.02 * other.norm()
    assert not torch.equal(found[0], expected[0])


def test_the_memory_of_an_lstm_adds_up_small_numbers_under_bfloat16():
    module = LSTMLayers(1, 1, batch_first=True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.bias_ih_l0[:] = torch.tensor([0.0, 30.0, 0.002, 0.0])  # i 1/2, f 1, g 0.002, o 1/2
    zeros = torch.zeros(1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        _, (_, memory) = module(torch.zeros(1, 2000, 1), (zeros, zeros))
    assert memory.item() == pytest.approx(2000 * 0.002 / 2, rel=1e-3)
