"""Cell by hidden size: what width buys, counted in units and in parameters."""

from __future__ import annotations

from experiments.cells import CELLS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, number, sentence
from unroll.report.runs import Record

SIZES = (32, 64, 128, 256)


def label(cell: str, size: int) -> str:
    return f"{cell} {size}"


def draw(results: Results) -> list[Section]:
    grid = {(cell, size): results[label(cell, size)][0] for cell in CELLS for size in SIZES}
    best = min(grid, key=lambda key: _perplexity(grid[key]))
    answer = [
        sentence(
            "The best of the {} is the {} with {} units, at a test perplexity of {}.",
            len(grid),
            best[0].upper(),
            best[1],
            _number(grid[best]),
        ),
        sentence(
            "One seed each: differences of the size of the spread in the section above say nothing."
        ),
    ]
    for cell in CELLS:
        small, large = grid[cell, SIZES[0]], grid[cell, SIZES[-1]]
        size = min(SIZES, key=lambda size: _perplexity(grid[cell, size]))
        answer.append(
            sentence(
                "{}: {} with {} units, {} with {}; at its best, with {}, {}.",
                cell.upper(),
                _number(small),
                SIZES[0],
                _number(large),
                SIZES[-1],
                size,
                _number(grid[cell, size]),
            )
        )
    return [
        Section(
            "hidden_size",
            "Hidden size",
            "How does perplexity fall with width, and is a wider cell or a better cell worth more "
            "parameters?",
            answer,
            [_lines(grid), _heat_map(grid), _table(grid)],
        )
    ]


def _perplexity(record: Record) -> float:
    return record.metric("test/perplexity")


def _number(record: Record) -> object:
    return number(_perplexity(record), [record.run_id])


def _lines(grid: dict[tuple[str, int], Record]) -> Drawing:
    figure, (left, right) = new(rows=2, height=2.7)
    for position, cell in enumerate(CELLS):
        records = [grid[cell, size] for size in SIZES]
        scores = [_perplexity(record) for record in records]
        counts = [float(record.params["model.parameters"]) / 1e6 for record in records]
        left.plot(SIZES, scores, label=cell.upper(), **style(position))
        right.plot(counts, scores, label=cell.upper(), **style(position))
    left.set_xscale("log", base=2)
    left.set_xticks(SIZES, [str(size) for size in SIZES])
    named(left, "hidden size (units)", "test perplexity")
    named(right, "parameters (millions)", "test perplexity")
    left.legend()
    return Drawing(
        "hidden_size_lines", "Test perplexity against hidden size and against parameters.", figure
    )


def _heat_map(grid: dict[tuple[str, int], Record]) -> Drawing:
    figure, axes = new(height=2.8)
    values = [[_perplexity(grid[cell, size]) for size in SIZES] for cell in CELLS]
    image = axes.imshow(values, cmap="Greys", aspect="auto")
    middle = (image.norm.vmin + image.norm.vmax) / 2
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            ink = "white" if value > middle else "black"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink)
    axes.set_xticks(range(len(SIZES)), [str(size) for size in SIZES])
    axes.set_yticks(range(len(CELLS)), [cell.upper() for cell in CELLS])
    axes.set_xlabel("hidden size (units)")
    axes.set_ylabel("cell")
    figure.colorbar(image, ax=axes, label="test perplexity")
    return Drawing(
        "hidden_size_map", "Test perplexity by cell and hidden size: lighter is better.", figure
    )


def _table(grid: dict[tuple[str, int], Record]) -> Table:
    rows = []
    for (cell, size), record in grid.items():
        count = number(float(record.params["model.parameters"]), [record.run_id], ",.0f")
        speed = number(record.metric("tokens_per_second"), [record.run_id], ",.0f")
        rows.append([cell.upper(), size, _number(record), count, speed])
    return Table(["cell", "hidden size", "test perplexity", "parameters", "tokens a second"], rows)


STUDY = Study(
    "hidden_size",
    tuple(
        Job(
            label(cell, size),
            ("experiment=study", f"model={cell}", f"model.hidden_size={size}", "seed=1"),
        )
        for cell in CELLS
        for size in SIZES
    ),
    draw,
)
