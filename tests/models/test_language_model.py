"""Embedding, recurrence, softmax together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from unroll.errors import Refused
from unroll.models.language_model import LanguageModel
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
    assert tied.softmax.linear.weight is tied.embedding.weight
    matrix = VOCABULARY * HIDDEN
    assert tied.parameter_count == matrix + recurrence(name, HIDDEN) + VOCABULARY
    hidden, _ = tied(IDS, tied.initial_state(2))
    tied.softmax.loss(hidden.flatten(0, 1), IDS.flatten()).backward()
    torch.optim.SGD(tied.parameters(), lr=0.5).step()
    assert torch.equal(tied.softmax.linear.weight, tied.embedding.weight)


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
    logits = expected @ made.softmax.linear.weight.T + made.softmax.linear.bias
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
def test_a_model_that_no_memory_holds_is_refused_with_its_sizes(model, sizes):
    with pytest.raises(Refused) as refused:
        model("gru", **sizes)
    line = str(refused.value)
    assert "does not fit into memory" in line
    for key, value in sizes.items():
        assert f"model.{key}={value}" in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tie_weights": True}, r"set model\.embedding_size=4"),
        ({"tie_weights": True, "embedding_size": 4, "bidirectional": True}, "embedding_size=8"),
        ({"tie_weights": True, "embedding_size": 4, "one_hot": True}, r"model\.one_hot=false"),
        ({"hidden_size": 0}, r"model\.hidden_size=0"),
        ({"layers": 0}, r"model\.layers=0"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
        ({"initialization": "orthogonl"}, "did you mean 'orthogonal'"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused_with_what_to_change(model, changes, said):
    with pytest.raises(Refused, match=said):
        model(**changes)
