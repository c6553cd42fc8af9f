"""The report: one self-contained page in which every number links to the runs it comes from."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unroll.errors import bounded
from unroll.report.figures import keep
from unroll.report.runs import Measured, Record

DRAWINGS_PER_WORKER = 8
"""Starting a process costs as much as drawing several figures: one more for each so many."""


UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, except tab and newline, and those that turn the direction of writing."""


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
    """Texts that runs wrote: the writer, the prefix, the text."""

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
class Answer:
    """What a section says, shows, and sets beside published figures."""

    sentences: list[Any]
    parts: list[Drawing | Table | Text]
    published: list[Published] = field(default_factory=list)
    found: Any = None
    """What was found, in one line for the top of the page; None for a section that has none."""


@dataclass
class Section:
    """A question and its answer."""

    name: str
    title: str
    question: str
    answer: Answer | None
    failure: str = ""
    """Why there is no answer, where there is none."""
    lab: int | None = None
    """The number of the lab's question that it answers."""
    first: bool = False
    """Whether it stands before the lab's questions."""
    jobs: list[tuple[str, Record]] = field(default_factory=list)
    """The runs behind it, with their labels."""


@dataclass
class Absent:
    """A study that has no section, and why."""

    name: str
    reason: str


def linked(text: str, runs: Sequence[str]) -> Markup:
    """A text that links to the runs it comes from; plain where there are none."""
    if not runs:
        return Markup.escape(text)
    return Markup('<a class="n" href="#run-{}" title="{}">{}</a>').format(
        runs[0], "run " + ", ".join(runs), text
    )


def written(value: float, form: str = ".1f") -> str:
    """A number in a form; a dash for NaN."""
    return "-" if math.isnan(value) else "∞" if math.isinf(value) else format(value, form)


def number(value: float, runs: Sequence[str], form: str = ".1f") -> Markup:
    """A number that links to its runs."""
    return linked(written(value, form), runs)


def shown(measure: Measured, form: str = ".1f") -> Markup:
    """Mean and spread of a figure, linked to its runs; no spread where all values are equal."""
    text = number(measure.mean, measure.runs, form)
    if len(set(measure.values)) == 1:
        return text
    return Markup("{} <small>± {}</small>").format(text, written(measure.spread, form.lstrip("+")))


def sentence(template: str, *values: Any) -> Markup:
    """A sentence with its numbers filled in."""
    return Markup(template).format(*values)  # noqa: S704  templates are ours, values are escaped


def write(
    path: Path,
    title: str,
    facts: Sequence[str],
    sections: Sequence[Section],
    absent: Sequence[Absent] = (),
) -> bool:
    """Write the page to ``path`` and its figures, SVG and PNG, into ``figures`` beside it.

    What was found comes first, in a line for each section that has one; then the sections that ask
    for it, the lab's questions in their order, and every other section as it was given. A section
    whose figure cannot be drawn shows the reason in its place. Returns whether every section has
    its answer.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("unroll", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
    )
    environment.filters["embedded"] = _embedded
    environment.tests["drawing"] = lambda part: isinstance(part, Drawing)
    environment.tests["table"] = lambda part: isinstance(part, Table)
    folder = path.parent / "figures"
    _draw(sections, folder)
    asked = sorted(
        (section for section in sections if section.lab is not None),
        key=lambda section: section.lab or 0,
    )
    parts = [
        ("All models", [section for section in sections if section.first]),
        ("The lab's questions", asked),
        ("Further studies", [x for x in sections if x.lab is None and not x.first]),
    ]
    page = environment.get_template("page.html.j2").render(
        title=title,
        facts=facts,
        parts=parts,
        found=[
            (section, section.answer.found)
            for _, group in parts
            for section in group
            if section.answer is not None and section.answer.found is not None
        ],
        published=[
            (section, row)
            for section in sections
            if section.answer is not None
            for row in section.answer.published
        ],
        absent=absent,
        folder=folder,
    )
    path.write_text(page, encoding="utf-8")
    return all(section.answer is not None for section in sections)


def _visible(value: Any) -> Any:
    """A text, or markup, whose unseen characters are written as their escapes: they could make a
    reader see other text than is there."""
    if not isinstance(value, str):
        return value
    return type(value)(UNSEEN.sub(lambda found: ascii(found[0])[1:-1], value))


def _draw(sections: Sequence[Section], folder: Path) -> None:
    """Write the figures of all sections, on every core."""
    from joblib import Parallel, cpu_count, delayed

    drawings = [
        (section, part)
        for section in sections
        for part in (section.answer.parts if section.answer is not None else ())
        if isinstance(part, Drawing)
    ]
    workers = min(cpu_count(), 1 + len(drawings) // DRAWINGS_PER_WORKER)
    errors = Parallel(n_jobs=workers)(delayed(_kept)(part, folder) for _, part in drawings)
    for (section, part), error in zip(drawings, errors, strict=True):
        if error:
            section.answer, section.failure = None, f"figure {part.name}: {error}"


def _kept(drawing: Drawing, folder: Path) -> str:
    """Write one figure; the error in one line, or nothing."""
    try:
        keep(drawing.figure, folder / drawing.name)
    except Exception as error:  # whatever matplotlib raises, the other sections are written
        return bounded(f"{type(error).__name__}: {error}", 300)
    return ""


def _embedded(drawing: Drawing, folder: Path) -> str:
    """The figure's SVG as a data URL, so that the page needs no other file."""
    svg = (folder / drawing.name).with_suffix(".svg").read_bytes()
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
