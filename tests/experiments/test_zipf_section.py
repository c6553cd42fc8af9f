"""The section about the text: every number of it comes from its one run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from experiments.study import run

from experiments import zipf
from unroll.report import page


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("zipf")
    return [f"tracking.directory={folder}/mlruns", f"data.cache={folder}/cache"]


def test_the_section_is_drawn_from_the_run_s_own_record(places: list[str], tmp_path: Path) -> None:
    found = run(zipf.STUDY, [*places, "data.limit=40"], parallel=1, rerun=False)
    (record,) = found.results[zipf.LABEL]
    (small,) = found.results[zipf.BY_HAND]
    page.write(tmp_path / "index.html", "Title", [], found.sections())
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'href="#run-(\w+)"', text)) == {
        record.run_id,
        small.run_id,
    }
    result = record.result()
    assert list(result["splits"]) == ["train", "test"]
    for item in result["splits"]["train"]["most_frequent"]:
        assert f">{item['token']}</a>" in text
        assert f">{item['count']:,}</a>" in text
    assert f">{result['splits']['train']['windows']:,}</a>" in text
    assert f">{result['zipf']['unigrams']['fit']['exponent']:.2f}</a>" in text
    assert [row.measured.striptags() for row in found.sections()[0].published[:2]] == ["40", "46"]
    for name in ("zipf_frequencies", "zipf_lengths"):
        assert (tmp_path / "figures" / f"{name}.svg").is_file()


def test_a_text_too_short_for_a_law_is_drawn_without_one(places: list[str], tmp_path: Path) -> None:
    sections = run(zipf.STUDY, [*places, "data.limit=1"], parallel=1, rerun=False).sections()
    page.write(tmp_path / "index.html", "Title", [], sections)
    assert "nan" not in "".join(sections[0].answer)
