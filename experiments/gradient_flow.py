"""Vanishing and exploding gradients: how far back they flow, and what gates and clipping change.

The norm of a loss's gradient at the state k steps before it, at the start of a training and at its
end, for recurrent matrices of different spectral radius; then one exploding RNN trained with and
without clipping.
"""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from experiments.cells import CELLS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Published, Section, Table, linked, number, sentence
from unroll.report.runs import Record

RADII = (0.8, 1.2, 2.0)
EXPLODING = 3.0
STEPS_BACK = 50
SETTLED = 10
"""From this k on, what a step leaves of the gradient is hardly touched by the last step's gates."""
OPEN = "LSTM, forget gate open"
CLIPPED, UNCLIPPED = "RNN, clipped", "RNN, not clipped"
START, END = "gradient_flow/initial", "gradient_flow/trained"
WORDS = (
    "experiment=study",
    "data.vocabulary.min_frequency=5",
    "training.max_steps=90",
    "sampling.length=10",
    f"evaluation.gradient_steps={STEPS_BACK}",
)


def label(cell: str, radius: float) -> str:
    return f"{cell.upper()}, radius {radius:g}"


class Flow:
    """The curve of one run at one time: gradient norms for k = 0, 1, ..."""

    def __init__(self, record: Record, key: str) -> None:
        self.runs = [record.run_id]
        norms = [value for _, value in record.curve(key)]
        self.relative = [norm / norms[0] if norms[0] else math.nan for norm in norms]

    def left(self) -> Markup:
        """What is left of the norm at the largest k, as a share of that at k = 0."""
        share = self.relative[-1]
        return number(share, self.runs, ",.0f" if share >= 10 else ".2g")

    def vanished(self) -> Markup:
        """The first k at which less than 1 % is left."""
        found = next((k for k, share in enumerate(self.relative) if share < 0.01), None)
        return linked(
            f"more than {len(self.relative) - 1}" if found is None else str(found), self.runs
        )

    def factor(self) -> float:
        """What one step leaves of the norm, the geometric mean from ``SETTLED`` on."""
        steps = len(self.relative) - 1 - SETTLED
        if steps < 1 or not self.relative[SETTLED]:
            return math.nan
        return float((self.relative[-1] / self.relative[SETTLED]) ** (1 / steps))

    def a_step(self) -> Markup:
        return number(self.factor(), self.runs, ".2f")


def draw(results: Results) -> list[Section]:
    start = {name: Flow(records[0], START) for name, records in results.items()}
    end = {name: Flow(records[0], END) for name, records in results.items()}
    at = start[label("rnn", RADII[0])]
    return [
        Section(
            "gradient_flow",
            "Vanishing and exploding gradients",
            "How many steps back does a gradient reach, and what do gates and clipping change?",
            [
                _vanishing(start),
                _exploding(start),
                _gating(start, end),
                _clipping(results),
            ],
            [_curves(start, end), _table(start, end), _training(results)],
            published=[
                Published(
                    f"share of the gradient {k} steps back, at a factor of 0.8 a step",
                    "002",
                    figure,
                    number(at.relative[k], at.runs, ".2g"),
                    "ours: an RNN of spectral radius 0.8, in which tanh flattens as well",
                )
                for k, figure in ((10, "0.107"), (50, "0.000014"))
            ],
        )
    ]


def _vanishing(start: dict[str, Flow]) -> Markup:
    at = [start[label(cell, RADII[0])] for cell in CELLS]
    return sentence(
        "With a spectral radius of {:g} at the start, less than 1 % of the gradient is left after "
        "{} steps in the RNN, {} in the LSTM, {} in the GRU. The radius alone would leave "
        "{:.3f} after 10 steps and {:.6f} after 50; the RNN, in which tanh flattens as well, keeps "
        "{} after {}.",
        RADII[0],
        *(flow.vanished() for flow in at),
        RADII[0] ** 10,
        RADII[0] ** 50,
        at[0].left(),
        STEPS_BACK,
    )


def _exploding(start: dict[str, Flow]) -> Markup:
    grown = [
        radius for radius in RADII if radius > 1 and start[label("rnn", radius)].relative[-1] > 1
    ]
    damped = [radius for radius in RADII if radius > 1 and radius not in grown]
    parts = [
        sentence(
            "At a radius of {:g} the RNN's gradient still vanishes ({} is left {} steps back): "
            "above 1 it may explode, but tanh can damp more than the matrix stretches.",
            radius,
            start[label("rnn", radius)].left(),
            STEPS_BACK,
        )
        for radius in damped
    ]
    parts += [
        sentence(
            "At {:g} it explodes: {} times its size {} steps back, {} a step. The LSTM keeps {} "
            "and the GRU {} there.",
            radius,
            start[label("rnn", radius)].left(),
            STEPS_BACK,
            start[label("rnn", radius)].a_step(),
            start[label("lstm", radius)].left(),
            start[label("gru", radius)].left(),
        )
        for radius in grown
    ]
    return Markup(" ").join(parts)


