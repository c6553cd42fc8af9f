"""The plots draw what is finite, leave out what is not, and name their axes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from unroll.report import plots
from unroll.report.figures import keep, styles
from unroll.report.page import Drawing
from unroll.report.plots import Panel
from unroll.report.runs import Measured

BAD = (math.nan, math.inf)
VALUES = {"a": Measured((1.0, 2.0)), "b": Measured(BAD), "c": Measured((math.nan,))}


def drawings() -> list[Drawing]:
    curve = [(1.0, 2.0), (2.0, math.inf), (3.0, math.nan), (4.0, 1.0)]
    panel = Panel("x", "y", {"a": [curve, []], "b": [[(1.0, math.nan)]]}, log_y=True)
    marked = Panel("x", "y", {"a": [curve]}, marks={"a": [(1.0, 1.5)]}, levels={"l": math.nan})
    return [
        plots.curves("curves", "", [panel, marked]),
        plots.lines("lines", "", "x", [1, 2], "y", {"a": [VALUES["a"], VALUES["b"]]}, log_y=True),
        plots.bars("bars", "", "bar", "y", VALUES),
        plots.grouped_bars(
            "grouped", "", "bar", {"y": {"g": VALUES, "h": {"a": VALUES["a"]}}, "z": {"g": VALUES}}
        ),
        plots.heat_map("map", "", "q", ("r", ["1"]), ("c", ["1", "2"]), [[1.0, math.nan]]),
        plots.heat_map("none", "", "q", ("r", ["1"]), ("c", ["1", "2"]), [list(BAD)]),
        plots.scatter("scatter", "", "x", "y", {"a": curve, "b": []}, log_x=True),
    ]


@pytest.mark.parametrize("drawing", drawings(), ids=lambda drawing: drawing.name)
def test_values_that_are_not_finite_do_not_keep_a_plot_from_being_drawn(
    drawing: Drawing, tmp_path: Path
) -> None:
    keep(drawing.figure, tmp_path / drawing.name)
    assert (tmp_path / drawing.name).with_suffix(".svg").stat().st_size > 1000
    for axes in drawing.figure.axes:
        assert axes.get_ylabel()
        assert axes.get_xlabel() or axes.get_label() == "<colorbar>"


def test_a_curve_shows_its_finite_points_alone() -> None:
    drawn = plots.curves("c", "", [Panel("x", "y", {"a": [[(1.0, 2.0), (2.0, math.inf)]]})])
    (line,) = drawn.figure.axes[0].get_lines()
    assert line.get_xydata().tolist() == [[1.0, 2.0]]


def test_a_bar_ends_at_the_mean_and_every_run_has_a_mark() -> None:
    drawn = plots.bars("b", "", "bar", "y", {"a": Measured((1.0, 3.0, 5.0))})
    axes = drawn.figure.axes[0]
    assert axes.patches[0].get_width() == pytest.approx(3.0)
    assert axes.get_lines()[0].get_xdata().tolist() == [1.0, 3.0, 5.0]


def test_the_lines_of_the_runs_of_a_label_share_one_legend_entry() -> None:
    drawn = plots.curves("c", "", [Panel("x", "y", {"a": [[(1.0, 1.0)], [(1.0, 2.0)]]})])
    assert drawn.figure.axes[0].get_legend_handles_labels()[1] == ["a"]


def test_a_model_has_the_same_style_in_every_figure_and_no_two_lines_are_alike() -> None:
    alone, among = styles(["GRU", "other"]), styles(["first", "GRU", "RNN", "second", "first"])
    assert alone["GRU"] == among["GRU"]
    assert len({looks["color"] for looks in among.values()}) == len(among) == 4


def test_a_logarithmic_axis_of_few_places_has_a_tick_at_each_and_no_other() -> None:
    curve = [(5.0, 1.0), (20.0, 2.0), (math.nan, 1.0), (80.0, 3.0)]
    drawn = plots.curves("c", "", [Panel("x", "y", {"a": [curve]}, log_x=True)])
    axes = drawn.figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "20", "80"]
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_an_axis_of_epochs_has_no_ticks_between_them() -> None:
    curve = [(1.0, 4.0), (2.0, 3.0), (3.0, 2.5), (4.0, 2.4)]
    drawn = plots.curves("c", "", [Panel("epochs", "y", {"a": [curve]})])
    assert all(float(tick).is_integer() for tick in drawn.figure.axes[0].get_xticks())
