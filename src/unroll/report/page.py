"""The report: one self-contained page in which every number leads to the runs it comes from."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unroll.report.figures import keep
from unroll.report.runs import Measured, Record

DRAWINGS_A_WORKER = 8
"""A process that draws costs as much as several drawings: one more for each so many."""


@dataclass
class Drawing:
    """A figure with what it shows in words."""

    name: str
    caption: str
    figure: Any


@dataclass
class Table:
    """Rows of texts and numbers under a head."""

    head: list[str]
    rows: list[list[Any]]
    caption: str = ""


@dataclass
class Text:
    """Texts that runs wrote: who wrote, from what prefix, what."""

    rows: list[tuple[Any, str, str]]


@dataclass
class Published:
    """A figure of a seed document beside ours."""

    figure: str
    """What was measured."""
    source: str
    """The document that gives it."""
    published: str
    measured: Any
    remark: str = ""
    """Why the two differ, where they do."""


@dataclass
class Section:
    """A question and its answer."""

    name: str
    title: str
    question: str
    answer: list[Markup]
    parts: list[Drawing | Table | Text]
    lab: int | None = None
    """The number of the lab's question that it answers."""
    published: list[Published] = field(default_factory=list)
    jobs: list[tuple[str, Record]] = field(default_factory=list)
    """What was run: labels and runs."""


@dataclass
class Absent:
    """A study that has no section, and why."""

    name: str
    reason: str


def linked(text: str, runs: Sequence[str]) -> Markup:
    """A text that leads to the runs it comes from."""
    return Markup('<a class="n" href="#run-{}" title="{}">{}</a>').format(
        runs[0], "run " + ", ".join(runs), text
    )


def number(value: float, runs: Sequence[str], form: str = ".1f") -> Markup:
    """A number that leads to its runs."""
    text = "-" if math.isnan(value) else "∞" if math.isinf(value) else format(value, form)
    return linked(text, runs)


def shown(measure: Measured, form: str = ".1f") -> Markup:
    """Mean and spread of a measure, leading to its runs."""
    text = number(measure.mean, measure.runs, form)
    if len(measure.values) == 1:
        return text
    return Markup("{} <small>± {}</small>").format(text, format(measure.spread, form.lstrip("+")))


def sentence(template: str, *values: Any) -> Markup:
    """A sentence with its numbers put in."""
    return Markup(template).format(*values)


def write(
    path: Path,
    title: str,
    facts: Sequence[str],
    sections: Sequence[Section],
    absent: Sequence[Absent] = (),
) -> None:
    """Write the page to ``path`` and its figures, SVG and PNG, into ``figures`` beside it.

    The lab's questions come first, in their order; then every other section as it was given.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from joblib import Parallel, cpu_count, delayed

    environment = Environment(
        loader=PackageLoader("unroll", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["embedded"] = _embedded
    environment.tests["drawing"] = lambda part: isinstance(part, Drawing)
    environment.tests["table"] = lambda part: isinstance(part, Table)
    folder = path.parent / "figures"
    drawings = [part for section in sections for part in section.parts if isinstance(part, Drawing)]
    workers = min(cpu_count(), 1 + len(drawings) // DRAWINGS_A_WORKER)
    Parallel(n_jobs=workers)(delayed(keep)(part.figure, folder / part.name) for part in drawings)
    asked = sorted(
        (section for section in sections if section.lab is not None),
        key=lambda section: section.lab or 0,
    )
    page = environment.get_template("page.html.j2").render(
        title=title,
        facts=facts,
        parts=[
            ("The lab's questions", asked),
            ("Further studies", [section for section in sections if section.lab is None]),
        ],
        published=[(section, row) for section in sections for row in section.published],
        absent=absent,
        folder=folder,
    )
    path.write_text(page, encoding="utf-8")


def _embedded(drawing: Drawing, folder: Path) -> str:
    """The figure's SVG as a data address, so that the page needs no other file."""
    svg = (folder / drawing.name).with_suffix(".svg").read_bytes()
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
