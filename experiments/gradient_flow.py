"""Vanishing and exploding gradients: how far back they reach, and what gates and clipping change.

The norm of a loss's gradient at the state k steps before it, at the start of a training and at its
end, for recurrent matrices of different spectral radius; then one exploding RNN trained with and
without clipping. Three seeds a setting; a share is their geometric mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from experiments import study
from experiments.study import CELLS, TUNED, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Drawing, Published, Table, linked, number, sentence, shown
from unroll.report.plots import Panel
from unroll.report.runs import Record, measured

RADII = (0.8, 1.2, 2.0)
EXPLODING = 3.0
STEPS_BACK = 50
TRAINED = 90
"""Optimizer steps. The learning rate climbs over the first 100."""
SETTLED = 10
"""From this k on the last step's gates hardly change the factor of a step."""
SMALL = 0.01
START, END = "gradient_flow/initial", "gradient_flow/trained"
LABELS = {(cell, radius): f"{cell}, radius {radius:g}" for cell in CELLS for radius in RADII}
OPEN = "LSTM, forget gate open"
CLIPPED, UNCLIPPED = "RNN, clipped", "RNN, not clipped"


class Flow:
    """The curves of repeated runs at one time: gradient norms for k = 0, 1, ... as a share of that
    at k = 0, and their geometric mean over the runs."""

    def __init__(self, records: Sequence[Record], key: str) -> None:
        self.runs = [record.run_id for record in records]
        self.curves = [_relative([norm for _, norm in record.curve(key)]) for record in records]
        self.relative = [_geometric_mean(shares) for shares in zip(*self.curves, strict=True)]

    @property
    def points(self) -> list[list[tuple[float, float]]]:
        """A curve for each run."""
        return [[(float(k), share) for k, share in enumerate(curve)] for curve in self.curves]

    def left(self) -> Markup:
        """Norm at the largest k, as a share of that at k = 0."""
        return number(self.relative[-1], self.runs, ".2g")

    def vanished(self) -> Markup:
        """The first k at which less than 1% is left."""
        found = next((k for k, share in enumerate(self.relative) if share < SMALL), None)
        return linked(f"> {len(self.relative) - 1}" if found is None else str(found), self.runs)

    def factor(self) -> float:
        """The factor of one step, the geometric mean from ``SETTLED`` on."""
        steps = len(self.relative) - 1 - SETTLED
        if steps < 1 or not self.relative[SETTLED]:
            return math.nan
        return float((self.relative[-1] / self.relative[SETTLED]) ** (1 / steps))

    def per_step(self) -> Markup:
        return number(self.factor(), self.runs, ".2f")


def _relative(norms: Sequence[float]) -> list[float]:
    return [norm / norms[0] if norms[0] else math.nan for norm in norms]


def _geometric_mean(values: Sequence[float]) -> float:
    """0 where one is 0."""
    if not all(value > 0 for value in values):
        return 0.0 if 0.0 in values else math.nan
    return math.exp(sum(map(math.log, values)) / len(values))


def answer(results: Results) -> Answer:
    names = [*LABELS.values(), OPEN]
    start = {name: Flow(results[name], START) for name in names}
    end = {name: Flow(results[name], END) for name in names}
    at = start[LABELS["RNN", RADII[0]]]
    return Answer(
        [
            sentence(
                "A spectral radius of {:g} alone would leave {:.3f} of a gradient after 10 steps "
                "and {:.6f} after {}.",
                RADII[0],
                RADII[0] ** 10,
                RADII[0] ** STEPS_BACK,
                STEPS_BACK,
            ),
            *(_at_radius(radius, start, end) for radius in RADII),
            sentence(
                "A forget gate that starts open, at radius {:g}: the gradient's factor per step is "
                "{} at the start and {} after training; with the gate as it is drawn, {} and {}.",
                RADII[1],
                *(
                    flow[name].per_step()
                    for name in (OPEN, LABELS["LSTM", RADII[1]])
                    for flow in (start, end)
                ),
            ),
            _clipping(results),
        ],
        [_curves(start, end), _table(start, end), _training(results)],
        [
            Published(
                f"share of the gradient {k} steps back, at a factor of 0.8 per step",
                "002",
                figure,
                number(at.relative[k], at.runs, ".2g"),
                "ours: an RNN of spectral radius 0.8, in which tanh flattens too",
            )
            for k, figure in ((10, "0.107"), (50, "0.000014"))
        ],
    )


