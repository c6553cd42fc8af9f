"""The study of gradient flow reads its figures off the curves of its runs."""

from __future__ import annotations

import math

import pytest
from experiments.gradient_flow import END, START, STEPS_BACK, STUDY, UNCLIPPED, Flow


class Run:
    """A run whose gradient falls by ``factor`` a step, and by its root once trained."""

    def __init__(self, run_id: str, factor: float) -> None:
        self.run_id, self.factor = run_id, factor

    def curve(self, key: str) -> list[tuple[float, float]]:
        factor = {START: self.factor, END: math.sqrt(self.factor)}.get(key, 1.0)
        return [(float(k), 3 * factor**k) for k in range(STEPS_BACK + 1)]

    def metric(self, key: str) -> float:
        return 123.0


@pytest.mark.parametrize(
    ("factor", "vanished", "left"),
    [(0.8, ">21<", ">1.4e-05<"), (1.0, ">more than 50<", ">1<"), (1.1, ">more than 50<", ">117<")],
)
def test_a_flow_says_where_it_vanishes_what_is_left_and_the_factor_a_step(factor, vanished, left):
    flow = Flow(Run("id", factor), START)
    assert vanished in flow.vanished()
    assert left in flow.left()
    assert flow.factor() == pytest.approx(factor)


def test_a_gradient_of_nothing_has_no_factor():
    assert math.isnan(Flow(Run("id", 0.0), START).factor())


@pytest.mark.parametrize(("factor", "verdict"), [(0.8, "still vanishes"), (1.1, "it explodes")])
def test_the_answer_says_what_the_curves_say(factor, verdict):
    results = {job.label: [Run(f"id{n}", factor)] for n, job in enumerate(STUDY.jobs)}
    (section,) = STUDY.draw(results)
    answer = " ".join(section.answer)
    assert [word in answer for word in ("still vanishes", "it explodes")] == [
        word == verdict for word in ("still vanishes", "it explodes")
    ]
    assert f'href="#run-{results[UNCLIPPED][0].run_id}"' in answer
    assert len(section.parts[1].rows) == len(STUDY.jobs)
