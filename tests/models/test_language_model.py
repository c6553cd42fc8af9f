"""Embedding, recurrence, softmax together."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from unroll.errors import Refused
from unroll.models.dropout import dropout
from unroll.models.language_model import LanguageModel
from unroll.models.precision import Precision
from unroll.registry import build

CELLS = ["rnn", "lstm", "gru"]
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
VOCABULARY, EMBEDDING, HIDDEN = 11, 3, 4
IDS = torch.tensor([[1, 4, 4, 10, 0], [9, 2, 7, 7, 3]])


@pytest.fixture
def model(composed):
    def model_(name: str = "lstm", **changes) -> LanguageModel:
        torch.manual_seed(7)
        sizes = {"embedding_size": EMBEDDING, "hidden_size": HIDDEN}
        config = replace(composed(f"model={name}").model, **(sizes | changes))
        return build("model", config, VOCABULARY)

    return model_


def recurrence(name: str, below: int) -> int:
    return GATES[name] * (HIDDEN * below + HIDDEN * HIDDEN + 2 * HIDDEN)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_parameters_are_as_many_as_the_closed_form_says(model, name, layers):
    embedding = VOCABULARY * EMBEDDING
    cells = recurrence(name, EMBEDDING) + (layers - 1) * recurrence(name, HIDDEN)
    softmax = HIDDEN * VOCABULARY + VOCABULARY
    assert model(name, layers=layers).parameter_count == embedding + cells + softmax


@pytest.mark.parametrize("name", CELLS)
def test_a_one_hot_model_has_no_embedding_to_count(model, name):
    softmax = HIDDEN * VOCABULARY + VOCABULARY
    assert model(name, one_hot=True).parameter_count == recurrence(name, VOCABULARY) + softmax


@pytest.mark.parametrize("name", CELLS)
def test_a_tied_matrix_is_shared_and_counts_once(model, name):
    tied = model(name, embedding_size=HIDDEN, tie_weights=True)
    assert next(tied.softmax.parameters()) is tied.embedding.weight
    matrix = VOCABULARY * HIDDEN
    assert tied.parameter_count == matrix + recurrence(name, HIDDEN) + VOCABULARY
    hidden, _ = tied(IDS, tied.initial_state(2))
    tied.softmax.loss(hidden.flatten(0, 1), IDS.flatten()).backward()
    torch.optim.SGD(tied.parameters(), lr=0.5).step()
    assert next(tied.softmax.parameters()) is tied.embedding.weight


def test_a_tied_matrix_starts_so_small_that_the_first_logits_are_of_order_one(model):
    torch.manual_seed(0)
    config = replace(model().config, embedding_size=256, hidden_size=256, tie_weights=True)
    tied = LanguageModel(config, 2000)
    assert tied.embedding.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)


@pytest.mark.parametrize("name", CELLS)
def test_a_model_is_its_embedding_its_cell_and_its_softmax(model, name):
    made = model(name, layers=2)
    hidden, _ = made(IDS, made.initial_state(2))
    vectors = torch.stack([made.embedding.weight[row] for row in IDS])
    expected, _ = made.cell(vectors, made.cell.initial_state(2))
    assert torch.equal(hidden, expected)
    weight, bias = made.softmax.parameters()
    logits = expected @ weight.T + bias
    assert torch.allclose(made.softmax.logits(hidden), logits, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_one_hot_input_equals_looking_up_columns_of_the_input_weights(model, name):
    made = model(name, one_hot=True)
    assert made.embedding is None
    hidden, _ = made(IDS, made.initial_state(2))
    lookup = build("cell/library", replace(made.config, one_hot=False), GATES[name] * HIDDEN)
    weights = made.cell.module.state_dict()
    table = weights["weight_ih_l0"].T.contiguous()  # a row for each token
    weights["weight_ih_l0"] = torch.eye(GATES[name] * HIDDEN)
    lookup.module.load_state_dict(weights)
    expected, _ = lookup(F.embedding(IDS, table), lookup.initial_state(2))
    assert torch.allclose(hidden, expected, atol=1e-6)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_models_state_carries_on_where_its_first_half_ended(model, name, one_hot):
    made = model(name, layers=2, one_hot=one_hot)
    whole, _ = made(IDS, made.initial_state(2))
    first, state = made(IDS[:, :2], made.initial_state(2))
    rows = torch.tensor([1, 0])
    second, _ = made(IDS[rows, 2:], made.select(made.detach(state), rows))
    assert torch.allclose(torch.cat([first, second[rows]], dim=1), whole, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_a_model_sees_no_token_ahead_unless_it_is_bidirectional(model, name):
    changed = IDS.clone()
    changed[:, -1] = 5
    for bidirectional in (False, True):
        made = model(name, bidirectional=bidirectional)
        here, _ = made(IDS, made.initial_state(2))
        there, _ = made(changed, made.initial_state(2))
        assert torch.equal(here[:, :-1], there[:, :-1]) != bidirectional
        assert made.bidirectional == bidirectional
        assert here.shape[-1] == HIDDEN * (2 if bidirectional else 1)
        assert made.softmax.logits(here).shape == (2, 5, VOCABULARY)


@pytest.mark.parametrize("place", ["dropout", "embedding_dropout", "output_dropout"])
def test_dropout_acts_in_training_and_not_in_evaluation(model, place):
    made = model(layers=2, **{place: 0.5})
    plain = model(layers=2)
    once, _ = made(IDS, made.initial_state(2))
    twice, _ = made(IDS, made.initial_state(2))
    assert not torch.equal(once, twice)
    made.eval()
    once, _ = made(IDS, made.initial_state(2))
    expected, _ = plain(IDS, plain.initial_state(2))
    assert torch.equal(once, expected)


@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("name", CELLS)
def test_variational_dropout_equals_the_model_with_its_three_masks_written_out(
    model, name, implementation
):
    """One mask for the embedding, one between the layers, one for the output, each the same at
    every step of a row (Gal and Ghahramani 2016)."""
    shares = {"embedding_dropout": 0.25, "dropout": 0.5, "output_dropout": 0.75}
    made = model(name, layers=2, dropout_mask="sequence", implementation=implementation, **shares)
    torch.manual_seed(3)
    hidden, _ = made(IDS, made.initial_state(2))
    torch.manual_seed(3)
    masks = [
        dropout(torch.ones(2, size), share, training=True).unsqueeze(1)
        for size, share in zip((EMBEDDING, HIDDEN, HIDDEN), shares.values(), strict=True)
    ]
    weights, inputs = made.cell.module.state_dict(), made.embedding(IDS) * masks[0]
    for layer, mask in enumerate(masks[1:]):
        size = inputs.shape[-1]
        one = build("cell/scratch", replace(made.config, layers=1, dropout=0.0), size)
        part = {key: value for key, value in weights.items() if key.endswith(f"_l{layer}")}
        one.module.load_state_dict({key[:-1] + "0": value for key, value in part.items()})
        inputs = one(inputs, one.initial_state(2))[0] * mask
    assert torch.allclose(hidden, inputs, atol=1e-6)


@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("last_size", [2, 6])
@pytest.mark.parametrize("name", CELLS)
def test_a_last_layer_of_another_size_equals_layers_of_their_own_sizes(
    model, name, last_size, implementation
):
    changes = {"initialization": "orthogonal", "implementation": implementation, "bias": "single"}
    if name == "lstm":
        changes["forget_gate_bias"] = 2.0
    made = model(name, layers=2, last_size=last_size, **changes)
    weights, hidden = made.cell.module.state_dict(), made.embedding(IDS)
    for layer, size in enumerate((HIDDEN, last_size)):
        plain = replace(made.config, layers=1, last_size=None, hidden_size=size)
        one = build("cell/scratch", plain, hidden.shape[-1])
        named = {key: value for key, value in weights.items() if f"_l{layer}" in key}
        one.module.load_state_dict(
            {key.replace(f"_l{layer}", "_l0"): value for key, value in named.items()}
        )
        hidden = one(hidden, one.initial_state(2))[0]
        for gate in weights[f"weight_hh_l{layer}"].split(size):
            assert torch.allclose(gate @ gate.T, torch.eye(size), atol=1e-5)
        if name == "lstm":
            assert bool((weights[f"bias_ih_l{layer}"][size : 2 * size] == 2).all())
    state, steps = made.initial_state(2), []
    with torch.inference_mode():
        for part in (IDS[:, :3], IDS[:, 3:4], IDS[:, 4:]):  # the state is carried
            step, state = made(part, state)
            steps.append(step)
    assert torch.allclose(torch.cat(steps, dim=1), hidden, atol=1e-6)
    tied = model(
        name, layers=2, last_size=last_size, embedding_size=last_size, tie_weights=True, **changes
    )
    numbers = VOCABULARY * (last_size + 1)
    for below, size in ((last_size, HIDDEN), (HIDDEN, last_size)):
        numbers += GATES[name] * size * (below + size + 1)
    assert tied.parameter_count == numbers


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_layer_norm_and_residual_equal_the_layers_written_out(
    model, name, bidirectional, layer_norm, residual
):
    """h_1 = layer_1(x); above, h_l = layer_l(norm(h_(l-1))) + h_(l-1), with norm = (h - mean) /
    sqrt(variance + 1e-5) * gain + bias (Ba et al. 2016), for sequences and for single steps."""
    parts = {"layer_norm": layer_norm, "residual": residual, "bidirectional": bidirectional}
    made = model(name, layers=3, **parts)
    with torch.no_grad():
        for number, norm in enumerate(made.cell.module.norms):
            norm.weight.copy_(torch.linspace(0.5, 2 + number, norm.weight.numel()))
            norm.bias.copy_(torch.linspace(-1, number, norm.bias.numel()))
    weights, hidden = made.cell.module.state_dict(), made.embedding(IDS)
    for layer in range(3):
        below = hidden
        if layer and layer_norm:
            centered = hidden - hidden.mean(-1, keepdim=True)
            spread = (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            gain, bias = (weights[f"norms.{layer - 1}.{key}"] for key in ("weight", "bias"))
            hidden = centered / spread * gain + bias
        plain = replace(made.config, layers=1, layer_norm=False, residual=False)
        one = build("cell/scratch", plain, hidden.shape[-1])
        named = {key: value for key, value in weights.items() if f"_l{layer}" in key}
        one.module.load_state_dict(
            {key.replace(f"_l{layer}", "_l0"): value for key, value in named.items()}
        )
        hidden = one(hidden, one.initial_state(2))[0]
        hidden = hidden + below if layer and residual else hidden
    found, _ = made(IDS, made.initial_state(2))
    assert torch.allclose(found, hidden, atol=1e-5)
    if not bidirectional:
        state = made.initial_state(2)
        with torch.inference_mode():
            for place in range(IDS.shape[1]):
                step, state = made(IDS[:, place : place + 1], state)
                assert torch.allclose(step[:, 0], hidden[:, place], atol=1e-5)
    normal = model(name, layers=3, initialization="normal", **parts)
    assert all(bool((norm.weight == 1).all()) for norm in normal.cell.module.norms)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_word_dropout_drops_or_scales_rows_of_the_embedding_for_a_whole_batch(
    model, seed, share, one_hot
):
    """The model with its embedding matrix multiplied by a mask of its rows, as in equation and
    code of Merity et al. 2018; a one-hot vector is a row of the identity."""
    made, twin = (model(word_dropout=p, one_hot=one_hot) for p in (share, 0.0))
    torch.manual_seed(seed)
    mask = dropout(torch.ones(VOCABULARY, 1), share, training=True)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)], rel=1e-4)
    with torch.no_grad():
        if one_hot:
            twin.cell.module.weight_ih_l0.mul_(mask.T)
        else:
            twin.embedding.weight.mul_(mask)
    torch.manual_seed(seed)
    hidden, expected = (one(IDS, one.initial_state(2))[0] for one in (made, twin))
    assert torch.allclose(hidden, expected, atol=1e-6)
    if not one_hot:
        hidden.sum().backward(), expected.sum().backward()
        gradient = twin.embedding.weight.grad * mask
        assert torch.allclose(made.embedding.weight.grad, gradient, atol=1e-6)
    plain = model(one_hot=one_hot)
    hidden, expected = (one.eval()(IDS, one.initial_state(2))[0] for one in (made, plain))
    assert torch.equal(hidden, expected)


@pytest.mark.parametrize("bias", ["single", "double"])
@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("initialization", ["default", "orthogonal", "normal"])
def test_the_forget_gate_bias_survives_every_initialization(
    model, initialization, implementation, bias
):
    changes = {"initialization": initialization, "implementation": implementation, "bias": bias}
    made = model(forget_gate_bias=1.5, layers=2, **changes)
    plain = model(forget_gate_bias=None, layers=2, **changes)
    module, forget_gate = made.cell.module, slice(HIDDEN, 2 * HIDDEN)
    for layer in range(2):
        total = getattr(module, f"bias_ih_l{layer}") + getattr(module, f"bias_hh_l{layer}")
        assert torch.equal(total[forget_gate], torch.full((HIDDEN,), 1.5))
    for (name, found), drawn in zip(made.named_parameters(), plain.parameters(), strict=True):
        if "cell.module.bias" in name:
            found, drawn = found.detach().clone(), drawn.detach().clone()
            found[forget_gate] = drawn[forget_gate] = 0
        assert torch.equal(found, drawn)


@pytest.mark.parametrize("implementation", ["library", "scratch"])
@pytest.mark.parametrize("name", CELLS)
def test_training_with_a_single_bias_leaves_the_second_one_at_zero(model, name, implementation):
    made = model(name, layers=2, bias="single", implementation=implementation)
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(2):
        hidden, _ = made(IDS, made.initial_state(2))
        made.softmax.loss(hidden.flatten(0, 1), IDS.flatten()).backward()
        optimizer.step()
    assert not any("bias_hh" in key for key, _ in made.named_parameters())
    for layer in range(2):
        second = getattr(made.cell.module, f"bias_hh_l{layer}")
        assert torch.equal(second, torch.zeros(GATES[name] * HIDDEN))
    for parameter in made.cell.parameters():
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("implementation", ["library", "scratch"])
def test_weights_of_a_single_bias_load_into_either_implementation_and_survive_a_copy(
    model, implementation
):
    made = model(bias="single", implementation="library")
    other = model(bias="single", implementation=implementation, initialization="normal")
    assert not any("bias_hh" in key for key in made.state_dict())
    other.load_state_dict(made.state_dict())
    hidden, _ = made(IDS, made.initial_state(2))
    for one in (other, copy.deepcopy(other), copy.deepcopy(other).double()):
        found, _ = one(IDS, one.initial_state(2))
        assert torch.allclose(found.float(), hidden, atol=1e-6)


@pytest.mark.parametrize("name", [*CELLS, "ngram"])
def test_every_model_is_built_with_a_precision(composed, name):
    config = composed(f"model={name}").model
    assert build("model", config, VOCABULARY, "float32").vocabulary_size == VOCABULARY


def test_an_unknown_precision_is_refused(composed):
    with pytest.raises(Refused, match="unknown precision 'float23': did you mean 'float32'"):
        LanguageModel(composed().model, VOCABULARY, "float23")


@pytest.mark.parametrize("one_hot", [False, True])
def test_every_product_of_a_model_runs_under_its_precision(model, monkeypatch, one_hot):
    under, entered = [], []

    @contextmanager
    def note(self, device):
        entered.append(device)
        under.append(device)
        yield
        under.pop()

    monkeypatch.setattr(Precision, "products", note)
    made, seen = model(one_hot=one_hot), []
    modules = [made.cell.module, *(m for m in made.softmax.modules() if not list(m.children()))]
    for module in modules:
        module.register_forward_hook(lambda *_: seen.append(list(under)))
    hidden, _ = made(IDS, made.initial_state(2))
    rows, targets = hidden.flatten(0, 1), IDS.flatten()
    made.softmax.loss(rows, targets)
    made.softmax.score(rows, targets)
    made.softmax.log_probabilities(rows)
    made.softmax.logits(rows)
    made.softmax.draw(rows, 1.0, 3, torch.Generator())
    # loss and score multiply in blocks, without calling the linear layer
    assert seen == [[torch.device("cpu")]] * 4
    assert entered == [torch.device("cpu")] * 6
    assert under == []


def test_the_same_seed_draws_the_same_model(model):
    assert all(map(torch.equal, model().parameters(), model().parameters()))


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 30_000_000},
        {"embedding_size": 10**14},
        {"hidden_size": 10**11},
        {"hidden_size": 10**19},
    ],
    ids=lambda sizes: "-".join(f"{key}={value:.0e}" for key, value in sizes.items()),
)
def test_a_model_larger_than_the_memory_is_refused_with_its_sizes(model, sizes):
    with pytest.raises(Refused) as refused:
        model("gru", **sizes)
    line = str(refused.value)
    assert "does not fit into memory" in line
    for key, value in sizes.items():
        assert f"model.{key}={value}" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tie_weights": True}, r"set model\.embedding_size=4"),
        ({"tie_weights": True, "embedding_size": 4, "bidirectional": True}, "embedding_size=8"),
        ({"tie_weights": True, "embedding_size": 4, "one_hot": True}, r"model\.one_hot=false"),
        ({"hidden_size": 0}, r"model\.hidden_size=0"),
        ({"layers": 0}, r"model\.layers=0"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
        ({"initialization": "orthogonl"}, "did you mean 'orthogonal'"),
        ({"bias": "singel"}, "did you mean 'single'"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused_with_what_to_change(model, changes, message):
    with pytest.raises(Refused, match=message):
        model(**changes)