def _at_radius(radius: float, start: dict[str, Flow], end: dict[str, Flow]) -> Markup:
    names = [LABELS[cell, radius] for cell in CELLS]
    return sentence(
        "Radius {:g}, share of the gradient left {} steps back (RNN, LSTM, GRU): {}, {}, {} at the "
        "start and {}, {}, {} after {} steps of training; first under 1% at step {}, {}, {} and "
        "{}, {}, {}.",
        radius,
        STEPS_BACK,
        *(flow[name].left() for flow in (start, end) for name in names),
        TRAINED,
        *(flow[name].vanished() for flow in (start, end) for name in names),
    )


def _clipping(results: Results) -> Markup:
    clipped, free = results[CLIPPED], results[UNCLIPPED]
    return sentence(
        "Clipping bounds the step that a gradient makes. From a radius of {:g} the first "
        "gradient has norm {}. Trained with SGD the validation perplexity ends at {} with the "
        "gradient whole, and at {} with it clipped at 1; of the gradient after these {} steps {} "
        "and {} are left {} steps back.",
        EXPLODING,
        shown(measured(free, lambda record: record.curve("grad_norm")[0][1]), ".3g"),
        shown(measured(free, "valid/perplexity"), ".3g"),
        shown(measured(clipped, "valid/perplexity"), ".3g"),
        TRAINED,
        *(Flow(runs, END).left() for runs in (free, clipped)),
        STEPS_BACK,
    )


def _curves(start: dict[str, Flow], end: dict[str, Flow]) -> Drawing:
    line = [(float(k), RADII[0] ** k) for k in range(STEPS_BACK + 1)]
    panels = []
    for flows, when in ((start, "at the start"), (end, "trained")):
        for cell in CELLS:
            lines = {f"radius {radius:g}": flows[LABELS[cell, radius]].points for radius in RADII}
            if cell == "LSTM":
                lines["forget gate open"] = flows[OPEN].points
            lines[f"{RADII[0]:g} to the k"] = [line]
            panels.append(
                Panel(
                    "steps back, k",
                    "norm against k = 0",
                    lines,
                    f"{cell}, {when}",
                    log_y=True,
                    limits=(1e-12, 1e4),
                )
            )
    return plots.curves(
        "gradient_flow",
        "Norm of the gradient at the state k steps before the loss, as a share of that at k = 0 "
        "(log scale, cut off at 1e-12). Of an LSTM it is the norm over hidden state and memory, at "
        "k = 0 over the hidden state.",
        panels,
        columns=len(CELLS),
        width=3.3,
    )


def _training(results: Results) -> Drawing:
    return study.drawn_curves(
        "gradient_flow_clipping",
        f"An RNN from a spectral radius of {EXPLODING:g}, SGD whose learning rate climbs towards "
        f"3; "
        "the norm is the one before clipping.",
        results,
        [CLIPPED, UNCLIPPED],
        {"gradient norm (log scale)": "grad_norm", "training loss (nats)": "train/loss"},
        log=["gradient norm (log scale)"],
    )


def _table(start: dict[str, Flow], end: dict[str, Flow]) -> Table:
    rows = [
        [
            name,
            *(flow[name].vanished() for flow in (start, end)),
            *(flow[name].left() for flow in (start, end)),
            *(flow[name].per_step() for flow in (start, end)),
        ]
        for name in start
    ]
    head = [
        "run",
        "below 1% at k, start",
        "trained",
        f"share left at k = {STEPS_BACK}, start",
        "trained",
        "factor per step, start",
        "trained",
    ]
    return Table(
        head,
        rows,
        f"Geometric means over three seeds; the factor per step is a mean from k = {SETTLED} on.",
    )


BASE = (
    f"{study.PROFILE} training.max_steps={TRAINED} sampling.length=10 "
    f"evaluation.gradient_steps={STEPS_BACK}"
)
CLIPPING = (
    f"{TUNED['RNN']} model.spectral_radius={EXPLODING} tracking.every=1 optimizer=sgd "
    "optimizer.learning_rate=3"
)
STUDY = Study(
    "gradient_flow",
    study.grid(
        BASE,
        {
            **{
                label: f"{TUNED[cell]} model.spectral_radius={radius}"
                for (cell, radius), label in LABELS.items()
            },
            OPEN: f"{TUNED['LSTM']} model.spectral_radius={RADII[1]} model.forget_gate_bias=3",
            CLIPPED: f"{CLIPPING} training.clip_norm=1",
            UNCLIPPED: f"{CLIPPING} training.clip_norm=null",
        },
    ),
    (
        Question(
            "gradient_flow",
            "Vanishing and exploding gradients",
            "How many steps back does a gradient reach, and what do gates and clipping change?",
            answer,
        ),
    ),
    constants=("evaluation.gradient_steps",),
)
