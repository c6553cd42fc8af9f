"""The page: self-contained, every number leads to its run, nothing of it is markup by accident."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unroll.report.figures import named, new, styles
from unroll.report.page import (
    Absent,
    Answer,
    Drawing,
    Published,
    Section,
    Table,
    Text,
    number,
    sentence,
    shown,
    write,
)
from unroll.report.runs import Measured


def section(name: str = "cells") -> Section:
    figure, axes = new()
    axes.plot([1, 2], [3, 4], **styles(["a"])["a"])
    named(axes, "steps", "loss (nats)")
    tags = {"overrides": "model=rnn", "git_commit": "0123456789abcdef-dirty"}
    run: Any = SimpleNamespace(run_id="abc", tags=tags)
    answer = Answer(
        [sentence("It is {}.", number(1.234, ["abc"], ".2f"))],
        [
            Drawing("drawn", "a caption", figure),
            Table(["a"], [[shown(Measured((1.0, 3.0), ("abc", "abc")))]]),
            Text([("RNN", "a <unk> prefix", "<script>alert(1)</script>")]),
        ],
    )
    return Section(name, "Cells", "Which?", answer, jobs=[("rnn", run)])


def test_the_page_needs_no_other_file_and_escapes_what_runs_wrote(tmp_path: Path) -> None:
    write(tmp_path / "index.html", "Title", ["fact"], [section()])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;unk&gt;" in page
    assert not re.findall(r'(?:src|href)="https?:', page)
    assert page.count("data:image/svg+xml;base64,") == 1
    assert (tmp_path / "figures" / "drawn.svg").stat().st_size > 1000
    assert (tmp_path / "figures" / "drawn.png").stat().st_size > 1000


ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;\u202eevil\u2066\x1b[31m"


def test_text_of_models_and_corpora_is_never_markup_wherever_it_stands(tmp_path: Path) -> None:
    tags = {"overrides": ATTACK, "git_commit": ATTACK}
    run: Any = SimpleNamespace(run_id=ATTACK, tags=tags)
    parts: list[Any] = [
        Text([(ATTACK, ATTACK, ATTACK)]),
        Table([ATTACK], [[ATTACK, number(1.0, [ATTACK])]], ATTACK),
    ]
    answer = Answer([ATTACK, sentence("It is {}.", ATTACK)], parts)
    answer.published.append(Published(ATTACK, ATTACK, ATTACK, ATTACK, ATTACK))
    attacked = Section("name", ATTACK, ATTACK, answer, jobs=[(ATTACK, run)])
    failed = Section("failed", ATTACK, ATTACK, None, ATTACK)
    write(tmp_path / "index.html", ATTACK, [ATTACK], [attacked, failed], [Absent(ATTACK, ATTACK)])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    found = Tags()
    found.feed(page)
    assert found.names.count("script") == 1  # the page's own
    assert "img" not in found.names
    assert not any(name.startswith("on") for name in found.attributes)
    assert not set("\u202e\u2066\x1b") & set(page)
    assert r"\u202eevil\u2066\x1b[31m" in page


class Tags(HTMLParser):
    """The tags and attributes of a page, as a browser finds them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.update(name for name, _ in attrs)


def test_every_number_leads_to_a_run_that_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "index.html", "Title", [], [section()])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    targets = set(re.findall(r'href="#run-(\w+)"', page))
    assert targets == {"abc"}
    assert 'id="run-cells-abc"' in page
    assert "2.0</a> <small>± 1.4</small>" in page


def test_the_list_of_runs_names_the_commit_of_each(tmp_path: Path) -> None:
    write(tmp_path / "index.html", "Title", [], [section()])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "0123456789ab-dirty" in page


def test_a_section_without_an_answer_shows_the_reason_and_the_others_stay(tmp_path: Path) -> None:
    failed = Section("failed", "Failed", "Why?", None, "ValueError: <no> numbers")
    assert not write(tmp_path / "index.html", "Title", [], [failed, section()])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "could not be made: ValueError: &lt;no&gt; numbers" in page
    assert "It is" in page
    assert write(tmp_path / "index.html", "Title", [], [section()])


def test_a_section_whose_figure_cannot_be_drawn_shows_the_reason(tmp_path: Path) -> None:
    broken = section("broken")
    assert broken.answer is not None
    figure, axes = new()
    axes.set_title("$\\frac{$")  # refused when it is drawn, not before
    broken.answer.parts.append(Drawing("bad", "a caption", figure))
    assert not write(tmp_path / "index.html", "Title", [], [broken, section()])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "figure bad: ValueError" in page
    assert page.count("It is") == 1


def test_a_mean_of_values_that_are_not_finite_is_written_without_a_spread() -> None:
    assert shown(Measured((1.0, math.inf))).striptags() == "∞ ± -"
    assert shown(Measured((1.0, math.nan))).striptags() == "- ± -"
    assert shown(Measured((7.0, 7.0))).striptags() == "7.0"


def test_what_was_found_stands_at_the_top_with_a_link_to_its_section(tmp_path: Path) -> None:
    first, other = section("models"), section("silent")
    first.first = True
    assert first.answer is not None
    first.answer.found = sentence("test perplexity {}", number(9.5, ["abc"]))
    write(tmp_path / "index.html", "Title", [], [other, first])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    found = page[page.index('id="found"') : page.index("<nav>")]
    assert re.findall(r'<li><a href="#(\w+)">', found) == ["models"]
    assert "9.5</a>" in found
    assert page.index('id="models"') < page.index('id="silent"')