def _gating(start: dict[str, Flow], end: dict[str, Flow]) -> Markup:
    radius = RADII[1]
    names = [label(cell, radius) for cell in CELLS]
    return sentence(
        "Gates do little before they have learned: half open, they halve what passes. At a "
        "radius of {:g} a step leaves {} of the gradient in the RNN, {} in the LSTM, {} in the "
        "GRU at the start, and {}, {} and {} after training, where less than 1 % is left after {}, "
        "{} and {} steps. A forget gate that starts open leaves {} a step at the start, and less "
        "than 1 % after {} steps instead of {}.",
        radius,
        *(start[name].a_step() for name in names),
        *(end[name].a_step() for name in names),
        *(end[name].vanished() for name in names),
        start[OPEN].a_step(),
        start[OPEN].vanished(),
        start[label("lstm", radius)].vanished(),
    )


def _clipping(results: Results) -> Markup:
    clipped, free = results[CLIPPED][0], results[UNCLIPPED][0]
    norms = [value for _, value in free.curve("grad_norm")]
    return sentence(
        "Clipping does not lengthen the gradient's reach; it bounds the step. From a radius of "
        "{:g} the first gradient has norm {}. Taken whole with SGD it throws the weights away, and "
        "the validation perplexity ends at {}; clipped at 1, at {}.",
        EXPLODING,
        number(norms[0] if norms else math.nan, [free.run_id], ",.0f"),
        number(free.metric("valid/perplexity"), [free.run_id], ",.0f"),
        number(clipped.metric("valid/perplexity"), [clipped.run_id], ",.0f"),
    )


def _curves(start: dict[str, Flow], end: dict[str, Flow]) -> Drawing:
    figure, grid = new(columns=len(CELLS), rows=2, width=3.3, height=2.8)
    for row, flows, when in zip(grid, (start, end), ("at the start", "trained"), strict=True):
        for axes, cell in zip(row, CELLS, strict=True):
            names = [(f"radius {radius:g}", label(cell, radius)) for radius in RADII]
            if cell == "lstm":
                names.append(("forget gate open", OPEN))
            for position, (name, key) in enumerate(names):
                _line(axes, flows[key].relative, name, style(position))
            line = [RADII[0] ** k for k in range(STEPS_BACK + 1)]
            _line(
                axes, line, f"{RADII[0]:g} to the k", {"color": "black", "linestyle": (0, (1, 4))}
            )
            axes.set_yscale("log")
            axes.set_ylim(1e-12, 1e4)
            named(axes, "steps back, k", "norm against k = 0", f"{cell.upper()}, {when}")
    for axes in grid[0][:2]:
        axes.legend(fontsize=7)
    return Drawing(
        "gradient_flow",
        "Norm of the gradient at the state k steps before the loss, as a share of that at k = 0 "
        "(log scale, cut off at 1e-12).",
        figure,
    )


def _line(axes: Any, shares: list[float], name: str, looks: dict[str, Any]) -> None:
    axes.plot(range(len(shares)), shares, label=name, **looks | {"marker": "", "linewidth": 1.3})


def _training(results: Results) -> Drawing:
    figure, (left, right) = new(rows=2, height=2.7)
    for position, name in enumerate((CLIPPED, UNCLIPPED)):
        looks = style(position) | {"marker": "", "linewidth": 1.2}
        for axes, key in ((left, "grad_norm"), (right, "train/loss")):
            points = results[name][0].curve(key)
            axes.plot([step for step, _ in points], [y for _, y in points], label=name, **looks)
    left.set_yscale("log")
    named(left, "optimizer steps", "gradient norm (log scale)")
    named(right, "optimizer steps", "training loss (nats per token)")
    left.legend()
    return Drawing(
        "gradient_flow_clipping",
        f"An RNN from a spectral radius of {EXPLODING:g}, SGD with learning rate 3; the "
        "norm is the one before clipping.",
        figure,
    )


def _table(start: dict[str, Flow], end: dict[str, Flow]) -> Table:
    rows = [
        [
            name,
            *(flow[name].vanished() for flow in (start, end)),
            *(flow[name].left() for flow in (start, end)),
            *(flow[name].a_step() for flow in (start, end)),
        ]
        for name in start
    ]
    head = [
        "run",
        "below 1 % at k, start",
        "trained",
        f"share left at k = {STEPS_BACK}, start",
        "trained",
        "factor a step, start",
        "trained",
    ]
    return Table(head, rows, f"One seed. The factor a step is a mean from k = {SETTLED} on.")


JOBS = {
    **{
        label(cell, radius): (f"model={cell}", f"model.spectral_radius={radius}")
        for cell in CELLS
        for radius in RADII
    },
    OPEN: ("model=lstm", f"model.spectral_radius={RADII[1]}", "model.forget_gate_bias=3"),
}
CLIPPING = ("model=rnn", f"model.spectral_radius={EXPLODING}", "tracking.every=1")
CLIPPING += ("optimizer=sgd", "optimizer.learning_rate=3")
JOBS |= {
    CLIPPED: (*CLIPPING, "training.clip_norm=1"),
    UNCLIPPED: (*CLIPPING, "training.clip_norm=null"),
}

STUDY = Study(
    "gradient_flow",
    tuple(Job(name, (*WORDS, *words)) for name, words in JOBS.items()),
    draw,
)
