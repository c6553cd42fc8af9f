"""The training loop, against a loop written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unroll.data.token_stream import TokenStream
from unroll.errors import Diverged, Refused
from unroll.models.language_model import LanguageModel

VOCABULARY = 12
LENGTH, ROWS = 5, 3
PER_EPOCH = 7  # sequential batches in an epoch
WINDOWS = 100  # in the documents of the stream


def same(first: list[torch.Tensor], second: list[torch.Tensor], atol: float = 0.0) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=atol) for a, b in zip(first, second, strict=True))


# The loop written out


def plain_loop(
    ids: list[int],
    model: LanguageModel,
    rate: float,
    clip: float | None,
    epochs: int,
    carried: bool = True,
) -> tuple[list[float], list[float]]:
    """Sequential batches, state carried and cut, SGD: losses and gradient norms of the steps."""
    column = len(ids) // ROWS
    losses, norms = [], []
    for _ in range(epochs):
        state = model.initial_state(ROWS)
        for start in range(0, column - LENGTH, LENGTH):
            if not carried:
                state = model.initial_state(ROWS)
            places = [row * column + start for row in range(ROWS)]
            inputs = torch.tensor([ids[place : place + LENGTH] for place in places])
            targets = torch.tensor([ids[place + 1 : place + LENGTH + 1] for place in places])
            hidden, state = model(inputs, state)
            loss = F.cross_entropy(model.softmax.logits(hidden).flatten(0, 1), targets.flatten())
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            state = state.detach()
            norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
            shrunk = 1.0 if clip is None else min(1.0, clip / norm)
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= rate * shrunk * gradient
            losses.append(loss.item())
            norms.append(norm)
    return losses, norms


@pytest.mark.parametrize("clip", [None, 0.2, 100.0])
def test_carried_state_training_equals_the_loop_written_out(training, stream, clip):
    made, twin = training(clip_norm=clip), training().model
    outcome = made.trainer.fit()
    losses, norms = plain_loop(stream.tokens.tolist(), twin, 0.5, clip, epochs=2)
    assert len(losses) == outcome.steps == 2 * PER_EPOCH
    assert same(made.parameters, list(twin.parameters()), atol=1e-5)
    assert [value for _, value in made.curve("train/loss")] == pytest.approx(losses, rel=1e-4)
    assert [value for _, value in made.curve("grad_norm")] == pytest.approx(norms, rel=1e-3)
    assert [step for step, _ in made.curve("train/loss")] == list(range(1, 2 * PER_EPOCH + 1))
    assert outcome.train_loss == pytest.approx(sum(losses[PER_EPOCH:]) / PER_EPOCH, rel=1e-4)
    assert outcome.tokens == 2 * PER_EPOCH * ROWS * LENGTH


def test_the_plain_loop_differs_between_a_carried_and_a_fresh_state(training, stream):
    carried, _ = plain_loop(stream.tokens.tolist(), training().model, 0.5, None, epochs=1)
    fresh, _ = plain_loop(
        stream.tokens.tolist(), training().model, 0.5, None, epochs=1, carried=False
    )
    assert carried[0] == fresh[0]
    assert carried[1:] != pytest.approx(fresh[1:], rel=1e-3)


def test_windows_learn_from_their_last_position_alone(training, stream):
    """One step over all windows in one batch equals a step written out on the last positions."""
    made = training(
        "data/batching=windows", batching={"batch_size": WINDOWS, "shuffle": False}, max_steps=1
    )
    twin = training().model
    documents = stream.tokens.reshape(4, 30).tolist()
    inputs = [words[i : i + LENGTH] for words in documents for i in range(25)]
    targets = [words[i + LENGTH] for words in documents for i in range(25)]
    hidden, _ = twin(torch.tensor(inputs), twin.initial_state(WINDOWS))
    loss = F.cross_entropy(twin.softmax.logits(hidden[:, -1]), torch.tensor(targets))
    loss.backward()
    torch.optim.SGD(twin.parameters(), lr=0.5).step()
    outcome = made.trainer.fit()
    assert same(made.parameters, list(twin.parameters()), atol=1e-6)
    assert outcome.train_loss == pytest.approx(loss.item(), rel=1e-5)
    assert outcome.tokens == WINDOWS


def test_the_softmax_is_computed_only_at_positions_that_are_scored(training, monkeypatch):
    made = training("data/batching=windows", batching={"batch_size": 10}, epochs=1)
    loss, computed = made.model.softmax.loss, []
    monkeypatch.setattr(
        made.model.softmax, "loss", lambda h, t: (computed.append(h.shape), loss(h, t))[1]
    )
    made.trainer.fit()
    assert computed == [(10, 4)] * (WINDOWS // 10)


# The same seed


@pytest.mark.parametrize("batching", ["sequential", "random", "windows"])
def test_the_same_seed_gives_the_same_history_and_the_same_model(training, batching):
    settings = {"model": {"output_dropout": 0.3}, "losses": [3.0, 2.0]}
    first, again, other = (
        training(f"data/batching={batching}", seed=seed, **settings) for seed in (1, 1, 2)
    )
    for made in (first, again, other):
        torch.manual_seed(5)  # of dropout
        made.trainer.fit()
    assert first.history == again.history
    assert same(first.parameters, again.parameters)
    assert first.history != other.history


def test_the_history_is_what_was_logged(training):
    made = training(losses=[3.0, 2.0], log_every=3)
    made.trainer.fit()
    logged: dict[str, list[tuple[int, float]]] = {}
    for step, figures in made.diary.points:
        for name, value in figures.items():
            logged.setdefault(name, []).append((step, value))
    assert logged == made.trainer.outcome.history
    assert set(logged) == {
        "train/loss",
        "train/perplexity",
        "train/epoch_loss",
        "train/epoch_perplexity",
        "valid/loss",
        "valid/perplexity",
        "valid/accuracy",
        "grad_norm",
        "grad_norm_max",
        "learning_rate",
        "tokens_per_second",
    }
    assert logged["valid/loss"] == [(PER_EPOCH, 3.0), (2 * PER_EPOCH, 2.0)]
    assert logged["valid/perplexity"][0] == (PER_EPOCH, pytest.approx(math.exp(3)))


def test_a_logged_loss_is_the_mean_over_the_steps_since_the_last_point(training):
    every, rarely = training(epochs=1), training(epochs=1, log_every=3)
    every.trainer.fit()
    rarely.trainer.fit()
    losses = [value for _, value in every.curve("train/loss")]
    expected = {1: losses[:1], 3: losses[1:3], 6: losses[3:6], 7: losses[6:]}
    found = dict(rarely.curve("train/loss"))
    assert list(found) == list(expected)
    for step, since in expected.items():
        assert found[step] == pytest.approx(sum(since) / len(since), rel=1e-6)


def test_the_largest_norm_of_a_point_is_over_all_steps_since_the_last_point(training):
    every, rarely = training(epochs=1, seed=3), training(epochs=1, seed=3, log_every=3)
    every.trainer.fit()
    rarely.trainer.fit()
    norms = [value for _, value in every.curve("grad_norm")]
    expected = {1: norms[0], 3: max(norms[1:3]), 6: max(norms[3:6]), 7: norms[6]}
    assert dict(rarely.curve("grad_norm_max")) == expected
    assert max(expected.values()) == max(norms)
    assert dict(rarely.curve("grad_norm")) == {step: norms[step - 1] for step in expected}
    assert dict(rarely.curve("grad_norm")) != expected, "the last norm is not always the largest"


# Accumulation and clipping


@pytest.mark.parametrize("shuffle", [False, True])
def test_accumulating_two_batches_equals_one_batch_of_twice_the_rows(training, shuffle):
    apart = training(
        "data/batching=windows", batching={"batch_size": 5, "shuffle": shuffle}, accumulation=2
    )
    at_once = training("data/batching=windows", batching={"batch_size": 10, "shuffle": shuffle})
    first, second = apart.trainer.fit(), at_once.trainer.fit()
    assert first.steps == second.steps == 2 * WINDOWS // 10
    assert first.tokens == second.tokens
    assert same(apart.parameters, at_once.parameters, atol=1e-5)
    losses = [value for _, value in at_once.curve("train/loss")]
    assert [value for _, value in apart.curve("train/loss")] == pytest.approx(losses, rel=1e-4)


def test_a_smaller_last_group_of_an_epoch_is_averaged_over_its_own_size(training, stream):
    still = {"learning_rate": 1e-12}  # so that gradients can be compared
    made = training(accumulation=3, optimizer=still)
    outcome = made.trainer.fit()
    _, norms = plain_loop(stream.tokens.tolist(), training().model, 0.0, None, epochs=1)
    assert outcome.steps == 2 * 3  # of seven batches: three, three, and one
    assert outcome.epochs == 2
    assert dict(made.curve("grad_norm"))[3] == pytest.approx(norms[-1], rel=1e-3)


def test_state_is_carried_through_accumulated_batches(training, stream):
    made = training(accumulation=PER_EPOCH, epochs=1)
    outcome = made.trainer.fit()
    losses, _ = plain_loop(stream.tokens.tolist(), training().model, 0.0, None, epochs=1)
    assert outcome.steps == 1
    assert outcome.train_loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("clip", [0.01, 0.1])
def test_no_step_is_longer_than_the_learning_rate_times_clip_norm(training, clip):
    made = training(clip_norm=clip, max_steps=1, optimizer={"learning_rate": 1.0})
    before = [parameter.clone() for parameter in made.parameters]
    made.trainer.fit()
    moved = math.sqrt(
        sum(float(((a - b) ** 2).sum()) for a, b in zip(before, made.parameters, strict=True))
    )
    assert moved == pytest.approx(clip, rel=1e-3)
    assert made.curve("grad_norm")[0][1] > clip, "the norm that is logged is the one before"


# Bounds


@pytest.mark.parametrize(
    ("settings", "steps", "epochs"),
    [
        ({"epochs": 3}, 3 * PER_EPOCH, 3.0),
        ({"epochs": 3, "max_steps": 4}, 4, 4 / PER_EPOCH),
        ({"epochs": None, "max_steps": PER_EPOCH + 2}, PER_EPOCH + 2, 1 + 2 / PER_EPOCH),
        ({"epochs": 1, "max_steps": 100}, PER_EPOCH, 1.0),
        ({"epochs": 3, "max_steps": 2 * PER_EPOCH}, 2 * PER_EPOCH, 2.0),
        ({"epochs": None, "max_minutes": 1e-9}, 1, 1 / PER_EPOCH),
        ({"epochs": 2, "max_minutes": 1e9}, 2 * PER_EPOCH, 2.0),
    ],
    ids=str,
)
def test_the_first_bound_that_is_reached_ends_the_training(training, settings, steps, epochs):
    outcome = training(**settings).trainer.fit()
    assert outcome.steps == steps
    assert outcome.epochs == pytest.approx(epochs)
    assert not outcome.interrupted


@pytest.mark.parametrize(("batching", "length", "rows"), [("random", 7, 1), ("sequential", 13, 3)])
def test_an_epoch_counts_as_one_for_every_random_offset(training, batching, length, rows):
    cut = {"length": length, "batch_size": rows, "random_offset": True}
    for seed in range(6):
        made = training(f"data/batching={batching}", batching=cut, epochs=1, seed=seed)
        assert made.trainer.fit().epochs == 1.0


def test_a_training_without_an_end_and_one_without_a_batch_are_refused(training):
    with pytest.raises(Refused, match=r"training\.epochs, training\.max_steps"):
        training(epochs=None)
    with pytest.raises(Refused, match="120 tokens are too few"):
        training(batching={"batch_size": 60})


COSINE = ["optimizer/schedule=cosine", "optimizer.schedule.warmup_steps=2"]


@pytest.mark.parametrize("settings", [{"epochs": 5, "max_steps": 10}, {"epochs": 2}], ids=str)
def test_the_schedule_ends_with_the_last_step_of_the_training(training, settings):
    made = training(*COSINE, **settings)
    steps = made.trainer.fit().steps
    assert steps == settings.get("max_steps", 2 * PER_EPOCH)
    assert made.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    assert min(rate for _, rate in made.curve("learning_rate")[:-1]) > 0.001


def test_the_learning_rate_logged_with_a_step_is_the_one_used_in_it(training):
    made = training(*COSINE, max_steps=10)
    made.trainer.fit()
    falling = [(1 + math.cos(math.pi * n / 8)) / 2 for n in range(8)]
    rates = [rate for _, rate in made.curve("learning_rate")]
    assert rates == pytest.approx([0.25, 0.5, *(0.5 * share for share in falling)])


def test_the_learning_rate_falls_after_epochs_and_after_validations(training):
    made = training("optimizer/schedule=step", "optimizer.schedule.every=1", epochs=3)
    made.trainer.fit()
    rates = dict(made.curve("learning_rate"))
    assert [rates[1], rates[PER_EPOCH + 1], rates[2 * PER_EPOCH + 1]] == [0.5, 0.25, 0.125]
    made = training("optimizer/schedule=plateau", epochs=4, losses=[3.0, 2.0, 2.5, 2.4])
    made.trainer.fit()
    rates = dict(made.curve("learning_rate"))
    assert [rates[PER_EPOCH * epoch + 1] for epoch in range(4)] == [0.5, 0.5, 0.5, 0.125]


def test_a_step_of_a_random_length_moves_by_its_share_of_the_learning_rate(training):
    made = training(batching={"random_length": True, "length": 9}, optimizer={"momentum": 0.0})
    moves, step = [], made.trainer.optimizer.step

    def note():
        before = [parameter.clone() for parameter in made.parameters]
        gradients = [parameter.grad.clone() for parameter in made.model.parameters()]
        step()
        moves.append((before, gradients, [parameter.clone() for parameter in made.parameters]))

    made.trainer.optimizer.step = note
    made.trainer.fit()
    config = made.trainer.batching.config
    lengths = [
        batch.inputs.shape[1]
        for epoch in range(2)
        for batch in made.trainer.batching.batches(made.trainer.stream, 1, epoch)
    ]
    rates = [0.5 * length / config.length for length in lengths]
    assert len(set(rates)) > 2
    assert [rate for _, rate in made.curve("learning_rate")] == pytest.approx(rates)
    for rate, (before, gradients, after) in zip(rates, moves, strict=True):
        for one, gradient, other in zip(before, gradients, after, strict=True):
            assert torch.allclose(other, one - rate * gradient, atol=1e-6)
    assert made.trainer.optimizer.param_groups[0]["lr"] == 0.5


# Validation, patience, checkpoints


def test_patience_ends_the_training_after_validations_without_a_better_one(training):
    made = training(epochs=20, patience=2, losses=[3.0, 2.0, 2.5, 1.9, 1.9, 2.0, 0.1])
    outcome = made.trainer.fit()
    assert outcome.steps == 6 * PER_EPOCH
    assert outcome.best_step == 4 * PER_EPOCH
    assert outcome.best_valid.nats == 1.9
    assert made.diary.saved == [
        ("best", PER_EPOCH),
        ("best", 2 * PER_EPOCH),
        ("best", 4 * PER_EPOCH),
        ("last", 6 * PER_EPOCH),
    ]


def test_a_gain_that_is_too_small_does_not_count_for_patience_but_adds_up(training):
    losses = [3.0, 2.985, 2.97, 2.96, 2.95, 2.94, 0.1]  # 1.5% is too little, 3% counts
    made = training(epochs=20, patience=2, min_gain=0.025, losses=losses)
    outcome = made.trainer.fit()
    assert outcome.steps == 5 * PER_EPOCH
    assert outcome.best_valid.nats_per_token == 2.95


def test_without_patience_the_training_runs_to_its_end(training):
    outcome = training(epochs=5, losses=[1.0, 2.0, 3.0, 4.0, 5.0]).trainer.fit()
    assert (outcome.steps, outcome.best_step) == (5 * PER_EPOCH, PER_EPOCH)


def test_a_training_is_pruned_by_the_number_and_the_loss_of_its_validation(training):
    made = training(epochs=20, losses=[3.0, 2.0, 2.5, 1.0])
    made.diary.stop_at = 3
    outcome = made.trainer.fit()
    assert made.diary.validations == [(3.0, 1), (2.0, 2), (2.5, 3)]
    assert (outcome.steps, outcome.best_step, outcome.pruned) == (
        3 * PER_EPOCH,
        2 * PER_EPOCH,
        True,
    )


def test_a_pruned_training_that_goes_on_equals_one_that_was_never_pruned(training):
    whole, pruned, goes_on = (training(epochs=4, losses=lambda step: 9.0 - step) for _ in range(3))
    expected = whole.trainer.fit()
    pruned.diary.stop_at = 2
    pruned.trainer.fit()
    goes_on.trainer.load_state_dict(pruned.diary.states[-1][1])
    outcome = goes_on.trainer.fit()
    assert (outcome.steps, outcome.pruned) == (expected.steps, False)
    assert goes_on.history == whole.history
    assert same(goes_on.parameters, whole.parameters)
    assert goes_on.diary.validations == [(9.0 - 3 * PER_EPOCH, 3), (9.0 - 4 * PER_EPOCH, 4)]


def test_a_training_at_its_last_validation_is_not_pruned(training):
    made = training(epochs=2, losses=[2.0, 1.0])
    made.diary.stop_at = 2
    assert made.trainer.fit().pruned is False
    made = training(epochs=1, validate_every=PER_EPOCH, losses=[1.0])  # within the last epoch
    made.diary.stop_at = 1
    assert made.trainer.fit().pruned is False


def test_validation_runs_every_so_many_steps_and_at_the_end(training):
    made = training(epochs=2, validate_every=4, losses=[4.0, 3.0, 2.0, 1.0])
    outcome = made.trainer.fit()
    assert made.curve("valid/loss") == [(4, 4.0), (8, 3.0), (12, 2.0), (14, 1.0)]
    assert outcome.best_step == 14
    assert made.diary.saved[-1] == ("best", 14)


def test_patience_counts_the_validations_between_steps_too(training):
    made = training(epochs=9, validate_every=2, patience=1, losses=[2.0, 1.0, 1.0])
    assert made.trainer.fit().steps == 6


def test_the_last_step_is_validated_once_and_saved_however_the_training_ends(training):
    for settings in ({"max_steps": 3}, {"max_steps": 4, "validate_every": 4}, {"epochs": 1}):
        made = training(losses=[2.0], **settings)
        outcome = made.trainer.fit()
        assert [step for step, _ in made.curve("valid/loss")] == [outcome.steps]
        assert sorted(made.diary.saved) == [("best", outcome.steps), ("last", outcome.steps)]


def test_without_a_validation_split_the_last_model_is_the_best(training):
    made = training(validate_every=3)
    outcome = made.trainer.fit()
    assert outcome.best_valid is None
    assert outcome.best_step == outcome.steps == 2 * PER_EPOCH
    assert made.diary.saved == [("last", outcome.steps), ("best", outcome.steps)]


def test_the_model_trains_with_dropout_even_if_it_was_in_evaluation_mode(training):
    made, plain = training(model={"output_dropout": 0.5}), training()
    made.model.eval()
    made.trainer.fit()
    plain.trainer.fit()
    assert made.curve("train/loss") != plain.curve("train/loss")


# Errors


def test_a_nan_loss_is_reported_with_its_step(training):
    made = training()
    made.diary.at[3] = lambda: made.model.embedding.weight.data.fill_(math.nan)
    with pytest.raises(Diverged) as diverged:
        made.trainer.fit()
    assert str(diverged.value) == (
        "the loss is NaN at step 4 (learning rate 0.5, training.clip_norm=null): lower "
        "optimizer.learning_rate or set a smaller training.clip_norm"
    )
    assert made.diary.saved == []


def test_an_infinite_gradient_of_a_finite_loss_is_reported_too(training):
    made = training(clip_norm=1.0)
    made.model.embedding.weight.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(Diverged, match=r"the gradient norm is \w+ at step 1 .*clip_norm=1\.0"):
        made.trainer.fit()


def test_a_nan_validation_loss_is_reported_with_its_step(training):
    made = training(max_steps=3, losses=[math.nan])
    with pytest.raises(Diverged, match="the validation loss is NaN at step 3"):
        made.trainer.fit()


def test_training_learns_a_stream_that_can_be_learned(training):
    made = training("model=gru", epochs=60, model={"hidden_size": 16}, clip_norm=1.0)
    made.trainer.stream = TokenStream.from_documents([np.arange(120) % VOCABULARY])
    outcome = made.trainer.fit()
    assert outcome.train_loss < 0.1
    assert outcome.tokens_per_second > 0
