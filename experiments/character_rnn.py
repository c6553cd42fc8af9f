"""The character RNNs of the seed documents: lyrics (004) and The Time Machine (001, 003).

Each runs at its published setting and stands beside its published figures. The texts do not come
with the project: a study whose text is not given is skipped.
"""

from __future__ import annotations

from markupsafe import Markup

from experiments.cells import SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import logarithmic, named, new, style
from unroll.report.page import (
    Drawing,
    Published,
    Section,
    Table,
    Text,
    linked,
    number,
    sentence,
    shown,
)
from unroll.report.runs import Record, measured

CURVE = "train/epoch_perplexity"

Settings = dict[str, tuple[str, dict[int, str], str | None]]
"""By label: the overlay, the published perplexity by epoch, and the published pace."""

EPOCHS = (50, 100, 150, 200, 250)
LIBRARY = "of the library, sequential batches"
CLIPPED = "of the library, clipped at 0.01"
LYRICS: Settings = {
    "from scratch, random batches": (
        "random",
        {50: "68.14", 100: "9.41", 150: "2.84", 200: "1.58", 250: "1.299"},
        "0.55",
    ),
    "from scratch, sequential batches": (
        "sequential",
        {50: "59.46", 100: "6.88", 150: "2.00", 200: "1.27", 250: "1.155"},
        "0.50",
    ),
    LIBRARY: (
        "library",
        {50: "10.67", 100: "1.287", 150: "1.066", 200: "1.034", 250: "1.022"},
        "0.39",
    ),
    CLIPPED: ("library", {}, None),
}
TIME_MACHINE: Settings = {
    "from scratch, sequential batches": ("scratch", {500: "about 1.0"}, None),
    "from scratch, random batches": ("random", {}, None),
    LIBRARY: ("library", {500: "about 1.3"}, "93,581"),
}


def at(record: Record, epoch: int) -> float:
    """Training perplexity of an epoch, counted from 1."""
    return record.curve(CURVE)[epoch - 1][1]


def seconds_per_epoch(record: Record) -> float:
    result = record.result()
    return float(result["tokens"] / result["tokens_per_second"] / result["epochs"])


def draw_lyrics(results: Results) -> list[Section]:
    rows, published = [], []
    for label, (name, figures, pace) in LYRICS.items():
        record = results[label][0]
        runs = [record.run_id]
        for epoch, figure in figures.items():
            ours = number(at(record, epoch), runs, ".3f")
            published.append(
                Published(
                    f"lyrics, RNN {label}: perplexity after {epoch} epochs",
                    "004",
                    figure,
                    ours,
                    "not clipped: nor is it in the published code" if name == "library" else "",
                )
            )
        spent = number(seconds_per_epoch(record), runs, ".2f")
        if pace is not None:
            what = f"lyrics, RNN {label}: seconds an epoch"
            published.append(Published(what, "004", pace, spent, "another machine"))
        course = (number(at(record, epoch), runs, ".3f") for epoch in EPOCHS)
        rows.append([label, *course, spent])
    answer = [
        sentence(
            "After {} epochs the perplexity is {} from scratch on random batches, {} on sequential "
            "ones and {} with the library's RNN and Adam: the text is learnt by heart.",
            EPOCHS[-1],
            *(_at(results, label, EPOCHS[-1]) for label in LYRICS if label != CLIPPED),
        ),
        sentence(
            "The document says that the library's RNN is clipped at 0.01. Its code never clips: it "
            "hands an iterator over the parameters to a function that goes through it twice, and "
            "the second time nothing is left. Clipped as it says, the perplexity after {} epochs "
            "is {}; not clipped, {}; published, {}.",
            EPOCHS[0],
            _at(results, CLIPPED, EPOCHS[0]),
            _at(results, LIBRARY, EPOCHS[0]),
            LYRICS[LIBRARY][1][EPOCHS[0]],
        ),
    ]
    head = ["RNN", *(f"after {epoch}" for epoch in EPOCHS), "seconds an epoch"]
    return [
        Section(
            "lyrics",
            "A character RNN on lyrics",
            "Do the published figures of the character RNN on song lyrics come out?",
            answer,
            [
                _curves(results, "lyrics", LYRICS),
                Table(head, rows, "Training perplexity after so many epochs."),
                _texts(results),
            ],
            published=published,
        )
    ]


