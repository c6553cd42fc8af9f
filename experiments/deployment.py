"""Question 9 of the lab: on a phone, which of the three would one deploy?

Size on disk, resident memory and milliseconds a token on one thread, in float32 and with weights of
eight bits, and what eight bits do to perplexity.
"""

from __future__ import annotations

from experiments import cells
from experiments.cells import CELLS, SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new
from unroll.report.page import Drawing, Section, Table, number, sentence, shown
from unroll.report.runs import Measured, Record, derived

PRECISIONS = ("float32", "int8")


def label(cell: str) -> str:
    return f"deploy {cell}"


def follow(results: Results) -> tuple[Job, ...]:
    return tuple(
        Job(label(cell), ("task=deploy", f"run={record.run_id}"), alone=True)
        for cell in CELLS
        for record in results[cell]
    )


def figure_of(results: Results, cell: str, precision: str, key: str) -> Measured:
    scale = 1e-6 if key.endswith("bytes") else 1.0
    return derived(results[label(cell)], lambda record: scale * record.metric(f"{precision}/{key}"))


def draw(results: Results) -> list[Section]:
    small = {cell: figure_of(results, cell, "int8", "bytes") for cell in CELLS}
    large = {cell: figure_of(results, cell, "float32", "bytes") for cell in CELLS}
    pace = {cell: figure_of(results, cell, "int8", "milliseconds_per_token") for cell in CELLS}
    test = {cell: figure_of(results, cell, "int8", "perplexity") for cell in CELLS}
    before = {cell: figure_of(results, cell, "float32", "perplexity") for cell in CELLS}
    fast = min(CELLS, key=lambda cell: pace[cell].mean)
    good = min(CELLS, key=lambda cell: test[cell].mean)
    runs = [*small[good].runs]
    plain = figure_of(results, good, "float32", "milliseconds_per_token")
    answer = [
        sentence(
            "By perplexity the {}: in eight bits it takes {} MB on disk and {} ms a token on one "
            "thread, at {} ({} in float32). {}",
            good.upper(),
            shown(small[good], ".2f"),
            shown(pace[good], ".3f"),
            shown(test[good]),
            shown(before[good]),
            sentence(
                "By speed the {}: in eight bits {} ms, at {}. Mind the spread of both.",
                fast.upper(),
                shown(pace[fast], ".3f"),
                shown(test[fast]),
            )
            if fast != good
            else "None is faster in eight bits.",
        ),
        sentence(
            "Eight bits make the file {} times smaller, and a token takes {} times as long. "
            "Embedding and softmax are {}% of the {}'s parameters, so that a smaller vocabulary "
            "buys more than a smaller cell.",
            number(large[good].mean / small[good].mean, runs),
            number(pace[good].mean / plain.mean, runs, ".2f"),
            number(100 * _outside(results[good][0]), runs, ".0f"),
            good.upper(),
        ),
    ]
    return [
        Section(
            "deployment",
            "On a phone",
            "On a phone, which of the three would one deploy?",
            answer,
            [_bars(results), _table(results)],
            lab=9,
        )
    ]


def _outside(record: Record) -> float:
    """Share of the parameters that lie in embedding and softmax."""
    vocabulary, embedding, hidden, total = (
        int(record.params[key])
        for key in (
            "data.vocabulary_size",
            "model.embedding_size",
            "model.hidden_size",
            "model.parameters",
        )
    )
    return vocabulary * (embedding + hidden + 1) / total


def _bars(results: Results) -> Drawing:
    figure, both = new(rows=2, height=2.5)
    for axes, key, name in zip(
        both,
        ("bytes", "milliseconds_per_token"),
        ("size on disk (MB)", "time of a token (ms)"),
        strict=True,
    ):
        for offset, precision in ((-0.2, "float32"), (0.2, "int8")):
            looks = {"color": "0.35" if precision == "float32" else "0.75", "width": 0.38}
            found = [figure_of(results, cell, precision, key) for cell in CELLS]
            axes.bar(
                [position + offset for position in range(len(CELLS))],
                [measure.mean for measure in found],
                yerr=[measure.spread for measure in found],
                label=precision,
                **looks,
            )
        axes.set_xticks(range(len(CELLS)), [cell.upper() for cell in CELLS])
        named(axes, "cell", name)
    both[0].legend()
    return Drawing("deployment", "Size and time of a token in float32 and in eight bits.", figure)


def _table(results: Results) -> Table:
    rows = [
        [
            f"{cell.upper()}, {precision}",
            shown(figure_of(results, cell, precision, "bytes"), ".2f"),
            shown(figure_of(results, cell, precision, "model_bytes")),
            shown(figure_of(results, cell, precision, "milliseconds_per_token"), ".3f"),
            shown(figure_of(results, cell, precision, "perplexity")),
        ]
        for cell in CELLS
        for precision in PRECISIONS
    ]
    head = ["model", "MB on disk", "MB resident", "ms a token", "test perplexity"]
    return Table(
        head,
        rows,
        "Resident: of a fresh process that writes, less one that only imported PyTorch. One token "
        f"at a time, one thread. Mean ± standard deviation over {len(SEEDS)} runs.",
    )


STUDY = Study("deployment", cells.STUDY.jobs, draw, then=follow)
