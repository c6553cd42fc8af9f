"""Activation regularization: the formula, its gradient, and what is reported."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from unroll.models.dropout import dropout

ROWS, LENGTH, COLUMN = 3, 5, 40  # 120 tokens in three columns
PIECES = ["training/truncation=fixed", "training.truncation.steps=2"]


def written_out(model, tokens, alpha, beta, share):
    """The loss of the first batch of the stream, and that loss with both penalties, number by
    number."""
    rows = [tokens[COLUMN * row :] for row in range(ROWS)]
    inputs = torch.tensor([row[:LENGTH] for row in rows])
    targets = torch.tensor([row[1 : LENGTH + 1] for row in rows])
    hidden, _ = model.cell(model.embedding(inputs), model.initial_state(ROWS))
    steps = hidden.unbind(1)
    dropped = dropout(torch.stack(steps), share, training=True)
    logits = model.softmax.logits(dropped.transpose(0, 1)).flatten(0, 1)
    loss = F.cross_entropy(logits, targets.flatten())
    squares = [value**2 for value in dropped.flatten()]
    changes = [((after - before) ** 2).mean() for before, after in pairwise(steps)]
    return loss, loss + alpha * sum(squares) / len(squares) + beta * sum(changes) / len(changes)


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.0), (0.0, 1.0), (2.0, 1.0), (0.3, 7.0)])
def test_a_step_descends_the_loss_with_the_penalties_and_reports_it_without(
    training, stream, alpha, beta, share
):
    settings = {"model": {"output_dropout": share}, "max_steps": 1}
    weights = {"activation_regularization": alpha, "temporal_activation_regularization": beta}
    made, twin = training(**settings, **weights), training(**settings).model
    torch.manual_seed(4)
    outcome = made.trainer.fit()
    torch.manual_seed(4)
    loss, whole = written_out(twin, stream.tokens.tolist(), alpha, beta, share)
    assert outcome.train_loss == pytest.approx(loss.item(), rel=1e-5)
    whole.backward()
    torch.optim.SGD(twin.parameters(), lr=0.5).step()
    for found, expected in zip(made.parameters, twin.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_the_changes_between_the_pieces_of_a_truncated_sequence_count_too(training, stream):
    made = training(*PIECES, temporal_activation_regularization=1.0)
    inputs = torch.tensor(stream.tokens[: 3 * LENGTH].reshape(ROWS, LENGTH).tolist())
    made.model.train()
    hidden, _ = made.trainer.truncation.unroll(made.model, inputs, made.model.initial_state(ROWS))
    found = made.trainer.penalty.added_to(torch.zeros(()))
    expected = ((hidden[:, 1:] - hidden[:, :-1]) ** 2).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert made.trainer.penalty.added_to(torch.zeros(())).item() == 0


def test_validation_and_a_single_step_add_no_penalty(training):
    made = training(temporal_activation_regularization=1.0)
    state = made.model.initial_state(2)
    made.model.eval()(torch.zeros(2, 3, dtype=torch.int64), state)
    assert made.trainer.penalty.added_to(torch.ones(())).item() == 1
    made.model.train()(torch.zeros(2, 1, dtype=torch.int64), state)
    assert made.trainer.penalty.added_to(torch.ones(())).item() == 1
