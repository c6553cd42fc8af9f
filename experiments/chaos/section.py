"""The section of the page: the table of the newest ``chaos.json``."""

from __future__ import annotations

from experiments.chaos.results import HEAD, PLACE, Results, kills
from experiments.study import Question, Study
from unroll.report.page import Answer, Table, sentence


def answer(results: Results) -> Answer:
    """The section of some results."""
    equal = sum(row.equal for row in results.rows)
    return Answer(
        [
            sentence(
                "Measured with <code>{}</code> at commit {} on {}: {} processes were killed.",
                results.command,
                results.commit[:12],
                results.date,
                kills(results.rows),
            ),
            sentence(
                "{} of {} scenarios ended with the weights and the metric history of a run that "
                "nothing disturbed, and no point doubled.",
                equal,
                len(results.rows),
            ),
        ],
        [
            Table(
                list(HEAD),
                [list(line) for line in results.table()],
                "Equal weights: all tensors of the best and the last checkpoint, by hash. Equal "
                "history: each (key, step, value) in the journal of the run and in MLflow, except "
                "metrics of time. Kills are SIGKILL: at any time, while a state is written, when "
                "a point was just logged, and while the command starts. Time lost: training time "
                "above that of a run with a server that works, the median of pairs of runs in "
                "turns (the smallest and the largest).",
            )
        ],
    )


class ChaosStudy(Study):
    """A study whose runs are not in the store: ``make chaos`` makes and compares them."""

    def missing(self) -> str | None:
        return None if PLACE.is_file() else "needs results: make chaos"


STUDY = ChaosStudy(
    "chaos",
    (),
    (
        Question(
            "chaos",
            "Reliability",
            "Does a run that is killed, or whose store fails, end as if nothing had happened?",
            lambda _: answer(Results.read(PLACE)),
        ),
    ),
)
