"""Width and batch size of a character RNN: the first 20 updates (seed document 001)."""

from __future__ import annotations

import itertools
import statistics

from experiments import study
from experiments.study import Column, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Published, sentence, shown
from unroll.report.plots import Panel
from unroll.report.runs import Record
from unroll.report.verdict import verdict

WIDTHS = {f"{units} units": f"experiment=width/{units}" for units in (128, 200, 300)}
BATCHES = {f"{rows} rows": f"experiment=batch/{rows}" for rows in (16, 32, 64)}
CURVE = "train/perplexity"


def last(record: Record) -> float:
    """Perplexity of the last update's batch."""
    return record.curve(CURVE)[-1][1]


def noise(record: Record) -> float:
    """Mean absolute change of the loss from one update to the next over the second half."""
    losses = [value for _, value in record.curve("train/loss")][10:]
    return statistics.fmean(abs(b - a) for a, b in itertools.pairwise(losses))


def answer(results: Results) -> Answer:
    ends, moves = study.measures(results, results, last), study.measures(results, results, noise)
    narrow, middle, wide = (
        verdict((a, b), ends[a], ends[b], form=".2f")
        for a, b in (
            ("200 units", "128 units"),
            ("300 units", "200 units"),
            ("300 units", "128 units"),
        )
    )
    smooth = [
        verdict((a, b), moves[a], moves[b], form=".3f")
        for a, b in (("64 rows", "32 rows"), ("64 rows", "16 rows"))
    ]
    return Answer(
        [
            sentence(
                "Perplexity of the batch after 20 updates by width: {}; {}; {}.",
                narrow,
                middle,
                wide,
            ),
            sentence(
                "By batch size the perplexity is {}. Change of the loss from one update to the "
                "next (nats): {}.",
                study.listed({rows: ends[rows] for rows in BATCHES}),
                study.joined(smooth),
            ),
        ],
        [
            plots.curves(
                "width_and_batch",
                "Perplexity at each update, a line for each seed.",
                [
                    Panel(
                        "updates",
                        "perplexity of the batch (log scale)",
                        study.curves_of(results, labels, CURVE),
                        log_y=True,
                    )
                    for labels in (WIDTHS, BATCHES)
                ],
            ),
            study.table(
                "setting",
                results,
                results,
                [
                    Column("perplexity of update 20", last, ".2f"),
                    Column("change of the loss per update (nats)", noise, ".3f"),
                ],
            ),
        ],
        [
            Published(
                "character RNN, batches of 16: falls fast to a perplexity of",
                "001",
                "about 10",
                shown(ends["16 rows"]),
                "after 20 updates",
            ),
            Published("character RNN: 200 units are better than 128", "001", "yes", narrow.short()),
            Published("character RNN: 300 units are harder to train", "001", "yes", middle.short()),
            Published(
                "character RNN: batches of 64 are smoother than 16", "001", "yes", smooth[1].short()
            ),
        ],
    )


STUDY = Study(
    "width_and_batch",
    study.grid("", WIDTHS | BATCHES),
    (
        Question(
            "width_and_batch",
            "Width and batch size",
            "How do width and batch size change the first 20 updates of a character RNN?",
            answer,
        ),
    ),
    corpus="time_machine",
)
