"""Question 2 of the lab: why turn words into indices? An index picks a row of a table; the same
word as a one-hot vector picks it by a product with the whole table."""

from __future__ import annotations

from experiments.cells import SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, number, sentence, shown
from unroll.report.runs import Record, derived, measured

STEPS = 60
INPUTS = {
    "index and embedding": (),
    "one-hot vector": ("model.one_hot=true",),
}


def draw(results: Results) -> list[Section]:
    index, one_hot = (results[name] for name in INPUTS)
    speed = [measured(records, "tokens_per_second") for records in (index, one_hot)]
    size = float(index[0].params["data.vocabulary_size"])
    runs = [*speed[0].runs, *speed[1].runs]
    answer = [
        sentence(
            "A network multiplies numbers, so a word has to become one; and the number must not "
            "mean anything, since no word is twice another. An index only names a row in a table "
            "of learned vectors. As a one-hot vector the same word is {} numbers, all but one of "
            "them zero.",
            number(size, [index[0].run_id], ",.0f"),
        ),
        sentence(
            "With indices the model learns from {} tokens a second, with one-hot vectors from {}: "
            "{} times fewer. It learns no better for it: a test perplexity of {} against {} after "
            "{} steps.",
            shown(speed[0], ",.0f"),
            shown(speed[1], ",.0f"),
            number(speed[0].mean / speed[1].mean, runs),
            shown(measured(index, "test/perplexity"), ".0f"),
            shown(measured(one_hot, "test/perplexity"), ".0f"),
            STEPS,
        ),
    ]
    return [
        Section(
            "indices",
            "Why indices?",
            "Why turn words into indices?",
            answer,
            [_bars(results), _table(results)],
            lab=2,
        )
    ]


def _bars(results: Results) -> Drawing:
    figure, axes = new(height=2.2)
    for position, name in enumerate(INPUTS):
        measure = measured(results[name], "tokens_per_second")
        colour = style(position)["color"]
        axes.barh(position, measure.mean, xerr=measure.spread, color=colour, height=0.6, capsize=3)
    axes.set_yticks(range(len(INPUTS)), list(INPUTS))
    named(axes, "training speed (tokens a second, one thread)", "input")
    return Drawing("indices_speed", "Training speed; lines: spread over seeds.", figure)


def _table(results: Results) -> Table:
    rows = [
        [
            name,
            shown(derived(results[name], _parameters), ",.0f"),
            shown(measured(results[name], "tokens_per_second"), ",.0f"),
            shown(measured(results[name], "test/perplexity")),
        ]
        for name in INPUTS
    ]
    head = ["input", "parameters", "tokens a second", "test perplexity"]
    return Table(head, rows, f"An LSTM of 128 units after {STEPS} steps, {len(SEEDS)} seeds.")


def _parameters(record: Record) -> float:
    return float(record.params["model.parameters"])


STUDY = Study(
    "indices",
    tuple(
        Job(
            name,
            (
                "experiment=study",
                "model=lstm",
                f"training.max_steps={STEPS}",
                *words,
                f"seed={seed}",
            ),
            alone=True,
        )
        for name, words in INPUTS.items()
        for seed in SEEDS
    ),
    draw,
)
