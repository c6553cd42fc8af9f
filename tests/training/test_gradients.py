"""Gradients kept as rows give the steps of dense ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unroll.errors import Refused
from unroll.registry import build
from unroll.training import gradients
from unroll.training.gradients import KeptGradient, clip_gradients, merge_rows

ROWS, WIDTH = 9, 3
IDS = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=20)


def row_gradient(ids: list[int], seed: int = 0) -> torch.Tensor:
    """As ``nn.Embedding(sparse=True)`` leaves it: one entry for each id that was read."""
    values = torch.randn(len(ids), WIDTH, generator=torch.Generator().manual_seed(seed))
    place = torch.tensor([ids])
    return torch.sparse_coo_tensor(place, values, (ROWS, WIDTH), check_invariants=True)


@settings(max_examples=60, deadline=None)
@given(IDS)
def test_merged_rows_are_the_same_gradient_and_their_norm_is_its_norm(ids):
    gradient = row_gradient(ids)
    merged = merge_rows(gradient)
    assert torch.allclose(merged.to_dense(), gradient.to_dense(), atol=1e-6)
    assert float(merged._values().norm()) == pytest.approx(float(gradient.to_dense().norm()))
    assert merged._values().shape == gradient._values().shape, "known without reading the ids"


@settings(max_examples=60, deadline=None)
@given(IDS, st.sampled_from([0.01, 1.0, 100.0, None]))
def test_clipping_rows_and_matrices_equals_clipping_matrices(ids, bound):
    embedding, weights = (nn.Parameter(torch.zeros(ROWS, WIDTH)) for _ in range(2))
    twins = [nn.Parameter(torch.zeros(ROWS, WIDTH)) for _ in range(2)]
    embedding.grad, weights.grad = row_gradient(ids), torch.randn(ROWS, WIDTH)
    twins[0].grad, twins[1].grad = embedding.grad.to_dense(), weights.grad.clone()
    norm = clip_gradients([embedding, weights, nn.Parameter(torch.zeros(2))], bound)
    expected = nn.utils.clip_grad_norm_(twins, math.inf if bound is None else bound)
    assert float(norm) == pytest.approx(float(expected))
    assert torch.allclose(embedding.grad.to_dense(), twins[0].grad, atol=1e-6)
    assert torch.allclose(weights.grad, twins[1].grad, atol=1e-6)


def test_gradients_are_not_touched_without_a_bound():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([math.inf, 1.0])
    clip_gradients([parameter], None)
    assert parameter.grad.tolist() == [math.inf, 1.0]


def test_a_kept_gradient_holds_only_the_rows_of_its_step():
    embedding = nn.Parameter(torch.zeros(ROWS, WIDTH))
    kept = KeptGradient(embedding)
    for seed, ids in enumerate([[1, 1, 4], [4, 7], [0]]):
        embedding.grad = row_gradient(ids, seed)
        expected = embedding.grad.to_dense()
        with kept:
            assert torch.equal(embedding.grad, expected)
        assert embedding.grad is None


# Whole trainings


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["optimizer=sgd"], {"clip_norm": 0.1}),
        (["optimizer=sgd"], {"accumulation": 3, "clip_norm": 0.1}),
        (["optimizer=sgd"], {"optimizer": {"momentum": 0.9, "learning_rate": 0.05}}),
        (["optimizer=sgd"], {"optimizer": {"weight_decay": 0.1}}),
        (["optimizer=adam"], {"accumulation": 2}),
        (["optimizer=adam"], {"optimizer": {"weight_decay": 0.1, "learning_rate": 0.01}}),
        (["optimizer=adamw"], {"clip_norm": 0.1}),
        (["optimizer=sgd"], {"model": {"tie_weights": True}}),
        (["optimizer=sgd"], {"model": {"one_hot": True}}),
        (["training/truncation=fixed", "training.truncation.steps=2"], {}),
    ],
    ids=str,
)
def test_a_training_with_row_gradients_equals_one_with_dense_gradients(
    training, monkeypatch, words, settings
):
    rates = {"optimizer": {"learning_rate": 0.05}}
    dense = training(*words, **(rates | settings))
    monkeypatch.setattr(gradients, "SPARSE_FROM", 1)
    rows = training(*words, **(rates | settings))
    changed = settings.get("model", {})
    if rows.model.embedding is not None:
        assert rows.model.embedding.sparse == ("tie_weights" not in changed)
        assert not dense.model.embedding.sparse
    dense.trainer.fit()
    rows.trainer.fit()
    for name in ("train/loss", "grad_norm"):
        expected = [value for _, value in dense.curve(name)]
        assert [value for _, value in rows.curve(name)] == pytest.approx(expected, rel=1e-4)
    for first, second in zip(rows.parameters, dense.parameters, strict=True):
        assert torch.allclose(first, second, atol=1e-5)


# Adam of the touched rows


def touched(composed, learning_rate: float = 0.1):
    config = composed("optimizer=adam", "optimizer.embedding_rows=touched").optimizer
    return replace(config, learning_rate=learning_rate)


@settings(max_examples=30, deadline=None)
@given(st.lists(IDS, min_size=1, max_size=5), st.sampled_from([(0.9, 0.999), (0.0, 0.5)]))
def test_touched_rows_take_the_steps_of_torchs_sparse_adam(composed, steps, betas):
    config = replace(touched(composed), beta1=betas[0], beta2=betas[1])
    start = torch.randn(ROWS, WIDTH)
    ours, twin = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = build("optimizer", config, [ours])
    sparse_adam = torch.optim.SparseAdam([twin], lr=0.1, betas=betas)
    for seed, ids in enumerate(steps):
        twin.grad = row_gradient(ids, seed)
        ours.grad = merge_rows(row_gradient(ids, seed))
        before = ours.detach().clone()
        sparse_adam.step()
        optimizer.step()
        assert torch.allclose(ours, twin, atol=1e-5)
        still = [row for row in range(ROWS) if row not in ids]
        assert torch.equal(ours[still], before[still])


def test_touched_rows_do_not_change_the_steps_of_the_other_weights(composed):
    dense, twin = (nn.Parameter(torch.ones(4)) for _ in range(2))
    optimizer = build("optimizer", touched(composed), [dense])
    adam = torch.optim.Adam([twin], lr=0.1)
    for gradient in torch.randn(5, 4):
        dense.grad, twin.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        adam.step()
    assert torch.allclose(dense, twin, atol=1e-6)


def test_with_touched_rows_only_the_words_of_the_batches_move(training):
    made = training("optimizer=adam", "optimizer.embedding_rows=touched", max_steps=1,
                    batching={"length": 2, "batch_size": 1})  # fmt: skip
    before = made.model.embedding.weight.detach().clone()
    seen = made.trainer.stream.tokens[:2].tolist()
    made.trainer.fit()
    moved = (made.model.embedding.weight != before).any(dim=1)
    assert set(moved.nonzero().flatten().tolist()) == set(seen)


def test_touched_rows_are_refused_with_weight_decay_and_without_their_own_matrix(
    training, composed
):
    with pytest.raises(Refused, match=r"optimizer\.weight_decay=0\.1: .*=touched has no weight"):
        replace(touched(composed), weight_decay=0.1)
    with pytest.raises(Refused, match=r"known: all, touched"):
        replace(touched(composed), embedding_rows="some")
    words = ["optimizer=adam", "optimizer.embedding_rows=touched"]
    for changes in ({"tie_weights": True}, {"one_hot": True}):
        with pytest.raises(Refused, match=r"embedding_rows=touched needs learned embeddings"):
            training(*words, model=changes)
