"""Every section is drawn from the store alone, links what it says, and names its axes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from experiments.cells import CELLS
from experiments.study import Results, Study

from experiments import cross_scoring, gates, reproduce
from unroll.report import page
from unroll.report.page import Drawing

MEASURED = ("zipf", "ag_news", "time_machine_words", "forecast", "gradient_flow", "memory")
"""Studies with tests of their own."""
STUDIES = [study for name, study in reproduce.STUDIES.items() if name not in MEASURED]


class Stored:
    """A finished run as the store would hold it; its figures differ from run to run."""

    made = 0

    def __init__(self, overrides: tuple[str, ...]) -> None:
        Stored.made += 1
        self.number = Stored.made
        self.run_id = f"run{self.number}"
        self.tags = {"overrides": " ".join(overrides)}
        self.overrides, self.seconds = overrides, 1.5
        self.params = {
            "model.parameters": str(1_000_000 + self.number),
            "data.vocabulary_size": "4000",
            "model.embedding_size": "128",
            "model.hidden_size": "128",
        }

    def metric(self, key: str) -> float:
        return 1.0 + (self.number * 37 + len(key)) % 100 / 10

    def curve(self, key: str) -> list[tuple[float, float]]:
        return [(float(step), 1 + (self.number + step) % 7 / 7) for step in range(1, 501)]

    def result(self) -> dict[str, Any]:
        sample = {"prefix": "a <unk> prefix", "text": "and on"}
        runs = re.findall(r"task\.runs=\[([^]]*)\]", " ".join(self.overrides))
        if not runs:
            return {"samples": [sample, sample], "tokens": 100, "tokens_per_second": 5, "epochs": 2}
        ids = runs[0].split(",")
        writers = [("people", None), *((run, mode) for run in ids for mode in cross_scoring.MODES)]
        keys = ("distinct_1", "distinct_2", "distinct_3", "repetition")
        return {
            "runs": [{"run_id": run, "model": cell} for run, cell in zip(ids, CELLS, strict=True)],
            "texts": [
                {"writer": writer, "mode": mode, "samples": [sample]}
                | {key: self.number / 1000 for key in keys}
                for writer, mode in writers
            ],
            "scores": [
                {"reader": run, "writer": writer, "mode": mode, "perplexity": 5.0 + place}
                for run in ids
                for place, (writer, mode) in enumerate([("test", None), *writers])
            ],
        }


def stored(study: Study) -> Results:
    results: Any = {}
    for job in study.jobs:
        results.setdefault(job.label, []).append(Stored(job.overrides))
    for job in study.then(results) if study.then else ():
        results.setdefault(job.label, []).append(Stored(job.overrides))
    return results


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_number_of_a_section_leads_to_one_of_its_runs_and_every_axis_is_named(
    study: Study, tmp_path: Path
) -> None:
    results = stored(study)
    sections = study.draw(results)
    assert sections
    for section in sections:
        section.jobs = [(label, run) for label, runs in results.items() for run in runs]
        assert section.answer
        assert all(line.strip() for line in section.answer)
        drawings = [part for part in section.parts if isinstance(part, Drawing)]
        assert drawings
        for drawing in drawings:
            for axes in drawing.figure.axes:
                assert axes.get_xlabel() or axes.get_ylabel()
                if axes.get_label() != "<colorbar>":
                    assert axes.get_xlabel()
                    assert axes.get_ylabel()
    page.write(tmp_path / "index.html", "Title", [], sections)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    ids = {record.run_id for records in results.values() for record in records}
    linked = set(re.findall(r'href="#run-(\w+)"', text))
    assert linked
    assert linked <= ids


def test_the_ten_questions_of_the_lab_have_a_section_each() -> None:
    asked = [
        section.lab for study in STUDIES for section in study.draw(stored(study)) if section.lab
    ]
    assert sorted(asked) == list(range(1, 11))


@pytest.mark.parametrize("cell", gates.GATES)
def test_a_cell_of_the_width_worked_out_has_the_parameters_it_should(cell: str) -> None:
    record: Any = Stored(())
    units, total = gates.width(cell, record), int(record.params["model.parameters"])

    def parameters(units: int) -> int:
        own = gates.GATES[cell] * units * (128 + units + 2)
        return 4000 * 128 + own + 4000 * (units + 1)

    assert all(
        abs(parameters(units) - total) <= abs(parameters(units + other) - total)
        for other in (-1, 1)
    )


def test_a_matrix_tells_runs_by_their_cells_and_the_store_s_null_as_infinite() -> None:
    result: Any = {
        "runs": [{"run_id": "a", "model": "rnn"}, {"run_id": "b", "model": "lstm"}],
        "texts": [{"writer": "a", "mode": "greedy", "samples": []}],
        "scores": [
            {"reader": "b", "writer": "a", "mode": "greedy", "perplexity": 7.0},
            {"reader": "a", "writer": "test", "mode": None, "perplexity": None},
        ],
    }
    record: Any = Stored(())
    record.result = lambda: result
    matrix = cross_scoring.Matrix([record, record])
    assert matrix.perplexity("lstm", "rnn", "greedy").values == (7.0, 7.0)
    assert matrix.perplexity("rnn", "test").values == (float("inf"), float("inf"))
