"""The section of the page: the table of the newest ``bench.json``, how speed and memory grow, and
what a larger machine would give."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from experiments.bench import encoding
from experiments.bench.contest import Row
from experiments.bench.growth import AXES, Grown
from experiments.bench.machine import Machine
from experiments.bench.results import HEAD, PLACE, Results
from experiments.bench.text import AG_NEWS_VOCABULARY, PENN_TREEBANK_VOCABULARY
from experiments.study import Question, Study
from unroll.report import plots
from unroll.report.page import Answer, Drawing, Table, sentence, written
from unroll.report.plots import Panel

GPUS = {
    "NVIDIA A100": (312e12, 2.0e12),
    "NVIDIA H100": (989e12, 3.35e12),
}
"""Products in bfloat16 a second without sparsity, and bytes of memory a second, as the maker's data
sheets of the SXM boards give them."""
MORE_CORES = 4
TEXTS = {"AG_NEWS": AG_NEWS_VOCABULARY, "PENN_TREEBANK": PENN_TREEBANK_VOCABULARY}
QUANTITIES = {"rate": "tokens learned a second", "megabytes": "peak memory (MB)"}


def larger(machine: Machine) -> dict[str, Machine]:
    """Machines by name, whose limits are compared with those of ``machine``."""
    products = {name: MORE_CORES * rate for name, rate in machine.products.items()}
    cores = Machine("cpu", [], products, MORE_CORES * machine.bandwidth)
    gpus = {
        name: Machine("cuda", [], dict.fromkeys(("float32", "bfloat16"), rate), bandwidth)
        for name, (rate, bandwidth) in GPUS.items()
    }
    return {f"{MORE_CORES} times the cores and the memory": cores, **gpus}


def predicted(row: Row, here: Machine, there: Machine) -> float:
    """The rate on another machine if the same share of its limit is reached; NaN where the row has
    no counts."""
    limit = row.limit(there)
    return row.share(here) * limit.rate if limit is not None else float("nan")


def answer(results: Results) -> Answer:
    """The section of some results."""
    cpu = results.devices["cpu"]
    machine, (reached, bars) = cpu.machine, results.reached()
    rates = ", ".join(
        f"{name} {written(rate / 1e9, ',.1f')} GFLOP/s" for name, rate in machine.products.items()
    )
    sentences = [
        sentence(
            "Measured with <code>{}</code> at commit {} on {}: {}.",
            results.command,
            results.commit[:12],
            results.date,
            "; ".join(machine.facts),
        ),
        sentence(
            "In the same run the machine multiplied matrices at {}, and read memory at {} GB/s.",
            rates,
            written(machine.bandwidth / 1e9, ".1f"),
        ),
    ]
    parts: list[Drawing | Table] = []
    if table := results.table():
        sentences += [
            sentence(
                "The text of the lab's sizes is {}; that of the 2 x 200 and 2 x 650 cells is {}.",
                *(_text(results, *each) for each in TEXTS.items()),
            ),
            sentence("{} of the {} bars that were measured are reached.", reached, bars),
        ]
        parts.append(_table(table))
    measured = {point.axis for point in results.growth}
    if measured - {encoding.AXIS}:
        parts.append(_growth(results.growth))
    if encoding.AXIS in measured:
        parts.append(_encoding(results.growth))
    if counted := {row.name: row for row in cpu.rows if row.ours and row.operations is not None}:
        parts.append(_forecast(cpu.machine, counted))
    return Answer(sentences, list(parts))


def _text(results: Results, name: str, tokens: int) -> str:
    if f"{name}=" in results.command:
        return name
    return f"generated under Zipf's law over {tokens:,} tokens"


def _table(lines: Sequence[Sequence[str]]) -> Table:
    return Table(
        list(HEAD),
        [list(line) for line in lines],
        "Ratio: the median over turns in one process, smallest and largest in brackets. Times and "
        "perplexities are divided the other way round, so that a ratio above 1 favours ours; "
        "memory is the difference in MB. Of the limit: the share of the words a second that "
        "the counts of operations and bytes allow on this machine, and which of the two sets it; "
        "it can exceed 100% where weights stay in a cache. PyTorch's example has the words of all "
        "three files of the corpus in its dictionary, ours those of the training text. "
        "The rows against the lab compare what is learned, scored or written in a second, not the "
        "same operations: the lab learns the last word of each window of 100 and reads a window "
        "again for every word that it scores or writes; ours learns every word, carries the state, "
        "and writes 64 texts side by side.",
    )


def _growth(growth: Sequence[Grown]) -> Drawing:
    panels = []
    for axis in AXES:
        found = [point for point in growth if point.axis == axis.name]
        for key, quantity in QUANTITIES.items():
            lines: Mapping[str, list[list[tuple[float, float]]]] = {
                softmax: [
                    [
                        (point.place, getattr(point, key))
                        for point in found
                        if point.softmax == softmax
                    ]
                ]
                for softmax in axis.softmaxes
            }
            panels.append(Panel(axis.name, quantity, lines, log_x=True, log_y=key == "rate"))
    caption = (
        "Speed of training and largest resident memory of its process against hidden units, tokens "
        "of the vocabulary, tokens of the text, and steps of a sequence, each point a process of "
        "its own. LSTM of 256 units over 10,000 tokens where nothing else is said; the "
        "text grows under an RNN of 16 units."
    )
    return plots.curves("bench_growth", caption, panels, columns=2, width=4.2)


def _encoding(growth: Sequence[Grown]) -> Drawing:
    points = [point for point in growth if point.axis == encoding.AXIS]
    panels = []
    for key, quantity in {"rate": "MB of text a second", "megabytes": "peak memory (MB)"}.items():
        lines: dict[str, list[list[tuple[float, float]]]] = {}
        for point in points:
            lines.setdefault(point.softmax, [[]])[0].append((point.place, getattr(point, key)))
        panels.append(Panel(encoding.AXIS, quantity, lines, log_x=True))
    caption = (
        f"Tokenizing a text in {encoding.SHARDS} shards: its rate, in which the start of the "
        "processes counts, and the largest memory of all of them together, without the pages of "
        "mapped files, against the size of the text and by tokenizer and number of processes."
    )
    return plots.curves("bench_encoding", caption, panels, columns=2, width=4.2)


def _forecast(here: Machine, rows: Mapping[str, Row]) -> Table:
    machines = larger(here)
    return Table(
        ["work", "here", *machines],
        [
            [
                f"{name}, {row.unit}",
                written(statistics.median(row.ours), ",.0f"),
                *(written(predicted(row, here, one), ",.0f") for one in machines.values()),
            ]
            for name, row in rows.items()
        ],
        "What a larger machine would give, from the counts: the same share of the limit of its "
        "products and its memory. A recurrence does its steps one after another, so "
        "that small models stay below this on a GPU.",
    )


class BenchStudy(Study):
    """A study whose runs are not in the store: ``make bench`` measures and keeps them."""

    def missing(self) -> str | None:
        return None if PLACE.is_file() else "needs measurements: make bench"


STUDY = BenchStudy(
    "bench",
    (),
    (
        Question(
            "bench",
            "Speed",
            "How fast does it learn, score and write, compared with others and with the machine?",
            lambda _: answer(Results.read(PLACE)),
        ),
    ),
)
