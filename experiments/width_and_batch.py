"""Width and batch size of a character RNN: the first 20 updates (seed document 001)."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable

from markupsafe import Markup

from experiments.cells import SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import logarithmic, named, new, style
from unroll.report.page import Drawing, Published, Section, Table, sentence, shown
from unroll.report.runs import Measured, Record, derived

WIDTHS = {f"{units} units": f"width/{units}" for units in (128, 200, 300)}
BATCHES = {f"{rows} rows": f"batch/{rows}" for rows in (16, 32, 64)}


def last(record: Record) -> float:
    """Perplexity of the last update's batch."""
    return record.curve("train/perplexity")[-1][1]


def noise(record: Record) -> float:
    """Mean change of the loss, up or down, from one update to the next over the second half."""
    losses = [value for _, value in record.curve("train/loss")][10:]
    return statistics.fmean(abs(b - a) for a, b in itertools.pairwise(losses))


def draw(results: Results) -> list[Section]:
    ends = {label: derived(results[label], last) for label in (*WIDTHS, *BATCHES)}
    moves = {label: derived(results[label], noise) for label in (*WIDTHS, *BATCHES)}
    best = min(WIDTHS, key=lambda label: ends[label].mean)
    quiet = min(BATCHES, key=lambda label: moves[label].mean)
    answer = [
        sentence(
            "After 20 updates the perplexity is {}: lowest with {}. What the document found, 200 "
            "units better than 128 and 300 harder to train, {}.",
            listed(WIDTHS, ends),
            best,
            "comes out" if best == "200 units" else "does not come out over these seeds",
        ),
        sentence(
            "With batches of different sizes it is {}. From one update to the next the loss moves "
            "by {} nats: least with {}.",
            listed(BATCHES, ends),
            listed(BATCHES, moves, ".3f"),
            quiet,
        ),
    ]
    rows = [
        [label, shown(ends[label], ".2f"), shown(moves[label], ".3f")]
        for label in (*WIDTHS, *BATCHES)
    ]
    head = ["setting", "perplexity of update 20", "change of the loss an update (nats)"]
    return [
        Section(
            "width_and_batch",
            "Width and batch size",
            "How do width and batch size change the first 20 updates of a character RNN?",
            answer,
            [
                _curves(results),
                Table(head, rows, f"Mean ± standard deviation over {len(SEEDS)} seeds."),
            ],
            published=[
                Published(
                    "character RNN, batches of 16: falls fast to a perplexity of",
                    "001",
                    "about 10",
                    shown(ends["16 rows"]),
                    "after 20 updates",
                ),
                Published(
                    "character RNN, the best of 128, 200 and 300 units",
                    "001",
                    "200 units",
                    best,
                    "the spread over seeds is as large as the differences"
                    if max(ends[label].spread for label in WIDTHS)
                    > max(ends[a].mean - ends[best].mean for a in WIDTHS)
                    else "",
                ),
                Published(
                    "character RNN, the smoothest of batches of 16, 32 and 64", "001", "64", quiet
                ),
            ],
        )
    ]


def listed(labels: Iterable[str], measures: dict[str, Measured], form: str = ".1f") -> Markup:
    parts = [sentence("{} with {}", shown(measures[label], form), label) for label in labels]
    return Markup(", ").join(parts)


def _curves(results: Results) -> Drawing:
    figure, both = new(rows=2, height=2.8)
    for axes, labels in zip(both, (WIDTHS, BATCHES), strict=True):
        for position, label in enumerate(labels):
            for record in results[label]:
                points = record.curve("train/perplexity")
                first = record is results[label][0]
                axes.plot(
                    *zip(*points, strict=True),
                    label=label if first else None,
                    **style(position) | {"markersize": 3, "linewidth": 1},
                )
        logarithmic(axes)
        named(axes, "updates", "perplexity of the batch (log scale)")
        axes.legend(fontsize=8)
    return Drawing("width_and_batch", "Perplexity at each update, a line for each seed.", figure)


STUDY = Study(
    "width_and_batch",
    tuple(
        Job(label, (f"experiment={name}", f"seed={seed}"))
        for label, name in (WIDTHS | BATCHES).items()
        for seed in SEEDS
    ),
    draw,
    corpus="time_machine",
)
