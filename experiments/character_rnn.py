"""The character RNNs of the seed documents: lyrics (004) and The Time Machine (001, 003).

Each runs at its published setting and stands beside its published figures. The texts do not come
with the project: a study whose text is not given is skipped.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from experiments import speed, study
from experiments.study import Column, Question, Results, Study
from unroll.data.vocabulary import SPECIALS
from unroll.report import plots
from unroll.report.page import Answer, Drawing, Published, number, sentence, shown
from unroll.report.plots import Panel
from unroll.report.runs import Record, measured
from unroll.report.verdict import verdict

CURVE = "train/epoch_perplexity"
EPOCHS = (50, 100, 150, 200, 250)


@dataclass(frozen=True)
class Setting:
    """An overlay with its published figures."""

    words: str
    perplexity: Mapping[int, str] = field(default_factory=dict)
    """By epoch."""
    speed: str | None = None
    """Seconds an epoch (lyrics) or targets a second (The Time Machine)."""


LIBRARY, CLIPPED = "library, sequential batches", "library, clipped at 0.01"
LYRICS = {
    "from scratch, random batches": Setting(
        "experiment=lyrics/random",
        dict(zip(EPOCHS, ("68.14", "9.41", "2.84", "1.58", "1.299"), strict=True)),
        "0.55",
    ),
    "from scratch, sequential batches": Setting(
        "experiment=lyrics/sequential",
        dict(zip(EPOCHS, ("59.46", "6.88", "2.00", "1.27", "1.155"), strict=True)),
        "0.50",
    ),
    LIBRARY: Setting(
        "experiment=lyrics/library",
        dict(zip(EPOCHS, ("10.67", "1.287", "1.066", "1.034", "1.022"), strict=True)),
        "0.39",
    ),
    CLIPPED: Setting("experiment=lyrics/library training.clip_norm=0.01"),
}
TIME_MACHINE = {
    "from scratch, sequential batches": Setting(
        "experiment=time_machine/scratch", {500: "about 1.0"}
    ),
    "from scratch, random batches": Setting("experiment=time_machine/random"),
    LIBRARY: Setting("experiment=time_machine/library", {500: "about 1.3"}, "93,581"),
}
PUBLISHED_CHARACTERS = 1027
"""Distinct ones in the first 10,000 of the lyrics, as document 004 gives them."""


def at(epoch: int) -> Column:
    """Training perplexity of an epoch, counted from 1."""
    return Column(f"after {epoch}", lambda record: record.curve(CURVE)[epoch - 1][1], ".3f")


def seconds_per_epoch(record: Record) -> float:
    result = record.result()
    return float(result["tokens"] / result["epochs"] / record.value(speed.SPEED))


def published(
    results: Results, text: str, source: str, settings: Mapping[str, Setting], remark: str
) -> list[Published]:
    """A row for each published perplexity."""
    return [
        Published(
            f"{text}, RNN {label}: perplexity after {epoch} epochs",
            source,
            figure,
            shown(measured(results[label], at(epoch).figure), ".3f"),
            remark,
        )
        for label, setting in settings.items()
        for epoch, figure in setting.perplexity.items()
    ]


def answer_lyrics(results: Results) -> Answer:
    first, last = at(EPOCHS[0]).figure, at(EPOCHS[-1]).figure
    early = study.measures(results, LYRICS, first)
    characters = results[LIBRARY][0].value("data.vocabulary_size") - len(SPECIALS)
    edition = f"{characters:,.0f} distinct characters here, {PUBLISHED_CHARACTERS:,} published"
    rows = published(results, "lyrics", "004", LYRICS, edition)
    for label, setting in LYRICS.items():
        if setting.speed is not None:
            spent = measured(results[speed.label(label)], seconds_per_epoch)
            rows.append(
                Published(
                    f"lyrics, RNN {label}: seconds an epoch",
                    "004",
                    setting.speed,
                    shown(spent, ".2f"),
                    "another machine; ours: one thread, alone",
                )
            )
    return Answer(
        [
            sentence(
                "Training perplexity after {} epochs: {}.",
                EPOCHS[-1],
                study.listed(study.measures(results, [*LYRICS][:3], last), ".3f"),
            ),
            sentence(
                "The text at hand has {} distinct characters; document 004 counts {:,} in its "
                "edition. With another number, equal figures cannot be expected.",
                number(characters, [results[LIBRARY][0].run_id], ",.0f"),
                PUBLISHED_CHARACTERS,
            ),
            sentence(
                "Document 004 says that the library's RNN is clipped at 0.01. Its code never "
                "clips: it passes an iterator over the parameters to a function that goes through "
                "it twice, and the second time nothing is left. After {} epochs, {}; published: "
                "{}.",
                EPOCHS[0],
                verdict(("not clipped", "clipped"), early[LIBRARY], early[CLIPPED]),
                LYRICS[LIBRARY].perplexity[EPOCHS[0]],
            ),
        ],
        [
            _curves(results, "lyrics", LYRICS),
            study.table(
                "RNN",
                results,
                LYRICS,
                [at(epoch) for epoch in EPOCHS],
                "Training perplexity after so many epochs.",
            ),
            study.texts(results, LYRICS, 2),
        ],
        rows,
    )


def _change(record: Record) -> float:
    """Mean absolute change of the perplexity from epoch to epoch over the last 20."""
    values = [value for _, value in record.curve(CURVE)][-21:]
    return statistics.fmean(abs(b - a) for a, b in itertools.pairwise(values))


def answer_time_machine(results: Results) -> Answer:
    rows = published(results, "The Time Machine", "003", TIME_MACHINE, "")
    rows.append(
        Published(
            f"The Time Machine, RNN {LIBRARY}: tokens a second",
            "003",
            TIME_MACHINE[LIBRARY].speed or "",
            speed.pace(results[speed.label(LIBRARY)]),
            "another machine, number of cores unknown; ours: one thread, alone",
        )
    )
    return Answer(
        [
            sentence(
                "Training perplexity after 500 epochs over the first 10,000 characters: {}. From "
                "epoch to epoch it changes by {} over the last 20 (absolute mean, library's RNN).",
                study.listed(study.measures(results, TIME_MACHINE, at(500).figure), ".2f"),
                shown(measured(results[LIBRARY], _change), ".3f"),
            )
        ],
        [_curves(results, "time_machine", TIME_MACHINE), study.texts(results, TIME_MACHINE, 2)],
        rows,
    )


def _curves(results: Results, name: str, settings: Mapping[str, Setting]) -> Drawing:
    by_epoch = {
        label: [
            [(float(epoch), value) for epoch, (_, value) in enumerate(curve, start=1)]
            for curve in found
        ]
        for label, found in study.curves_of(results, settings, CURVE).items()
    }
    marks = {
        label: [
            (float(epoch), float(figure))
            for epoch, figure in setting.perplexity.items()
            if figure[0].isdigit()
        ]
        for label, setting in settings.items()
    }
    panel = Panel("epochs", "training perplexity (log scale)", by_epoch, log_y=True, marks=marks)
    return plots.curves(name, "Training perplexity, a line for each seed.", [panel])


def _words(settings: Mapping[str, Setting]) -> dict[str, str]:
    return {label: setting.words for label, setting in settings.items()}


LYRICS_STUDY = Study(
    "lyrics",
    (
        *study.grid("", _words(LYRICS)),
        *speed.timed(
            "", {label: each.words for label, each in LYRICS.items() if each.speed is not None}
        ),
    ),
    (
        Question(
            "lyrics",
            "A character RNN on lyrics",
            "Can the published figures of the character RNN on song lyrics be reproduced?",
            answer_lyrics,
        ),
    ),
    corpus="lyrics",
)
TIME_MACHINE_STUDY = Study(
    "time_machine",
    (
        *study.grid("", _words(TIME_MACHINE)),
        *speed.timed("", {LIBRARY: TIME_MACHINE[LIBRARY].words}),
    ),
    (
        Question(
            "time_machine",
            "A character RNN on The Time Machine",
            "Can the published figures of the character RNN on The Time Machine be reproduced?",
            answer_time_machine,
        ),
    ),
    corpus="time_machine",
)
