"""A verdict says what two samples, paired by seed, allow: no more, whichever way they fall."""

from __future__ import annotations

import math
import re
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.report.runs import Measured
from unroll.report.verdict import UNDECIDED, best, ranking, verdict

QUANTILE = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
"""Of Student's t with two degrees of freedom, in closed form: 4.3027."""


def exact(value: float) -> Measured:
    return Measured((value,), exact=True)


figures = st.floats(min_value=1, max_value=1000)
triples = st.tuples(figures, figures, figures)


def sample(*values: float) -> Measured:
    return Measured(values, tuple(f"run{index}" for index in range(len(values))))


@settings(deadline=None)  # the first call imports scipy
@given(triples, triples)
def test_a_verdict_of_three_seeds_follows_the_paired_t_interval(first, second) -> None:
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    mean, error = statistics.fmean(gaps), statistics.stdev(gaps) / math.sqrt(3)
    low, high = mean - QUANTILE * error, mean + QUANTILE * error
    found = verdict(("a", "b"), sample(*first), sample(*second))
    if error > 1e-9 and min(abs(low), abs(high)) > 1e-6:
        expected = "ahead of" if high < 0 else "behind" if low > 0 else UNDECIDED
        assert found.relation == expected
        assert found.low == pytest.approx(low, rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(triples, triples)
def test_exchanging_the_samples_turns_the_verdict_around(first, second) -> None:
    there = verdict(("a", "b"), sample(*first), sample(*second)).relation
    back = verdict(("b", "a"), sample(*second), sample(*first)).relation
    turned = {"ahead of": "behind", "behind": "ahead of", UNDECIDED: UNDECIDED}
    assert back == turned[there]


def test_which_way_is_better_decides_the_word() -> None:
    low, high = sample(1.0, 1.1, 1.2), sample(5.0, 5.1, 5.3)
    said = {
        better: verdict(("a", "b"), low, high, better).relation
        for better in ("lower", "higher", "neither")
    }
    assert said == {"lower": "ahead of", "higher": "behind", "neither": "below"}


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ((1.0,), (2.0,), "one seed"),
        ((1.0, math.inf, 2.0), (3.0, 4.0, 5.0), "not every value is finite"),
        ((1.0, math.nan, 2.0), (3.0, 4.0, 5.0), "not every value is finite"),
        ((math.inf,) * 3, (math.inf,) * 3, "not every value is finite"),
    ],
)
def test_nothing_is_said_without_seeds_or_with_values_that_are_not_finite(
    first, second, reason
) -> None:
    found = verdict(("a", "b"), sample(*first), sample(*second))
    assert found.relation == UNDECIDED
    assert reason in found.__html__()


def test_samples_of_different_seeds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="2 and 3 runs cannot be paired"):
        verdict(("a", "b"), sample(1.0, 2.0), sample(1.0, 2.0, 3.0))


def test_an_exact_value_is_paired_with_every_seed() -> None:
    assert verdict(("a", "12.5"), sample(99.0, 100.0, 99.5), exact(12.5), "higher").relation == (
        "ahead of"
    )
    assert verdict(("a", "12.5"), sample(12.0, 13.0, 12.6), exact(12.5)).relation == UNDECIDED


def test_two_exact_values_are_told_apart_unless_they_are_equal() -> None:
    assert verdict(("a", "b"), exact(148.0), exact(529.0)).relation == "ahead of"
    assert verdict(("a", "b"), exact(148.0), exact(148.0)).relation == UNDECIDED


def test_a_difference_that_is_the_same_with_every_seed_is_told_apart() -> None:
    assert verdict(("a", "b"), sample(100.0, 100.0), sample(12.5, 12.5), "higher").relation == (
        "ahead of"
    )


def test_the_page_holds_both_samples_of_a_verdict_in_full() -> None:
    html = verdict(("a", "b"), sample(0.1, 1 / 3), sample(2.0, 3.0)).__html__()
    (first, second) = re.findall(r'data-(?:first|second)="([^"]*)"', html)
    assert [float(word) for word in first.split()] == [0.1, 1 / 3]
    assert [float(word) for word in second.split()] == [2.0, 3.0]


def test_a_ranking_sets_the_best_mean_beside_each_of_the_others() -> None:
    found = {"x": sample(5.0, 6.0), "y": sample(1.0, 2.0), "z": sample(math.nan, 1.0)}
    text = ranking(found).striptags()
    assert [text.index("y"), "y is ahead of x" in text or "y and x" in text] == [0, True]
    assert "y and z are not compared" in text  # no interval
    assert ranking(found, "higher").striptags().startswith("x")


def test_the_best_are_the_one_with_the_best_mean_and_those_that_no_interval_tells_from_it() -> None:
    found = {
        "far": sample(30.0, 31.0, 30.5),
        "near": sample(10.0, 12.0, 11.5),
        "first": sample(10.5, 11.0, 11.0),
    }
    assert best(found) == ["first", "near"]
    assert best(found, "higher") == ["far"]
    assert best({"a": exact(1.0), "b": exact(2.0)}) == ["a"]
