"""Questions 4, 5 and 7 of the lab, and what temperature does: every model reads what every model
wrote, what people wrote, and the test split."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from experiments import cells
from experiments.cells import CELLS, SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, Text, linked, sentence, shown
from unroll.report.runs import Measured, Record, derived

READ = "every cell reads every cell"
TEMPERATURES = (0.3, 0.5, 0.8, 1.0, 1.2, 1.5)
PLAIN, GREEDY = "1.0", "greedy"
MODES = (GREEDY, *map(str, TEMPERATURES))
PEOPLE, TEST = "people", "test"


def follow(results: Results) -> tuple[Job, ...]:
    """A comparison for each seed."""
    return tuple(
        Job(
            READ,
            (
                "task=compare",
                "experiment=study",
                f"task.runs=[{','.join(results[cell][index].run_id for cell in CELLS)}]",
                f"task.temperatures=[{','.join(map(str, TEMPERATURES))}]",
                "sampling.prefix=null",
                "sampling.prefix_length=10",
                "sampling.prefix_documents=16",
                "sampling.samples=1",
                "sampling.length=50",
                "evaluation.protocol=document",
            ),
        )
        for index in range(len(SEEDS))
    )


class Matrix:
    """What the comparisons of all seeds found, by cell instead of by run id."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self._found = [_by_cell(record.result()) for record in records]

    def perplexity(self, reader: str, writer: str, mode: str | None = None) -> Measured:
        """Perplexity of a reader on what a writer wrote, a value for each seed."""
        return self._measure(lambda found: found["scores"][reader, writer, mode])

    def diversity(self, writer: str, mode: str | None, key: str) -> Measured:
        return self._measure(lambda found: found["texts"][writer, mode][key])

    def mean(self, measures: list[Measured]) -> Measured:
        """The mean of several measures, seed by seed."""
        values = zip(*(measure.values for measure in measures), strict=True)
        return Measured(tuple(map(statistics.fmean, values)), measures[0].runs)

    def samples(self, writer: str, mode: str | None) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self._found[0]["texts"][writer, mode]["samples"]
        return found

    def _measure(self, look: Callable[[dict[str, Any]], float]) -> Measured:
        found = iter(self._found)
        return derived(self.records, lambda record: look(next(found)))


def _by_cell(result: dict[str, Any]) -> dict[str, Any]:
    cell = {run["run_id"]: run["model"] for run in result["runs"]}
    return {
        "scores": {
            (cell[item["reader"]], cell.get(item["writer"], item["writer"]), item["mode"]): (
                float("inf") if item["perplexity"] is None else item["perplexity"]
            )
            for item in result["scores"]
        },
        "texts": {
            (cell.get(item["writer"], item["writer"]), item["mode"]): item
            for item in result["texts"]
        },
    }


def draw(results: Results) -> list[Section]:
    matrix = Matrix(results[READ])
    return [_write_better(matrix), _lower(matrix), _own_text(matrix), _temperature(matrix)]


def _write_better(matrix: Matrix) -> Section:
    test = {cell: matrix.perplexity(cell, TEST) for cell in CELLS}
    read = {
        cell: matrix.mean(
            [matrix.perplexity(reader, cell, PLAIN) for reader in CELLS if reader != cell]
        )
        for cell in CELLS
    }
    model, writer = (min(found, key=lambda cell: found[cell].mean) for found in (test, read))
    noise = max(test[cell].spread for cell in ("rnn", "lstm"))
    close = abs(test["rnn"].mean - test["lstm"].mean) < 2 * noise
    answer = [
        sentence(
            "Two perplexities may be compared when text, tokens, vocabulary and protocol are the "
            "same, and when the difference is more than chance. On the test split the RNN has {} "
            "and the LSTM {}, which is {}.",
            shown(test["rnn"]),
            shown(test["lstm"]),
            "within twice the spread over seeds"
            if close
            else "more than twice the spread over seeds",
        ),
        sentence(
            "And it says how well a model reads people, not how well it writes. The best reader of "
            "the test split is the {}; the texts that the others find likeliest, at temperature 1, "
            "are those of the {}{}: a perplexity of {}.",
            model.upper(),
            writer.upper(),
            " as well" if writer == model else "",
            shown(read[writer]),
        ),
    ]
    rows = [
        [
            f"{reader.upper()} reads",
            *(shown(matrix.perplexity(reader, writer, PLAIN)) for writer in CELLS),
            shown(matrix.perplexity(reader, PEOPLE)),
            shown(matrix.perplexity(reader, TEST)),
        ]
        for reader in CELLS
    ]
    head = [
        "perplexity",
        *(f"text of the {cell.upper()}" for cell in CELLS),
        "text of people",
        "test split",
    ]
    return Section(
        "write_better",
        "Lower perplexity, better writer?",
        "If the RNN's perplexity is lower than the LSTM's, does it write better? When may the two "
        "perplexities be compared?",
        answer,
        [_heat_map(matrix), Table(head, rows, _caption("at temperature 1"))],
        lab=4,
    )


