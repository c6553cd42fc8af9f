"""The outcome of a training: speed, curves, state."""

from __future__ import annotations

import math
import statistics

import pytest

from unroll.evaluation.perplexity import Score, perplexity
from unroll.training.learner import WARM_UP_STEPS, Outcome


def outcome(steps: list[tuple[float, int]]) -> Outcome:
    made = Outcome()
    for seconds, tokens in steps:
        made.add_step(seconds, tokens)
    return made


def test_the_speed_is_the_median_of_targets_a_second_with_its_quartiles():
    steps = [(0.1 * number, 100 + number) for number in range(1, 40)]
    found = outcome(steps).speed
    rates = [tokens / seconds for seconds, tokens in steps[WARM_UP_STEPS:]]
    lower, median, upper = statistics.quantiles(rates, n=4, method="inclusive")
    assert found == pytest.approx((median, lower, upper), rel=1e-6)
    assert found.lower_quartile < found.median < found.upper_quartile


@pytest.mark.parametrize("slow", [1, 5, WARM_UP_STEPS])
def test_slow_first_steps_do_not_change_the_speed(slow):
    made = outcome([(9.0, 50)] * slow + [(0.5, 50)] * (3 * WARM_UP_STEPS - slow))
    assert made.speed == pytest.approx((100, 100, 100))
    assert made.tokens_per_second < 90, "which is over all steps"


def test_one_slow_step_after_the_warm_up_does_not_change_the_median():
    steps = [(0.5, 50)] * 40
    steps[25] = (60.0, 50)
    assert outcome(steps).speed.median == pytest.approx(100)


@pytest.mark.parametrize("steps", [1, 2, 3, 11])
def test_a_training_shorter_than_the_warm_up_is_measured_over_its_second_half(steps):
    first = steps // 2
    found = outcome([(7.0, 10)] * first + [(0.1, 10)] * (steps - first)).speed
    assert found == pytest.approx((100, 100, 100))


def test_the_speed_without_a_step_is_nan():
    assert all(math.isnan(value) for value in Outcome().speed)


def test_totals_are_the_sums_of_the_steps():
    made = outcome([(0.5, 30), (1.5, 10)])
    assert (made.steps, made.tokens, made.seconds) == (2, 40, 2.0)
    assert made.tokens_per_second == 20


def test_per_step_times_take_eight_bytes_a_step():
    made = outcome([(0.5, 30)] * 100)
    arrays = (made.step_seconds, made.step_tokens)
    assert sum(len(array) * array.itemsize for array in arrays) == 800


@pytest.mark.parametrize("steps", [[], [(0.25, 30), (1.5, 10)]])
@pytest.mark.parametrize("best", [None, Score("stream", 1.5, 2, 2, 1, 0, 9.0, 0.5)])
def test_an_outcome_is_rebuilt_from_its_state(steps, best):
    made = outcome(steps)
    made.add_point({"train/loss": 2.0})
    made.best_valid, made.best_step, made.train_loss = best, 2, 1.25
    rebuilt = Outcome.from_state_dict(made.state_dict())
    assert rebuilt == made
    rebuilt.add_step(1.0, 1)
    rebuilt.add_point({"train/loss": 1.0})
    assert rebuilt != made
    assert made.history == {"train/loss": [(len(steps), 2.0)]}


def test_perplexity_is_inf_on_overflow():
    assert perplexity(2.0) == pytest.approx(math.exp(2))
    assert perplexity(1e4) == math.inf
