"""Question 6 of the lab: how do the training losses of RNN and LSTM move, and why?

The runs are those of ``cells``, and nothing is run twice.
"""

from __future__ import annotations

import statistics

from experiments import cells
from experiments.cells import CELLS
from experiments.study import Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, sentence, shown
from unroll.report.runs import Record, derived

LOSS = "train/loss"


def draw(results: Results) -> list[Section]:
    early = {cell: derived(results[cell], _early) for cell in CELLS}
    gap = {cell: derived(results[cell], _gap) for cell in CELLS}
    norm = {cell: derived(results[cell], _largest_norm) for cell in CELLS}
    end = {cell: derived(results[cell], _end) for cell in CELLS}
    ahead = min(("rnn", "lstm"), key=lambda cell: early[cell].mean)
    behind = "lstm" if ahead == "rnn" else "rnn"
    answer = [
        sentence(
            "Both fall steeply while the frequent words are learnt and then level off. A tenth of "
            "the way the {} is ahead, at {} nats against {}; at the end the RNN stands at {} and "
            "the LSTM at {}.",
            ahead.upper(),
            shown(early[ahead], ".2f"),
            shown(early[behind], ".2f"),
            shown(end["rnn"], ".2f"),
            shown(end["lstm"], ".2f"),
        ),
        sentence(
            "The gates of an LSTM start half open and have to be learnt before they help, and then "
            "hold what a simple state overwrites. The largest gradient norm before clipping is {} "
            "(RNN) and {} (LSTM).",
            shown(norm["rnn"], ".2f"),
            shown(norm["lstm"], ".2f"),
        ),
        sentence(
            "The validation loss ends {} nats from the training loss of the last epoch for the "
            "RNN, {} for the LSTM. {}",
            shown(gap["rnn"], "+.2f"),
            shown(gap["lstm"], "+.2f"),
            "Above it, what is learnt last is learnt by heart."
            if gap["rnn"].mean > 0
            else "That it lies below is no wonder: dropout hinders the training loss, which is a "
            "mean over the epoch, and unknown words, more frequent in held-out text, are cheap.",
        ),
    ]
    rows = [
        [
            cell.upper(),
            shown(early[cell], ".3f"),
            shown(end[cell], ".3f"),
            shown(gap[cell], ".3f"),
            shown(norm[cell], ".2f"),
        ]
        for cell in CELLS
    ]
    head = [
        "cell",
        "loss at a tenth of the way",
        "loss at the end",
        "validation less training",
        "largest gradient norm",
    ]
    return [
        Section(
            "training_curves",
            "How the losses move",
            "How do the RNN's and the LSTM's training losses move, and why?",
            answer,
            [_curves(results), Table(head, rows, "Nats per token; mean ± spread over seeds.")],
            lab=6,
        )
    ]


def _early(record: Record) -> float:
    points = record.curve(LOSS)
    return points[len(points) // 10][1]


def _end(record: Record) -> float:
    return statistics.fmean(value for _, value in record.curve(LOSS)[-5:])


def _gap(record: Record) -> float:
    return record.curve("valid/loss")[-1][1] - record.curve("train/epoch_loss")[-1][1]


def _largest_norm(record: Record) -> float:
    return max(value for _, value in record.curve("grad_norm"))


def _curves(results: Results) -> Drawing:
    figure, (above, below) = new(rows=2, height=2.7)
    for position, cell in enumerate(CELLS):
        runs = [record.curve(LOSS) for record in results[cell]]
        norms = [record.curve("grad_norm") for record in results[cell]]
        looks = style(position) | {"marker": "", "linewidth": 1.4}
        above.plot(*_mean(runs), label=cell.upper(), **looks)
        below.plot(*_mean(norms), label=cell.upper(), **looks)
    named(above, "optimizer steps", "training loss (nats per token)")
    named(below, "optimizer steps", "gradient norm before clipping")
    above.legend()
    return Drawing(
        "training_curves", "Training loss and gradient norm, the mean over seeds.", figure
    )


def _mean(runs: list[list[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    steps = [step for step, _ in runs[0]]
    values = [statistics.fmean(point[1] for point in points) for points in zip(*runs, strict=True)]
    return steps, values


STUDY = Study("training_curves", cells.STUDY.jobs, draw)
