"""What Ctrl-C and SIGTERM do to a training."""

from __future__ import annotations

import signal
import threading

import pytest

from unroll.errors import Terminated

PER_EPOCH = 7


def test_ctrl_c_ends_the_training_cleanly_with_both_checkpoints(training):
    before = signal.getsignal(signal.SIGINT)
    made = training(epochs=50, losses=[2.0] + [3.0] * 50)
    made.diary.at[PER_EPOCH + 3] = lambda: signal.raise_signal(signal.SIGINT)
    outcome = made.trainer.fit()
    assert outcome.interrupted
    assert outcome.steps == PER_EPOCH + 3
    assert made.diary.saved == [("best", PER_EPOCH), ("last", PER_EPOCH + 3)]
    assert made.curve("valid/loss") == [(PER_EPOCH, 2.0), (PER_EPOCH + 3, 3.0)]
    assert [step for step, _ in made.diary.states] == [PER_EPOCH + 3]
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_keeps_the_state_and_does_nothing_else(training):
    before = signal.getsignal(signal.SIGTERM)
    made = training(epochs=50, losses=[2.0] + [3.0] * 50)
    made.diary.at[PER_EPOCH + 3] = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated):
        made.trainer.fit()
    assert made.diary.saved == [("best", PER_EPOCH)]
    assert [step for step, _ in made.diary.states] == [PER_EPOCH + 3]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_in_the_first_epoch_still_leaves_both_checkpoints(training):
    for losses in (None, [2.0]):
        made = training(epochs=50, losses=losses)
        made.diary.at[2] = lambda: signal.raise_signal(signal.SIGINT)
        outcome = made.trainer.fit()
        assert (outcome.interrupted, outcome.steps, outcome.best_step) == (True, 2, 2)
        assert sorted(made.diary.saved) == [("best", 2), ("last", 2)]


def test_a_second_signal_interrupts_at_once(training):
    before = signal.getsignal(signal.SIGINT)
    made = training(epochs=50)

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    made.diary.at[2] = twice
    with pytest.raises(KeyboardInterrupt):
        made.trainer.fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_training_runs_in_a_thread_where_no_signal_can_be_caught(training):
    made, found = training(epochs=1), []
    thread = threading.Thread(target=lambda: found.append(made.trainer.fit()))
    thread.start()
    thread.join(60)
    assert [outcome.steps for outcome in found] == [PER_EPOCH]
