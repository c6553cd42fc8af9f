"""Question 3 of the lab: what changes if the training set is not shuffled?

The lab's windows, shuffled and in the order of the text; and, for streams of every word, random
subsequences beside sequential columns, where keeping the order is what lets the state be carried.
"""

from __future__ import annotations

from experiments.cells import SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, number, sentence, shown
from unroll.report.runs import measured

ROWS = 64
LAB = (
    "experiment=study",
    "data/batching=windows",
    f"data.batching.batch_size={ROWS}",
    "training.epochs=1",
    "training.validate_every=100",
)
WINDOWS = {
    "shuffled windows": ("data.batching.shuffle=true",),
    "windows in order": ("data.batching.shuffle=false",),
}
STREAMS = {
    "random subsequences": ("data/batching=random",),
    "sequential columns": (),
}
KEY = "test/perplexity"


def draw(results: Results) -> list[Section]:
    found = {name: measured(results[name], KEY) for name in (*WINDOWS, *STREAMS)}
    mixed, ordered = (found[name] for name in WINDOWS)
    fresh, carried = (found[name] for name in STREAMS)
    ratio = ordered.mean / mixed.mean
    noise = max(mixed.spread, ordered.spread)
    runs = [*ordered.runs, *mixed.runs]
    answer = [
        sentence(
            "Neighbouring windows share all but one of their words, so that an unshuffled batch is "
            "{} times nearly the same example, and one expects the model to follow the article it "
            "is in. After one epoch the test perplexity is {} in order and {} shuffled: {} times "
            "as much, {}.",
            ROWS,
            shown(ordered),
            shown(mixed),
            number(ratio, runs, ".2f"),
            "more than twice the spread over seeds"
            if abs(ordered.mean - mixed.mean) > 2 * noise
            else "within twice the spread over seeds, so that no harm shows here",
        ),
        sentence(
            "Where every word of a stream is learnt, order is not an enemy: sequential columns, "
            "which carry the state from batch to batch, reach {}, random subsequences {}.",
            shown(carried),
            shown(fresh),
        ),
    ]
    return [
        Section(
            "shuffling",
            "Without shuffling",
            "What changes if the training set is not shuffled?",
            answer,
            [_curves(results), _table(results)],
            lab=3,
        )
    ]


def _curves(results: Results) -> Drawing:
    figure, (above, below) = new(rows=2, height=2.7)
    for position, name in enumerate(WINDOWS):
        for record in results[name]:
            label = name if record is results[name][0] else None
            train, valid = record.curve("train/loss"), record.curve("valid/loss")
            looks = style(position) | {"linewidth": 1.1}
            above.plot(*zip(*train, strict=True), label=label, **looks | {"marker": ""})
            below.plot(*zip(*valid, strict=True), label=label, **looks)
    named(above, "optimizer steps", "loss (nats per token)", "training")
    named(below, "optimizer steps", "loss (nats per token)", "validation")
    above.legend()
    return Drawing(
        "shuffling_loss", "Loss of the lab's windows, shuffled and in order; a line a seed.", figure
    )


def _table(results: Results) -> Table:
    rows = [
        [
            name,
            shown(measured(results[name], KEY)),
            shown(measured(results[name], "valid/perplexity")),
        ]
        for name in (*WINDOWS, *STREAMS)
    ]
    return Table(
        ["batches", "test perplexity", "validation perplexity"],
        rows,
        f"An LSTM of 128 units, {len(SEEDS)} seeds. Windows: one epoch of batches of {ROWS}; "
        "streams: four epochs of batches of 16. Compare within a pair.",
    )


STUDY = Study(
    "shuffling",
    tuple(
        Job(name, ("model=lstm", *words, f"seed={seed}"))
        for name, words in {
            **{name: (*LAB, *words) for name, words in WINDOWS.items()},
            **{name: ("experiment=study", *words) for name, words in STREAMS.items()},
        }.items()
        for seed in SEEDS
    ),
    draw,
)
