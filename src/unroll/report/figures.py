"""Figures: points to SVG and PNG. Legible in black and white: lines differ by dash and marker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
STYLES = (
    ("#0b5394", "-", "o"),
    ("#b45f06", "--", "s"),
    ("#38761d", "-.", "^"),
    ("#741b47", ":", "D"),
    ("#444444", (0, (5, 1)), "v"),
    ("#990000", (0, (1, 1)), "P"),
    ("#134f5c", (0, (3, 1, 1, 1)), "X"),
    ("#7f6000", (0, (8, 2)), "*"),
)
NAMES = ("RNN", "LSTM", "GRU", "Transformer")
"""The models to which the first styles belong."""


def new(
    columns: int = 1, rows: int = 1, width: float = 6.4, height: float = 3.8
) -> tuple[Any, Any]:
    """An empty figure and its axes, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker of the lines of a figure: those of a model's name are the same in
    every figure, the others follow in order."""
    labels = list(dict.fromkeys(labels))
    places = {label: NAMES.index(label) for label in labels if label in NAMES}
    free = cycle([place for place in range(len(STYLES)) if place not in places.values()])
    return {label: _style(places[label] if label in places else next(free)) for label in labels}


def _style(place: int) -> dict[str, Any]:
    colour, dash, marker = STYLES[place]
    return {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4}


def named(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Name both axes, with their units."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def logarithmic(axes: Axes) -> None:
    """A log scale upwards, its ticks written as plain numbers: 200 and not 2 x 10^2."""
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())


def keep(figure: Figure, path: Path) -> None:
    """Write a figure as SVG and, for the same stem, as PNG."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "path"}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.set_layout_engine("none")  # as it was laid out for the first: it takes half the time
    figure.savefig(path.with_suffix(".png"), dpi=150)


def loss_curve(history: Mapping[str, Points], path: Path) -> None:
    """Training and validation loss of one run against optimizer steps, as SVG."""
    figure, axes = new()
    names = {"training": "train/loss", "validation": "valid/loss"}
    for label, looks in styles(names).items():
        points = history.get(names[label], [])
        if points:
            looks |= {} if len(points) < 30 else {"marker": ""}
            axes.plot(*zip(*points, strict=True), label=label, **looks)
    named(axes, "optimizer steps", "loss (nats per token)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, metadata={"Date": None})
