"""The cells, compared with their equations in plain PyTorch."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unroll.registry import build

CELLS = ["rnn", "lstm", "gru"]
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
INPUT, HIDDEN, BATCH, TIME = 3, 4, 5, 6


@pytest.fixture
def cell(composed):
    def cell_(name: str, input_size: int = INPUT, **changes):
        torch.manual_seed(7)
        config = replace(composed(f"model={name}").model, hidden_size=HIDDEN, **changes)
        return build("cell/library", config, input_size)

    return cell_


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(BATCH, TIME, INPUT, generator=torch.Generator().manual_seed(1))


def parts(state) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, atol=1e-6)


def plain_cell(name: str, module: nn.RNNBase, inputs: Tensor, activation=torch.tanh) -> Tensor:
    """One layer, one direction, from a state of zeros."""
    w_ih, w_hh, b_ih, *second = (parameter.detach() for parameter in module.parameters())
    b_hh = second[0] if second else torch.zeros_like(b_ih)
    h = c = torch.zeros(len(inputs), w_hh.shape[1])
    outputs = []
    for x in inputs.unbind(dim=1):
        given, kept = x @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        if name == "rnn":
            h = activation(given + kept)
        elif name == "lstm":
            i, f, g, o = (given + kept).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        else:
            r_in, z_in, n_in = given.chunk(3, dim=1)
            r_hidden, z_hidden, n_hidden = kept.chunk(3, dim=1)
            r, z = torch.sigmoid(r_in + r_hidden), torch.sigmoid(z_in + z_hidden)
            h = (1 - z) * torch.tanh(n_in + r * n_hidden) + z * h
        outputs.append(h)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("bias", ["double", "single"])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_computes_its_equations(cell, inputs, name, bias):
    made = cell(name, bias=bias)
    hidden, _ = made(inputs, made.initial_state(BATCH))
    assert close(hidden, plain_cell(name, made.module, inputs))


def test_an_rnn_may_use_relu_in_place_of_tanh(cell, inputs):
    made = cell("rnn", nonlinearity="relu")
    hidden, _ = made(inputs, made.initial_state(BATCH))
    assert close(hidden, plain_cell("rnn", made.module, inputs, torch.relu))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_equals_the_torch_module_of_its_name(cell, inputs, name, layers, bidirectional):
    made = cell(name, layers=layers, bidirectional=bidirectional)
    module = MODULES[name](
        INPUT, HIDDEN, num_layers=layers, batch_first=True, bidirectional=bidirectional
    )
    module.load_state_dict(made.module.state_dict())
    hidden, state = made(inputs, made.initial_state(BATCH))
    expected, last = module(inputs)
    assert close(hidden, expected)
    assert all(map(close, parts(state), parts(last)))
    assert hidden.shape == (BATCH, TIME, made.width)
    assert made.width == HIDDEN * (2 if bidirectional else 1)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_a_state_carried_over_two_halves_equals_one_pass(cell, inputs, name, layers):
    made = cell(name, layers=layers)
    whole, last = made(inputs, made.initial_state(BATCH))
    first, state = made(inputs[:, :2], made.initial_state(BATCH))
    second, state = made(inputs[:, 2:], made.detach(state))
    assert close(torch.cat([first, second], dim=1), whole)
    assert all(map(close, parts(state), parts(last)))
    fresh, _ = made(inputs[:, 2:], made.initial_state(BATCH))
    assert not close(fresh, second)


@pytest.mark.parametrize("name", CELLS)
def test_detaching_the_state_cuts_the_gradient_and_nothing_else_does(cell, inputs, name):
    made = cell(name)

    def gradient(detached: bool) -> Tensor | None:
        early = inputs[:, :3].clone().requires_grad_()
        _, state = made(early, made.initial_state(BATCH))
        if detached:
            state = made.detach(state)
        hidden, _ = made(inputs[:, 3:], state)
        hidden.sum().backward()
        return early.grad

    assert gradient(detached=True) is None
    kept = gradient(detached=False)
    assert kept is not None
    assert kept.abs().sum() > 0


@pytest.mark.parametrize("name", CELLS)
def test_a_detached_state_has_the_same_values(cell, inputs, name):
    made = cell(name, layers=2)
    _, state = made(inputs, made.initial_state(BATCH))
    assert all(map(torch.equal, parts(state), parts(made.detach(state))))


@pytest.mark.parametrize("name", CELLS)
def test_selected_rows_of_a_state_go_on_as_those_rows_would(cell, inputs, name):
    made = cell(name, layers=2)
    rows = torch.tensor([3, 0, 0])
    _, state = made(inputs[:, :3], made.initial_state(BATCH))
    selected = made.select(state, rows)
    assert all(part.shape == (2, 3, HIDDEN) for part in parts(selected))
    hidden, _ = made(inputs[rows, 3:], selected)
    whole, _ = made(inputs, made.initial_state(BATCH))
    assert close(hidden, whole[rows, 3:])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_parameters_are_as_many_as_the_closed_form_says(cell, name, layers, bidirectional):
    directions = 2 if bidirectional else 1
    expected = 0
    for layer in range(layers):
        below = INPUT if layer == 0 else HIDDEN * directions
        recurrence = HIDDEN * below + HIDDEN * HIDDEN + 2 * HIDDEN
        expected += directions * GATES[name] * recurrence
    made = cell(name, layers=layers, bidirectional=bidirectional)
    assert sum(parameter.numel() for parameter in made.parameters()) == expected


def test_two_rnn_layers_of_three_units_on_one_input_have_42_parameters(composed):
    config = replace(composed("model=rnn").model, hidden_size=3, layers=2)
    made = build("cell/library", config, 1)
    assert sum(parameter.numel() for parameter in made.parameters()) == 15 + 21 + 2 * 3
    assert sum(parameter.numel() for parameter in nn.Linear(3, 1).parameters()) == 4


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_orthogonal_recurrent_matrices_are_orthogonal_gate_by_gate(cell, name, bidirectional):
    made = cell(name, layers=2, initialization="orthogonal", bidirectional=bidirectional)
    matrices = [p for key, p in made.module.named_parameters() if key.startswith("weight_hh")]
    assert len(matrices) == 2 * (2 if bidirectional else 1)
    for matrix in matrices:
        assert matrix.shape == (GATES[name] * HIDDEN, HIDDEN)
        for gate in matrix.detach().split(HIDDEN):
            assert close(gate @ gate.T, torch.eye(HIDDEN))
            assert not close(gate, torch.eye(HIDDEN))
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_the_default_initialization_is_uniform_within_one_over_the_root_of_the_width(cell):
    values = torch.cat([p.detach().flatten() for p in cell("lstm", layers=3).parameters()])
    assert values.abs().max() <= HIDDEN**-0.5
    assert values.abs().max() > 0.9 * HIDDEN**-0.5


@pytest.mark.parametrize("name", CELLS)
def test_a_single_bias_equals_two_with_the_second_at_zero(cell, inputs, name):
    single, double = (cell(name, layers=2, bias=bias) for bias in ("single", "double"))
    zeros = {
        key: torch.zeros_like(value)
        for key, value in double.module.state_dict().items()
        if key.startswith("bias_hh")
    }
    assert len(zeros) == 2
    double.module.load_state_dict(single.module.state_dict() | zeros)
    for one, other in zip(
        single(inputs, single.initial_state(BATCH)),
        double(inputs, double.initial_state(BATCH)),
        strict=True,
    ):
        assert all(map(torch.equal, parts(one), parts(other)))


@pytest.mark.parametrize("bias", [1.0, -2.5, 0.0])
def test_with_a_single_bias_the_forget_gates_is_the_whole_value(cell, bias):
    module = cell("lstm", layers=2, bias="single", forget_gate_bias=bias).module
    for layer in range(2):
        found = getattr(module, f"bias_ih_l{layer}")
        assert torch.equal(found[HIDDEN : 2 * HIDDEN], torch.full((HIDDEN,), bias))
        assert not torch.any(torch.cat([found[:HIDDEN], found[2 * HIDDEN :]]) == bias)


@pytest.mark.parametrize("bias", [1.0, -2.5, 0.0])
def test_the_forget_gates_two_biases_sum_to_the_value_given(cell, bias):
    module = cell("lstm", layers=2, bidirectional=True, forget_gate_bias=bias).module
    values = dict(module.named_parameters())
    for suffix in ("l0", "l1", "l0_reverse", "l1_reverse"):
        total = values[f"bias_ih_{suffix}"] + values[f"bias_hh_{suffix}"]
        assert torch.equal(total[HIDDEN : 2 * HIDDEN], torch.full((HIDDEN,), bias))
        others = torch.cat([total[:HIDDEN], total[2 * HIDDEN :]])
        assert not torch.any(others == bias)


def test_the_forget_gates_bias_stays_as_drawn_where_none_is_given(cell):
    drawn = cell("lstm", forget_gate_bias=None).module
    torch.manual_seed(7)
    plain = nn.LSTM(INPUT, HIDDEN, batch_first=True)
    assert all(map(torch.equal, drawn.parameters(), plain.parameters()))


@pytest.mark.parametrize("name", CELLS)
def test_the_first_state_is_zeros_for_every_layer_direction_and_row(cell, name):
    state = cell(name, layers=2, bidirectional=True).initial_state(5)
    assert len(parts(state)) == (2 if name == "lstm" else 1)
    for part in parts(state):
        assert torch.equal(part, torch.zeros(4, 5, HIDDEN))


def test_dropout_lies_between_layers_so_that_one_layer_has_none(cell, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = cell("lstm", layers=1, dropout=0.5)
    two = cell("lstm", layers=2, dropout=0.5)
    for made, moves in ((one, False), (two, True)):
        first, _ = made(inputs, made.initial_state(BATCH))
        second, _ = made(inputs, made.initial_state(BATCH))
        assert torch.equal(first, second) != moves
