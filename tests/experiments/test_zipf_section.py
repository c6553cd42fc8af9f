"""The section about the text: every number of it comes from its one run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from experiments.running import Session, sections
from experiments.study import Results

from experiments import zipf
from unroll.report import page
from unroll.report.page import Section


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("zipf")
    return [f"tracking.directory={folder}/mlruns", f"data.cache={folder}/cache"]


def described(places: list[str], *words: str) -> tuple[Results, Section]:
    """The study of the text, run for real."""
    results = Session([*places, *words], parallel=1).run([zipf.STUDY])["zipf"]
    (section,) = sections(zipf.STUDY, results)
    return results, section


def test_the_section_is_made_from_the_run_s_own_record(places: list[str], tmp_path: Path) -> None:
    results, section = described(places, "data.limit=40")
    (record,) = results[zipf.LABEL]
    page.write(tmp_path / "index.html", "Title", [], [section])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    ids = {record.run_id for records in results.values() for record in records}
    assert set(re.findall(r'href="#run-(\w+)"', text)) == ids
    result = record.result()
    assert list(result["splits"]) == ["train", "test"]
    for item in result["splits"]["train"]["most_frequent"]:
        assert f">{item['token']}</a>" in text
        assert f">{item['count']:,}</a>" in text
    assert f">{result['splits']['train']['windows']:,}</a>" in text
    assert f">{result['zipf']['unigrams']['fit']['exponent']:.2f}</a>" in text
    assert section.answer is not None
    assert [row.measured.striptags() for row in section.answer.published[:2]] == ["40", "46"]
    for name in ("zipf_frequencies", "zipf_lengths"):
        assert (tmp_path / "figures" / f"{name}.svg").is_file()


def test_a_text_too_short_for_a_law_is_drawn_without_one(places: list[str], tmp_path: Path) -> None:
    _, section = described(places, "data.limit=1")
    assert page.write(tmp_path / "index.html", "Title", [], [section])
    assert section.answer is not None
    assert "nan" not in "".join(map(str, section.answer.sentences))