def _at(results: Results, label: str, epoch: int) -> Markup:
    record = results[label][0]
    return number(at(record, epoch), [record.run_id], ".3f")


def draw_time_machine(results: Results) -> list[Section]:
    published = []
    ends = {}
    for label, (_, figures, pace) in TIME_MACHINE.items():
        record = results[label][0]
        ends[label] = shown(measured(results[label], CURVE), ".2f")
        for epoch, figure in figures.items():
            published.append(
                Published(
                    f"The Time Machine, RNN {label}: perplexity after {epoch} epochs",
                    "003",
                    figure,
                    ends[label],
                )
            )
        if pace is not None:
            speed = number(record.metric("tokens_per_second"), [record.run_id], ",.0f")
            published.append(
                Published(
                    f"The Time Machine, RNN {label}: tokens a second",
                    "003",
                    pace,
                    speed,
                    "another machine, of unknown cores; ours is one thread",
                )
            )
    answer = [
        sentence(
            "After 500 epochs over the first 10,000 characters the perplexity is {} from scratch "
            "with sequential batches, {} with random ones, and {} for the library's RNN. With a "
            "learning rate of 1 it goes up and down by a few hundredths from epoch to epoch.",
            *(ends[label] for label in TIME_MACHINE),
        )
    ]
    return [
        Section(
            "time_machine",
            "A character RNN on The Time Machine",
            "Do the published figures of the character RNN on The Time Machine come out?",
            answer,
            [_curves(results, "time_machine", TIME_MACHINE), _texts(results)],
            published=published,
        )
    ]


def _curves(
    results: Results, name: str, labels: dict[str, tuple[str, dict[int, str], object]]
) -> Drawing:
    figure, axes = new()
    for position, (label, (_, figures, _pace)) in enumerate(labels.items()):
        points = results[label][0].curve(CURVE)
        looks = style(position)
        epochs = range(1, len(points) + 1)
        axes.plot(epochs, [value for _, value in points], label=label, **looks | {"marker": ""})
        read = {epoch: value for epoch, value in figures.items() if value[0].isdigit()}
        axes.plot(
            list(read),
            [float(value) for value in read.values()],
            **looks | {"linestyle": "none", "markersize": 6},
            label=f"{label}: published" if read else None,
        )
    logarithmic(axes)
    named(axes, "epochs", "training perplexity (log scale)")
    axes.legend(fontsize=8)
    return Drawing(name, "Training perplexity; marks: the published figures.", figure)


def _texts(results: Results) -> Text:
    rows = []
    for label, (record, *_) in results.items():
        for sample in record.result()["samples"]:
            rows.append((linked(label, [record.run_id]), sample["prefix"], sample["text"]))
    return Text(rows)


LYRICS_STUDY = Study(
    "lyrics",
    tuple(
        Job(
            label,
            (
                f"experiment=lyrics/{name}",
                *(("training.clip_norm=0.01",) if label == CLIPPED else ()),
            ),
        )
        for label, (name, *_) in LYRICS.items()
    ),
    draw_lyrics,
    corpus="lyrics",
)
TIME_MACHINE_STUDY = Study(
    "time_machine",
    tuple(
        Job(label, (f"experiment=time_machine/{name}", f"seed={seed}"))
        for label, (name, *_) in TIME_MACHINE.items()
        for seed in (SEEDS if label == LIBRARY else SEEDS[:1])
    ),
    draw_time_machine,
    corpus="time_machine",
)
