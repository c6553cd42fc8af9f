"""The page: self-contained, every number leads to its run, nothing of it is markup by accident."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, Text, number, sentence, shown, write
from unroll.report.runs import Measured


def section() -> Section:
    figure, axes = new()
    axes.plot([1, 2], [3, 4], **style(0))
    named(axes, "steps", "loss (nats)")
    run: Any = SimpleNamespace(run_id="abc", seconds=1.5, tags={"overrides": "model=rnn"})
    found = Section(
        "cells",
        "Cells",
        "Which?",
        [sentence("It is {}.", number(1.234, ["abc"], ".2f"))],
        [
            Drawing("drawn", "a caption", figure),
            Table(["a"], [[shown(Measured((1.0, 3.0), ("abc", "abc")))]]),
            Text([("RNN", "a <unk> prefix", "<script>alert(1)</script>")]),
        ],
    )
    found.jobs = [("rnn", run)]
    return found


def test_the_page_needs_no_other_file_and_escapes_what_runs_wrote(tmp_path: Path) -> None:
    write(tmp_path / "index.html", "Title", ["fact"], [section()])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;unk&gt;" in page
    assert not re.findall(r'(?:src|href)="https?:', page)
    assert page.count("data:image/svg+xml;base64,") == 1
    assert (tmp_path / "figures" / "drawn.svg").stat().st_size > 1000
    assert (tmp_path / "figures" / "drawn.png").stat().st_size > 1000


def test_every_number_leads_to_a_run_that_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "index.html", "Title", [], [section()])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    targets = set(re.findall(r'href="#run-(\w+)"', page))
    assert targets == {"abc"}
    assert 'id="run-cells-abc"' in page
    assert "2.0</a> <small>± 1.4</small>" in page
