"""Every section is made from the store alone, links what it says, and says what its numbers say."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from experiments.running import sections
from experiments.study import MORE_SEEDS, SEEDS, TEST, Job, Question, Study
from stored import Stored, stored

from experiments import comparison, gates, gradient_flow, reproduce, study
from unroll.report import page
from unroll.report.page import Answer, Drawing, Section, Table

STUDIES = [study for study in reproduce.STUDIES.values() if study.jobs]
SPAN = re.compile(r'<span class="verdict".*?</span>', re.DOTALL)
NUMBER = re.compile(r'<a class="n".*?</a>|<small>.*?</small>', re.DOTALL)
COMPARING = re.compile(
    r"\b(more|less|fewer|lower|lowest|higher|highest|better|best|worse|worst|ahead of|behind|"
    r"faster|fastest|slower|slowest|larger|largest|smaller|smallest|above|below|exceeds?|beats?|"
    r"gains?|helps?|hurts?|rises?|falls?|grows?|shrinks?|improves?|costs?|wins?|loses?)\b",
    re.IGNORECASE,
)
DEFINED = ("largest gradient norm", "lower case", "one gate less")
"""Phrases that name a quantity or a fact of arithmetic."""


def prose(section: Section) -> str:
    """What a section says in words of its own: without its verdicts and numbers."""
    assert section.answer is not None, section.failure
    said = [str(line) for line in (*section.answer.sentences, section.answer.found)]
    for part in section.answer.parts:
        if isinstance(part, Drawing | Table):
            said.append(part.caption)
    said += [row.remark for row in section.answer.published]
    text = NUMBER.sub("#", SPAN.sub("@", "\n".join(said)))
    text = re.sub(r"runs for each row: [\d or]+", "runs for each row: #", text)
    return re.sub(r"<[^>]*>", "", text)


def verdicts(html: str) -> list[tuple[list[float], list[float], str, str]]:
    """The samples of every verdict, which way is better, and what it says."""
    found = []
    for span in SPAN.findall(html):
        data = dict(re.findall(r'data-(\w+)="([^"]*)"', span))
        first, second = ([float(word) for word in data[key].split()] for key in ("first", "second"))
        said = re.findall(r"<b>(.*?)</b>", span)
        assert len(said) == 1
        found.append((first, second, data["better"], said[0]))
    return found


def claims(section: Section) -> str:
    """Everything of a section in which a verdict may stand, as HTML."""
    assert section.answer is not None, section.failure
    said = [
        *section.answer.sentences,
        section.answer.found,
        *(row.measured for row in section.answer.published),
    ]
    for part in section.answer.parts:
        if isinstance(part, Table):
            said += [cell for row in part.rows for cell in row]
    return "\n".join(map(str, said))


def allowed(first: list[float], second: list[float], better: str) -> str:
    """What two samples allow to be said, by the quantiles of t for three and five seeds."""
    size = max(len(first), len(second))
    a = first * size if len(first) == 1 and size > 1 else first
    b = second * size if len(second) == 1 and size > 1 else second
    gaps = [x - y for x, y in zip(a, b, strict=True)]
    mean = statistics.fmean(gaps)
    if size == 1:
        return "are not compared"
    three = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))  # of t, two degrees of freedom
    quantile = {len(SEEDS): three, len(SEEDS + MORE_SEEDS): 2.776445}[size]  # a table of t
    if abs(mean) <= quantile * statistics.stdev(gaps) / math.sqrt(size):
        return "cannot be told apart"
    words = {
        "lower": ("ahead of", "behind"),
        "higher": ("behind", "ahead of"),
        "neither": ("below", "above"),
    }
    return words[better][mean > 0]


@pytest.mark.parametrize("one", STUDIES, ids=lambda one: one.name)
def test_no_sentence_contradicts_numbers_that_are_given_to_other_runs(one: Study) -> None:
    first = None
    for seed in range(4):
        found = sections(one, stored(one, seed))
        said = [prose(section) for section in found]
        first = first or said
        assert said == first, "words outside a verdict depend on the numbers"
        for section in found:
            for a, b, better, relation in verdicts(claims(section)):
                exact = one.name in ("ngrams", "penn_treebank") and len(a) == len(b) == 1
                if not exact:  # two counted values: no seed, no interval
                    assert relation == allowed(a, b, better)


@pytest.mark.parametrize("one", STUDIES, ids=lambda one: one.name)
def test_only_a_verdict_compares(one: Study) -> None:
    for section in sections(one, stored(one)):
        text = prose(section)
        for phrase in DEFINED:
            text = re.sub(phrase, "", text, flags=re.IGNORECASE)
        assert not COMPARING.findall(text), section.name


def test_a_verdict_names_the_runs_that_it_compares() -> None:
    results = stored(gates.STUDY)
    (section,) = sections(gates.STUDY, results)
    assert section.answer is not None
    html = "".join(map(str, section.answer.sentences))
    samples = [[run.value(TEST) for run in results[label]] for label in ("GRU", "LSTM")]
    assert [found[:2] for found in verdicts(html)][1] == tuple(samples)


@pytest.mark.parametrize("one", STUDIES, ids=lambda one: one.name)
def test_every_number_of_a_section_links_to_one_of_its_runs_and_every_axis_is_named(
    one: Study, tmp_path: Path
) -> None:
    results = stored(one)
    found = sections(one, results)
    for section in found:
        assert section.answer is not None, section.failure
        assert all(str(line).strip() for line in section.answer.sentences)
        drawings = [part for part in section.answer.parts if isinstance(part, Drawing)]
        assert drawings
        for drawing in drawings:
            for axes in drawing.figure.axes:
                assert axes.get_ylabel()
                assert axes.get_xlabel() or axes.get_label() == "<colorbar>"
    assert page.write(tmp_path / "index.html", "Title", [], found)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    ids = {record.run_id for records in results.values() for record in records}
    linked = set(re.findall(r'href="#run-(\w+)"', text))
    assert linked
    assert linked <= ids


class Broken(Stored):
    """A run that diverged: every metric is NaN, or infinite."""

    def value(self, key: str) -> float:
        return float(self.params.get(key, (math.nan, math.inf)[self.number % 2]))

    def curve(self, key: str) -> list[tuple[float, float]]:
        return [(step, self.value("")) for step, _ in super().curve(key)]


@pytest.mark.parametrize("one", STUDIES, ids=lambda one: one.name)
def test_runs_without_finite_figures_leave_a_page_that_says_so(one: Study, tmp_path: Path) -> None:
    results: Any = {
        label: [Broken(run.run_id, Job(label, run.overrides), run.number) for run in runs]
        for label, runs in stored(one).items()
    }
    found = sections(one, results)
    page.write(tmp_path / "index.html", "Title", [], found)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"[ >]nan\b", re.sub(r'data-\w+="[^"]*"', "", text))
    for section in found:
        assert section.answer is not None or section.failure in text.replace("&#39;", "'")


def test_a_section_that_cannot_be_made_says_why_and_its_neighbours_stand() -> None:
    def fails(results: object) -> Answer:
        raise ZeroDivisionError("no windows")

    works = Question("works", "Works", "Does it?", lambda results: Answer([], []))
    one = Study("one", (), (Question("fails", "Fails", "Why?", fails, lab=3), works))
    broken, whole = sections(one, {})
    assert (broken.answer, broken.failure) == (None, "ZeroDivisionError: no windows")
    assert (broken.title, broken.lab) == ("Fails", 3)
    assert whole.answer is not None


def test_the_ten_questions_of_the_lab_have_a_section_each() -> None:
    asked = [question.lab for one in STUDIES for question in one.questions if question.lab]
    assert sorted(asked) == list(range(1, 11))


def test_a_gru_of_the_computed_width_has_the_parameters_of_the_lstm() -> None:
    record: Any = Stored("run", Job("LSTM", ()), 7)
    units, total = gates.width(record), int(record.value("model.parameters"))

    def parameters(units: int) -> int:
        return 4000 * (units + 1) + gates.GATES["GRU"] * units * (2 * units + 2)

    assert all(
        abs(parameters(units) - total) <= abs(parameters(units + other) - total)
        for other in (-1, 1)
    )


def test_a_matrix_names_runs_by_their_cells_and_reads_null_as_infinite() -> None:
    result: Any = {
        "runs": [{"run_id": "a", "model": "rnn"}, {"run_id": "b", "model": "lstm"}],
        "texts": [{"writer": "a", "mode": "greedy", "samples": []}],
        "scores": [
            {"reader": "b", "writer": "a", "mode": "greedy", "perplexity": 7.0, "tokens": 5},
            {"reader": "a", "writer": "test", "mode": None, "perplexity": None, "tokens": 5},
        ],
    }
    record: Any = Stored("run", Job("", ()), 1)
    record.result = lambda: result
    matrix = comparison.Matrix([record, record])
    assert matrix.perplexity("LSTM", "RNN", "greedy").values == (7.0, 7.0)
    assert matrix.perplexity("RNN", "test").values == (math.inf, math.inf)


class Falling(Stored):
    """A run whose gradient has a constant factor per step."""

    factor = 0.8

    def curve(self, key: str) -> list[tuple[float, float]]:
        return [(float(k), 3 * self.factor**k) for k in range(gradient_flow.STEPS_BACK + 1)]


@pytest.mark.parametrize(
    ("factor", "vanished", "left"),
    [(0.8, "21", "1.4e-05"), (1.0, "> 50", "1"), (1.1, "> 50", "1.2e+02")],
)
def test_a_flow_says_where_it_vanishes_what_is_left_and_the_factor_per_step(
    factor: float, vanished: str, left: str
) -> None:
    record: Any = Falling("id", Job("", ()), 1)
    record.factor = factor
    flow = gradient_flow.Flow([record, record], gradient_flow.START)
    assert (flow.vanished().striptags(), flow.left().striptags()) == (vanished, left)
    assert flow.factor() == pytest.approx(factor)


def test_a_gradient_of_zero_has_no_factor() -> None:
    record: Any = Falling("id", Job("", ()), 1)
    record.factor = 0.0
    assert math.isnan(gradient_flow.Flow([record, record], gradient_flow.START).factor())


def test_a_table_has_a_row_for_each_label_and_says_how_many_runs_it_rests_on() -> None:
    results = stored(gates.STUDY)
    made = study.table("cell", results, ["RNN", "GRU"], [study.PERPLEXITY], "Caption.")
    assert [row[0] for row in made.rows] == ["RNN", "GRU"]
    assert made.caption.endswith("runs for each row: 3.")
