"""Question 10 of the lab: if it must be the RNN, what in the code can be improved?

The lab's RNN at a quarter of its width, then one change at a time, then all together. Every
variant takes the same number of optimizer steps over batches of the same number of rows.
"""

from __future__ import annotations

from experiments.cells import SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import logarithmic, named, new, style
from unroll.report.page import Drawing, Section, Table, sentence, shown
from unroll.report.runs import measured

BASELINE = "the lab's RNN"
ALL = "all together"
STEPS = 150
LAB = (
    "experiment=lab/rnn",
    "data=lee_news",
    "data.vocabulary.min_frequency=2",
    "model.hidden_size=128",
    "optimizer.learning_rate=1e-3",
    f"training.max_steps={STEPS}",
    f"training.validate_every={STEPS // 4}",
    "sampling.prefix_length=10",
    "sampling.length=30",
)
CHANGES = {
    "clipping": ("training.clip_norm=1.0",),
    "dropout": ("training.dropout=0.3",),
    "carried state": ("data/batching=sequential", "data.batching.length=35"),
    "orthogonal": ("model.initialization=orthogonal",),
    "tied weights": ("model.tie_weights=true",),
    "schedule": ("optimizer/schedule=cosine", "optimizer.schedule.warmup_steps=15"),
}
EXPLAINED = {
    "clipping": "gradient norm clipped at 1",
    "dropout": "dropout of 0.3 on embedding, between layers and on output",
    "carried state": "every word is a target; truncation at 35 steps with the state carried, in "
    "place of windows with one target each",
    "orthogonal": "recurrent matrices orthogonal at the start",
    "tied weights": "one matrix for embedding and softmax",
    "schedule": "warm-up over 15 steps, then half a cosine down",
    ALL: "all of the above",
}


def draw(results: Results) -> list[Section]:
    key = "test/perplexity"
    base = measured(results[BASELINE], key)
    found = {name: measured(results[name], key) for name in (*CHANGES, ALL)}
    ranked = sorted(CHANGES, key=lambda name: found[name].mean)
    rows = [[BASELINE, "100 words in, the next one out", shown(base), ""]]
    for name in (*ranked, ALL):
        change = (found[name].mean / base.mean - 1) * 100
        rows.append([name, EXPLAINED[name], shown(found[name]), f"{change:+.1f} %"])
    answer = [
        sentence(
            "After {} steps the lab's RNN has a test perplexity of {}. The change that gives most "
            "is “{}”, which brings {}; all changes together bring {}.",
            STEPS,
            shown(base),
            ranked[0],
            shown(found[ranked[0]]),
            shown(found[ALL]),
        ),
        sentence(
            "A window of 100 words teaches one word. Reading the same text in sequence, every "
            "word is a target, so that a step teaches 35 times as much for a third of the reading."
        ),
    ]
    if found[ALL].mean > found[ranked[0]].mean:
        answer.append(
            sentence(
                "All together do less than the best alone: within {} steps what else is changed "
                "slows the learning more than it helps.",
                STEPS,
            )
        )
    return [
        Section(
            "rnn_improvements",
            "Improving the RNN",
            "If it must be the RNN, what in the lab's code can be improved?",
            answer,
            [
                _bars(results, ranked),
                Table(
                    ["change", "what it is", "test perplexity", "against the lab's"],
                    rows,
                    f"Mean ± standard deviation over {len(SEEDS)} seeds.",
                ),
                _curves(results, ranked),
            ],
            lab=10,
        )
    ]


def _bars(results: Results, ranked: list[str]) -> Drawing:
    figure, axes = new(height=3.4)
    names = [BASELINE, *reversed(ranked), ALL]
    for position, name in enumerate(reversed(names)):
        measure = measured(results[name], "test/perplexity")
        colour = "#777777" if name == BASELINE else "#0b5394"
        axes.barh(position, measure.mean, xerr=measure.spread, color=colour, height=0.6, capsize=3)
        axes.text(measure.mean + measure.spread, position, f"  {measure.mean:.0f}", va="center")
    axes.set_yticks(range(len(names)), list(reversed(names)))
    named(axes, "test perplexity (lower is better)", "change")
    axes.margins(x=0.12)
    return Drawing(
        "rnn_improvements",
        "Test perplexity after the same number of steps; lines: spread over seeds.",
        figure,
    )


def _curves(results: Results, ranked: list[str]) -> Drawing:
    figure, axes = new()
    for position, name in enumerate((BASELINE, ranked[0], ranked[1], ALL)):
        points = results[name][0].curve("valid/perplexity")
        axes.plot(
            [step for step, _ in points],
            [value for _, value in points],
            label=name,
            **style(position),
        )
    logarithmic(axes)
    named(axes, "optimizer steps", "validation perplexity (log scale)")
    axes.legend()
    return Drawing("rnn_improvements_curves", "Validation perplexity of the first seed.", figure)


VARIANTS = {
    BASELINE: (),
    **CHANGES,
    ALL: tuple(word for words in CHANGES.values() for word in words),
}

STUDY = Study(
    "rnn_improvements",
    tuple(
        Job(name, (*LAB, *words, f"seed={seed}"))
        for name, words in VARIANTS.items()
        for seed in SEEDS
    ),
    draw,
)
