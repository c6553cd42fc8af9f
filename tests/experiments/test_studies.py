"""The studies ask for configs that exist, and draw themselves from the store alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from experiments.study import Job, Study, run

from experiments import cells, forecast, memory, reproduce
from unroll.app import compose
from unroll.errors import Refused
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


def test_a_study_that_brings_its_data_takes_from_the_command_only_where_things_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = (Job("a", ("experiment=recall",)),)
    extra = ["data=ag_news", "training.max_steps=4", "tracking.directory=here", "data.cache=there"]
    assert Study("own", jobs, cells.draw, own_data=True).words(extra) == extra[2:]
    assert Study("other", jobs, cells.draw).words(extra) == extra
    given = Study("given", jobs, cells.draw, corpus="lyrics")
    assert given.missing() == "LYRICS=PATH"
    monkeypatch.setenv("LYRICS", "songs.zip")
    assert given.missing() is None
    assert given.words(extra) == [*extra[2:], "data.path=songs.zip"]


class Recalled:
    """A finished run with nothing but an accuracy."""

    def __init__(self, run_id: str, accuracy: float) -> None:
        self.run_id, self.accuracy = run_id, accuracy

    def metric(self, key: str) -> float:
        assert key == "test/accuracy"
        return self.accuracy


@pytest.mark.parametrize(
    ("rnn", "lstm", "said"),
    [
        (0.13, 1.0, f"At a gap of {memory.GAPS[-1]} words the LSTM names"),
        (0.30, 1.0, "At none of the gaps"),
        (0.13, 0.9, "At none of the gaps"),
    ],
)
def test_the_memory_study_says_where_rnn_and_lstm_part_only_if_they_do(
    rnn: float, lstm: float, said: str
) -> None:
    accuracy = {"rnn": rnn, "lstm": lstm, "gru": 1.0}
    results: Any = {
        memory.label(cell, gap): [
            Recalled(f"{cell}{gap}{seed}", accuracy[cell]) for seed in memory.SEEDS
        ]
        for cell in memory.CELLS
        for gap in memory.GAPS
    }
    answer = memory.draw(results)[0].answer
    assert said in answer[0].striptags()
    reach = answer[1 + memory.CELLS.index("lstm")].striptags()
    assert ("at no gap" in reach) == (lstm < 0.95)
