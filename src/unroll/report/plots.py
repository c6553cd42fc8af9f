"""The plots of a report. A figure that two sections need is a function here.

What is not finite is left out of a plot; the tables show it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unroll.report.figures import Points, logarithmic, named, new, styles
from unroll.report.page import Drawing
from unroll.report.runs import Measured

MEASURED_PLACES = 8
"""A logarithmic x axis with so few places at most has its ticks there."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes. ``lines`` has a list of curves for each label, one curve a run."""

    x: str
    y: str
    lines: Mapping[str, Sequence[Points]]
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    marks: Mapping[str, Points] = field(default_factory=dict)
    """Single points, drawn in the colour of the line of the same label."""
    levels: Mapping[str, float] = field(default_factory=dict)
    """Horizontal lines."""
    limits: tuple[float, float] | None = None
    """Ends of the y axis."""


def finite(points: Points) -> list[tuple[float, float]]:
    """The points with two finite coordinates."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def curves(
    name: str, caption: str, panels: Sequence[Panel], columns: int = 1, width: float = 6.4
) -> Drawing:
    """Curves in panels, row by row. A short curve has a marker at every point."""
    rows = -(-len(panels) // columns)
    figure, grid = new(columns, rows, width, 3.4 if len(panels) == 1 else 2.7)
    for axes, panel in zip(getattr(grid, "flat", [grid]), panels, strict=True):
        _panel(axes, panel)
    return Drawing(name, caption, figure)


def _panel(axes: Any, panel: Panel) -> None:
    known = styles([*panel.lines, *panel.levels])
    for label, lines in panel.lines.items():
        for index, line in enumerate(map(finite, lines)):
            looks = known[label] | {"linewidth": 1.2}
            if len(line) > 30:
                looks["marker"] = ""
            if line:
                axes.plot(*zip(*line, strict=True), label=None if index else label, **looks)
        points = finite(panel.marks.get(label, []))
        if points:
            looks = known[label] | {"linestyle": "none", "markersize": 7}
            axes.plot(*zip(*points, strict=True), label=f"{label}: published", **looks)
    _levels(axes, panel.levels, known)
    runs = [line for found in panel.lines.values() for line in found]
    places = {x for line in runs for x, _ in finite(line)}
    if panel.log_x:
        axes.set_xscale("log")
        if len(places) <= MEASURED_PLACES:
            _ticks_at(axes, sorted(places))
    else:
        _whole_numbers(axes, places)
    if panel.log_y:
        logarithmic(axes)
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    named(axes, panel.x, panel.y, panel.title)
    _legend(axes)


def _ticks_at(axes: Any, places: Sequence[float]) -> None:
    """Ticks of the x axis where something was measured, as plain numbers."""
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


def _whole_numbers(axes: Any, places: Iterable[float]) -> None:
    """No ticks between whole numbers where nothing stands between them."""
    if all(float(place).is_integer() for place in places):
        axes.locator_params(axis="x", integer=True)


def lines(
    name: str,
    caption: str,
    axis: str,
    places: Sequence[float],
    quantity: str,
    found: Mapping[str, Sequence[Measured]],
    *,
    log_x: bool = False,
    log_y: bool = False,
    levels: Mapping[str, float] | None = None,
) -> Drawing:
    """Means with their spread at a few places of the x axis."""
    figure, axes = new(height=3.4)
    known = styles([*found, *(levels or {})])
    for label, measures in found.items():
        shown = [
            (place, measure.mean, measure.spread)
            for place, measure in zip(places, measures, strict=True)
            if math.isfinite(measure.spread) and math.isfinite(measure.mean)
        ]
        if shown:
            x, y, spread = zip(*shown, strict=True)
            axes.errorbar(x, y, yerr=spread, label=label, capsize=3, **known[label])
    _levels(axes, levels or {}, known)
    if log_x:
        axes.set_xscale("log")
    _ticks_at(axes, places)
    if log_y:
        logarithmic(axes)
    named(axes, axis, quantity)
    _legend(axes)
    return Drawing(name, caption, figure)


def bars(
    name: str, caption: str, axis: str, quantity: str, found: Mapping[str, Measured]
) -> Drawing:
    """Horizontal bars at the mean, a mark for each run; ``axis`` says what the bars are."""
    alone = {label: {"": measure} for label, measure in found.items()}
    return grouped_bars(name, caption, axis, {quantity: alone})


def grouped_bars(
    name: str, caption: str, axis: str, panels: Mapping[str, Mapping[str, Mapping[str, Measured]]]
) -> Drawing:
    """Bars of several shades grouped under one name, a panel for each quantity:
    ``panels[quantity][bar][shade]``."""
    count = max(sum(map(len, found.values())) for found in panels.values())
    height = 0.9 + 0.32 * count
    figure, grid = new(rows=len(panels), height=height)
    for axes, (quantity, found) in zip(getattr(grid, "flat", [grid]), panels.items(), strict=True):
        shades = list(dict.fromkeys(shade for group in found.values() for shade in group))
        step = 0.8 / len(shades)
        for position, group in enumerate(found.values()):
            for index, shade in enumerate(shades):
                if shade in group and math.isfinite(group[shade].mean):
                    place = position + (index - (len(shades) - 1) / 2) * step
                    _bar(axes, place, step, group[shade], index, shade if not position else None)
        axes.set_yticks(range(len(found)), list(found))
        axes.invert_yaxis()
        named(axes, quantity, axis)
        if len(shades) > 1:
            axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(shades))
    return Drawing(name, caption, figure)


def _bar(
    axes: Any, place: float, step: float, measure: Measured, index: int, label: str | None
) -> None:
    shade = ("#9fc5e8", "#e3e3e3", "#f6cfa5")[index % 3]
    looks = {"color": shade, "edgecolor": "#1b1b1b", "linewidth": 0.6}
    axes.barh(place, measure.mean, 0.9 * step, label=label, **looks)
    values = list(measure.values)
    axes.plot(values, [place] * len(values), "|", color="#1b1b1b", markersize=7)


def heat_map(
    name: str,
    caption: str,
    quantity: str,
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    values: Sequence[Sequence[float]],
    form: str = ".0f",
) -> Drawing:
    """A grid of numbers, shaded by value; ``rows`` and ``columns`` are axis names with labels."""
    figure, axes = new(height=2.9)
    known = [value for row in values for value in row if math.isfinite(value)]
    image = axes.imshow(values, cmap="Greys", aspect="auto", vmin=min(known, default=0.0))
    middle = (min(known, default=0.0) + max(known, default=1.0)) / 2
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            ink = "white" if value > middle else "black"
            axes.text(column, row, format(value, form), ha="center", va="center", color=ink)
    axes.set_xticks(range(len(columns[1])), columns[1])
    axes.set_yticks(range(len(rows[1])), rows[1])
    named(axes, columns[0], rows[0])
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label=quantity)
    return Drawing(name, caption, figure)


def scatter(
    name: str,
    caption: str,
    x: str,
    y: str,
    series: Mapping[str, Points],
    *,
    log_x: bool = False,
    joined: bool = False,
) -> Drawing:
    """Points by label; ``joined`` draws a line through those of a label."""
    figure, axes = new(height=3.4)
    for label, looks in styles(series).items():
        known = finite(series[label])
        looks |= {"markersize": 6}
        if not joined or len(known) == 1:
            looks["linestyle"] = "none"
        if known:
            axes.plot(*zip(*known, strict=True), label=label, **looks)
    if log_x:
        axes.set_xscale("log")
    else:
        _whole_numbers(axes, (place for points in series.values() for place, _ in points))
    named(axes, x, y)
    _legend(axes)
    return Drawing(name, caption, figure)


def _levels(axes: Any, levels: Mapping[str, float], known: Mapping[str, dict[str, Any]]) -> None:
    for label, level in levels.items():
        if math.isfinite(level):
            looks = known[label] | {"marker": "", "linewidth": 1.0}
            axes.axhline(level, label=label, **looks)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