def _caption(what: str) -> str:
    return (
        f"Texts drawn {what}; mean ± standard deviation over {len(SEEDS)} seeds. Every text, "
        "those of the test split too, is read by itself (protocol document), so that no state is "
        "carried into it: elsewhere on this page the split is read as one stream."
    )


def _heat_map(matrix: Matrix) -> Drawing:
    figure, axes = new(height=2.9)
    columns = [(cell, PLAIN) for cell in CELLS] + [(PEOPLE, None), (TEST, None)]
    values = [[matrix.perplexity(reader, *column).mean for column in columns] for reader in CELLS]
    image = axes.imshow(values, cmap="Greys", aspect="auto")
    middle = (image.norm.vmin + image.norm.vmax) / 2
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            ink = "white" if value > middle else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=ink)
    names = [*(cell.upper() for cell in CELLS), "people", "test split"]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(CELLS)), [cell.upper() for cell in CELLS])
    named(axes, "writer", "reader")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="perplexity")
    return Drawing("cross_scoring", "Perplexity of each reader on each writer's text.", figure)


def _over_cells(matrix: Matrix, mode: str, key: str | None = None) -> Measured:
    """A mode's self-perplexity, or a diversity, the mean over the cells."""
    return matrix.mean(
        [
            matrix.perplexity(cell, cell, mode)
            if key is None
            else matrix.diversity(cell, mode, key)
            for cell in CELLS
        ]
    )


def _lower(matrix: Matrix) -> Section:
    people = matrix.mean([matrix.perplexity(cell, PEOPLE) for cell in CELLS])
    answer = [
        sentence(
            "No. Greedy texts have a perplexity of {} under the model that wrote them, where what "
            "people wrote has {}; and {} of their four-word runs have stood in the same text "
            "before, where people repeat {}. Of two texts the likelier one here is the worse one.",
            shown(_over_cells(matrix, GREEDY)),
            shown(people),
            _share(_over_cells(matrix, GREEDY, "repetition")),
            _share(matrix.diversity(PEOPLE, None, "repetition")),
        ),
        sentence(
            "Of people's word pairs {} are different, of the greedy ones {}. Perplexity on text "
            "that was held out says how well a model knows the language; on text of its own it "
            "says how sure of itself it is.",
            _share(matrix.diversity(PEOPLE, None, "distinct_2")),
            _share(_over_cells(matrix, GREEDY, "distinct_2")),
        ),
    ]
    rows = [
        [
            "people" if mode is None else "greedy" if mode == GREEDY else f"temperature {mode}",
            shown(people) if mode is None else shown(_over_cells(matrix, mode)),
            *(
                shown(
                    matrix.diversity(PEOPLE, None, key)
                    if mode is None
                    else _over_cells(matrix, mode, key),
                    ".2f",
                )
                for key in ("repetition", "distinct_1", "distinct_2", "distinct_3")
            ),
        ]
        for mode in (*MODES, None)
    ]
    head = ["text", "self-perplexity", "repetition", "distinct-1", "distinct-2", "distinct-3"]
    texts = Text(
        [
            (
                linked(f"{cell.upper()}, {mode}", [matrix.records[0].run_id]),
                matrix.samples(cell, mode)[0]["prefix"],
                matrix.samples(cell, mode)[0]["text"],
            )
            for cell, mode in (("lstm", GREEDY), ("lstm", PLAIN))
        ]
    )
    caption = (
        "Repetition: share of four-word runs that stood in the same text before. distinct-n: share "
        "of n-word runs that are different. Mean over the three cells; the people's row is read by "
        "all three."
    )
    return Section(
        "lower_is_better",
        "Is lower always better?",
        "Is lower perplexity always better?",
        answer,
        [_sure(matrix), Table(head, rows, caption), texts],
        lab=5,
    )


def _share(measure: Measured) -> object:
    percent = Measured(tuple(100 * value for value in measure.values), measure.runs)
    return sentence("{}%", shown(percent))


def _sure(matrix: Matrix) -> Drawing:
    figure, axes = new(height=3.2)
    for position, cell in enumerate(CELLS):
        points = [
            (
                matrix.perplexity(cell, cell, mode).mean,
                100 * matrix.diversity(cell, mode, "repetition").mean,
            )
            for mode in MODES
        ]
        axes.plot(*zip(*points, strict=True), label=cell.upper(), **style(position))
    people = matrix.mean([matrix.perplexity(cell, PEOPLE) for cell in CELLS]).mean
    repeated = 100 * matrix.diversity(PEOPLE, None, "repetition").mean
    axes.plot([people], [repeated], label="people", **style(3) | {"markersize": 9})
    axes.set_xscale("log")
    named(axes, "perplexity under the writer (log scale)", "repetition (% of four-word runs)")
    axes.legend()
    return Drawing(
        "lower_is_better",
        "From greedy, on the left, to temperature 1.5: the surer the text, the more it repeats.",
        figure,
    )


