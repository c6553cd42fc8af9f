"""The studies ask for configs that exist, and draw themselves from the store alone."""

import json
import re
from pathlib import Path

import pytest
from experiments.study import Job, Study, run

from experiments import cells, forecast, reproduce
from unroll.app import compose
from unroll.registry import Refused
from unroll.report import page

SMALL = (
    "data.limit=30",
    "model.hidden_size=8",
    "model.embedding_size=8",
    "training.max_steps=4",
    "sampling.length=3",
)


@pytest.mark.parametrize("name", reproduce.STUDIES)
def test_every_job_of_every_study_composes_and_no_two_are_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = reproduce.STUDIES[name]
    if study.corpus is not None:
        monkeypatch.setenv(study.corpus.upper(), "somewhere")
    jobs = study.jobs
    assert len({job.overrides for job in jobs}) == len(jobs)
    for label in {job.label for job in jobs}:
        overrides = next(job.overrides for job in jobs if job.label == label)
        compose([*overrides, *study.words([])])


def test_a_study_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Refused, match="did you mean 'cells'"):
        reproduce.reproduce([], ["cell"])


def test_a_study_runs_once_and_draws_every_number_from_its_runs(tmp_path: Path) -> None:
    extra = [*SMALL, f"tracking.directory={tmp_path}/mlruns", f"data.cache={tmp_path}/cache"]
    jobs = tuple(
        Job(cell, ("experiment=study", f"model={cell}", f"seed={seed}"))
        for cell in cells.CELLS
        for seed in (1, 2)
    )
    study = Study("cells", jobs, cells.draw)
    first = run(study, extra, parallel=1, rerun=False)
    again = run(study, extra, parallel=1, rerun=False)
    ids = [record.run_id for records in first.results.values() for record in records]
    assert len(set(ids)) == 6
    assert ids == [record.run_id for records in again.results.values() for record in records]
    page.write(tmp_path / "index.html", "Title", [], again.sections())
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'href="#run-(\w+)"', text)) <= set(ids)
    best = min(
        sum(record.metric("test/perplexity") for record in records) / 2
        for records in first.results.values()
    )
    assert f">{best:.1f}</a>" in text
    assert json.dumps("nan") not in text


def test_a_study_with_data_of_its_own_is_left_alone_by_overrides_and_drawn_from_the_store(
    tmp_path: Path,
) -> None:
    places = (f"tracking.directory={tmp_path}/mlruns", f"data.cache={tmp_path}/cache")
    jobs = tuple(
        Job(name, ("task=forecast", f"task.forecaster={name}", f"seed={seed}", *places))
        for name in forecast.FORECASTERS
        for seed in (1, 2)
    )
    study = Study("forecast", jobs, forecast.draw, own_data=True)
    done = run(study, ["data.limit=3", "seed=7"], parallel=1, rerun=False)
    ids = [record.run_id for records in done.results.values() for record in records]
    assert len(set(ids)) == 8
    assert {record.params["seed"] for record in done.results["gru"]} == {"1", "2"}
    page.write(tmp_path / "index.html", "Title", [], done.sections())
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'href="#run-(\w+)"', text)) <= set(ids)
    collapsed = sum(record.metric("error/multi_step") for record in done.results["mlp"]) / 2
    assert f">{collapsed:.3f}</a>" in text