def _own_text(matrix: Matrix) -> Section:
    own = {cell: matrix.perplexity(cell, cell, "0.8") for cell in CELLS}
    test = {cell: matrix.perplexity(cell, TEST) for cell in CELLS}
    by_own = sorted(CELLS, key=lambda cell: own[cell].mean)
    by_test = sorted(CELLS, key=lambda cell: test[cell].mean)
    order = ", ".join
    answer = [
        sentence(
            "No: each is taken on another text, and each model is the best judge of its own. At "
            "the lab's temperature of 0.8 they come to {} (RNN), {} (LSTM) and {} (GRU), while on "
            "the test split the same models have {}, {} and {}.",
            *(shown(own[cell]) for cell in CELLS),
            *(shown(test[cell]) for cell in CELLS),
        ),
        sentence(
            "By their own texts the order is {}; by the test split it is {}. A higher temperature "
            "alone raises the figure of an unchanged model, the LSTM's from {} at 0.5 to {} at "
            "1.2.",
            order(cell.upper() for cell in by_own),
            order(cell.upper() for cell in by_test),
            shown(matrix.perplexity("lstm", "lstm", "0.5")),
            shown(matrix.perplexity("lstm", "lstm", "1.2")),
        ),
    ]
    figure, axes = new(height=3.0)
    for offset, found, fill, label in (
        (-0.2, own, "0.35", "its own text, temperature 0.8"),
        (0.2, test, "0.75", "the test split"),
    ):
        axes.bar(
            [position + offset for position in range(len(CELLS))],
            [found[cell].mean for cell in CELLS],
            0.38,
            yerr=[found[cell].spread for cell in CELLS],
            color=fill,
            label=label,
        )
    axes.set_xticks(range(len(CELLS)), [cell.upper() for cell in CELLS])
    named(axes, "cell", "perplexity")
    axes.margins(y=0.35)  # room for the legend
    axes.legend(loc="upper left")
    rows = [
        [
            cell.upper(),
            *(shown(matrix.perplexity(reader, cell, "0.8")) for reader in CELLS),
            shown(test[cell]),
        ]
        for cell in CELLS
    ]
    head = [
        "writer",
        *(f"its text read by the {cell.upper()}" for cell in CELLS),
        "the test split read by it",
    ]
    return Section(
        "own_text",
        "Perplexity on one's own text",
        "May the three perplexities, each on its own generated text, be compared directly?",
        answer,
        [
            Drawing("own_text", "Perplexity on two kinds of text; lines: spread.", figure),
            Table(head, rows, _caption("at temperature 0.8")),
        ],
        lab=7,
    )


def _temperature(matrix: Matrix) -> Section:
    people = matrix.mean([matrix.perplexity(cell, PEOPLE) for cell in CELLS])
    nearest = min(MODES[1:], key=lambda mode: abs(_over_cells(matrix, mode).mean - people.mean))
    answer = [
        sentence(
            "The self-perplexity rises from {} at temperature {} to {} at {}. It is nearest to "
            "that of what people wrote, {}, at temperature {}.",
            shown(_over_cells(matrix, MODES[1])),
            MODES[1],
            shown(_over_cells(matrix, MODES[-1])),
            MODES[-1],
            shown(people),
            nearest,
        )
    ]
    figure, (above, below) = new(rows=2, height=2.7)
    for position, cell in enumerate(CELLS):
        mine = [matrix.perplexity(cell, cell, mode).mean for mode in MODES[1:]]
        pairs = [100 * matrix.diversity(cell, mode, "distinct_2").mean for mode in MODES[1:]]
        above.plot(TEMPERATURES, mine, label=cell.upper(), **style(position))
        below.plot(TEMPERATURES, pairs, label=cell.upper(), **style(position))
    looks = style(4) | {"marker": ""}
    above.axhline(people.mean, label="people", **looks)
    below.axhline(100 * matrix.diversity(PEOPLE, None, "distinct_2").mean, **looks)
    above.set_yscale("log")
    named(above, "temperature", "self-perplexity (log scale)")
    named(below, "temperature", "different word pairs (%)")
    above.legend()
    return Section(
        "sampling_temperature",
        "Temperature",
        "What does the temperature of sampling change?",
        answer,
        [
            Drawing(
                "sampling_temperature",
                "Self-perplexity and share of different word pairs against temperature.",
                figure,
            ),
            Text(
                [
                    (
                        linked(f"GRU at temperature {mode}", [matrix.records[0].run_id]),
                        matrix.samples("gru", mode)[0]["prefix"],
                        matrix.samples("gru", mode)[0]["text"],
                    )
                    for mode in ("0.3", "0.8", "1.5")
                ]
            ),
        ],
    )


STUDY = Study("cross_scoring", cells.STUDY.jobs, draw, then=follow)
