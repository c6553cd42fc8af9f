"""The studies ask for configs that exist, reuse what is there, and fail one by one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import joblib
import pytest
from experiments.running import Session, failed_sections, require_varied, sections
from experiments.study import CELLS, Job, Question, Study, grid, more_seeds

from experiments import cells, forecast, reproduce, running
from unroll.app import compose, dispatch
from unroll.errors import Refused
from unroll.report import page
from unroll.report.page import Answer
from unroll.tasks.run import Run
from unroll.tracking.ledger import claimed

pytestmark = pytest.mark.usefixtures("mlruns")

SMALL = (
    "data=lee_news",
    "data.limit=30",
    "model.hidden_size=8",
    "model.embedding_size=8",
    "training.max_steps=4",
    "sampling.length=3",
)


def nothing(results: object) -> Answer:
    return Answer([], [])


def small_study(name: str, cell: str = "rnn,gru", seeds: tuple[int, ...] = (1, 2)) -> Study:
    variants = {each.upper(): f"experiment=study/{each}" for each in cell.split(",")}
    question = Question(name, "Title", "Question?", nothing)
    return Study(name, grid("", variants, seeds), (question,))


def places(folder: Path) -> list[str]:
    return [f"tracking.directory={folder}/mlruns", f"data.cache={folder}/cache"]


def parents(folder: Path) -> list[Any]:
    from unroll.tracking.store import connect, search

    client = connect(folder / "mlruns")
    return [run for run in search(client, "1", "") if "mlflow.parentRunId" not in run.data.tags]


@pytest.mark.parametrize("name", reproduce.STUDIES)
def test_every_job_of_every_study_composes_and_no_two_are_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = reproduce.STUDIES[name]
    if study.corpus is not None:
        monkeypatch.setenv(study.corpus.upper(), "somewhere")
    jobs = [study.with_overrides(job, []) for job in study.jobs]
    assert len({job.overrides for job in jobs}) == len(jobs)
    for label in {job.label for job in jobs}:
        compose(next(job.overrides for job in jobs if job.label == label))


def test_a_study_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Refused, match="did you mean 'cells'"):
        reproduce.reproduce([], ["cell"])


def test_grid_makes_a_job_for_each_variant_and_seed() -> None:
    jobs = grid("a=1 b=2", {"x": "c=3", "y": ""}, seeds=(1, 2))
    assert [(job.label, job.overrides) for job in jobs] == [
        ("x", ("a=1", "b=2", "c=3", "seed=1")),
        ("x", ("a=1", "b=2", "c=3", "seed=2")),
        ("y", ("a=1", "b=2", "seed=1")),
        ("y", ("a=1", "b=2", "seed=2")),
    ]


@pytest.mark.parametrize(("second", "asked"), [([99.0, 100.0, 102.0], 4), ([80.0, 81.0, 82.0], 0)])
def test_two_seeds_are_added_only_where_three_do_not_tell_the_models_apart(
    second: list[float], asked: int
) -> None:
    class Scored:
        run_id = "run"

        def __init__(self, perplexity: float) -> None:
            self.perplexity = perplexity

        def value(self, key: str) -> float:
            return self.perplexity

    found: Any = {"a": [Scored(x) for x in (100.0, 101.0, 99.0)], "b": [Scored(x) for x in second]}
    jobs = more_seeds(found, "base=1", {"a": "", "b": "x=1"}, "test/perplexity")
    assert len(jobs) == asked
    assert {job.overrides[-1] for job in jobs} <= {"seed=4", "seed=5"}
    assert {job.label for job in jobs} <= {"a", "b"}


def test_a_study_runs_once_and_links_every_number_to_its_runs(tmp_path: Path) -> None:
    study = Study("cells", cells.STUDY.jobs, cells.STUDY.questions)
    extra = [*SMALL[:-2], "sampling.length=3", "training.epochs=1", *places(tmp_path)]
    jobs = tuple(job for job in study.jobs if job.overrides[-1] in ("seed=1", "seed=2"))
    study = Study("cells", jobs, study.questions)
    first = Session(extra, parallel=2).run([study])["cells"]
    again = Session(extra, parallel=2).run([study])["cells"]
    ids = [record.run_id for records in first.values() for record in records]
    assert len(set(ids)) == 12
    assert ids == [record.run_id for records in again.values() for record in records]
    assert page.write(tmp_path / "index.html", "Title", [], sections(study, again))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'href="#run-(\w+)"', text)) <= set(ids)
    best = min(sum(record.value("test/perplexity") for record in again[cell]) / 2 for cell in CELLS)
    assert f">{best:.1f}</a>" in text
    (parent,) = parents(tmp_path)
    assert parent.info.run_name == "study cells"
    assert {record.tags["study"] for record in again["RNN"]} == {"cells"}
    assert {record.tags["label"] for record in again["RNN"]} == {"RNN"}


def test_a_second_reproduce_adds_no_parent_and_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    extra = [*SMALL, *places(tmp_path)]
    Session(extra, parallel=1).run([small_study("one", seeds=(1,))])
    (before,) = parents(tmp_path)
    Session(extra, parallel=1).run([small_study("one", seeds=(1,))])
    (after,) = parents(tmp_path)
    assert (after.info.run_id, after.info.end_time) == (before.info.run_id, before.info.end_time)
    Session(extra, parallel=1).run([small_study("one", seeds=(1, 2))])
    (grown,) = parents(tmp_path)
    assert grown.info.run_id == before.info.run_id
    assert grown.info.status == "FINISHED"


def test_equal_jobs_of_two_studies_run_once_even_when_all_is_run_again(tmp_path: Path) -> None:
    both = [small_study("one", "rnn", (1,)), small_study("two", "rnn,gru", (1,))]
    extra = [*SMALL, *places(tmp_path)]
    found = [Session(extra, 1, rerun=rerun).run(both) for rerun in (False, True)]
    for results in found:
        assert results["one"]["RNN"][0].run_id == results["two"]["RNN"][0].run_id
    assert found[0]["one"]["RNN"][0].run_id != found[1]["one"]["RNN"][0].run_id


@pytest.mark.parametrize(
    ("word", "varies"),
    [
        ("seed=5", grid("", {"a": ""}, seeds=(1, 2))),
        ("model=lstm", grid("", {"a": "model=rnn", "b": "model=gru"}, seeds=(1,))),
        ("model.hidden_size=8", grid("", {"a": "", "b": "model.hidden_size=9"}, seeds=(1,))),
        ("data.batching=random", grid("", {"a": "", "b": "data/batching=random"}, seeds=(1,))),
    ],
)
def test_an_override_of_a_key_that_the_study_varies_is_refused_and_other_studies_go_on(
    word: str, varies: tuple[Job, ...], tmp_path: Path
) -> None:
    question = Question("varied", "Title", "Question?", nothing)
    varied = Study("varied", varies, (question,))
    fixed = Study("fixed", (Job("one", ("task=describe",)),), (question,))
    session = Session([word, "data.limit=30", *places(tmp_path)], parallel=1)
    results = session.run([varied, fixed])
    assert list(results) == ["fixed"]
    failure = session.failures["varied"]
    key = word.partition("=")[0]
    assert failure.code == 2
    assert f"{word} sets {key}, which study varied varies" in failure.reason
    (section,) = failed_sections(varied, failure)
    assert section.failure == failure.reason


@pytest.mark.parametrize(
    ("name", "word", "refused"),
    [
        ("ngrams", "data.vocabulary.min_frequency=3", False),  # written by some jobs, equal in all
        ("zipf", "model.hidden_size=64", False),  # the counts by hand are left alone
        ("cells", "training.max_steps=4", False),  # set by the timed jobs alone
        ("cells", "model.hidden_size=64", False),
        ("hidden_size", "model.hidden_size=64", True),
        ("cells", "seed=5", True),
        ("gates", "model.layers=2", True),  # the widths are computed for one layer
        ("gradient_flow", "evaluation.gradient_steps=20", True),
        ("indices", "model.embedding_dropout=0.3", True),
    ],
)
def test_only_overrides_that_make_jobs_alike_or_answers_false_are_refused(
    name: str, word: str, refused: bool
) -> None:
    study = reproduce.STUDIES[name]
    if refused:
        with pytest.raises(Refused, match=f"study {name}"):
            require_varied(study, study.jobs, [word])
    else:
        require_varied(study, study.jobs, [word])


def test_a_run_that_names_a_study_is_not_taken_for_its_parent(tmp_path: Path) -> None:
    own = compose([*SMALL, "experiment=study/lstm", "tracking.study=one", *places(tmp_path)])
    directory = tmp_path / "own"
    directory.mkdir()
    made = dispatch(own, directory, [], reuse=False)["run_id"]
    Session([*SMALL, *places(tmp_path)], parallel=1).run([small_study("one", seeds=(1,))])
    ids = {run.info.run_id: run for run in parents(tmp_path)}
    assert ids[made].data.tags.get("parent_of") is None
    assert len(ids) == 2


def test_a_timed_job_is_not_served_by_a_run_that_was_not_alone(tmp_path: Path) -> None:
    words = ("experiment=study/rnn", "seed=1")
    question = Question("q", "Title", "Question?", nothing)
    beside = Study("beside", (Job("RNN", words),), (question,))
    timed = Study("timed", (Job("RNN", words, alone=True),), (question,))
    extra = [*SMALL, *places(tmp_path)]
    first = Session(extra, parallel=1).run([beside])["beside"]["RNN"][0].run_id
    second = Session(extra, parallel=1).run([timed])["timed"]["RNN"][0].run_id
    third = Session(extra, parallel=1).run([timed])["timed"]["RNN"][0].run_id
    assert first != second == third
    again = Session(extra, parallel=1, rerun=True).run([beside])["beside"]["RNN"][0].run_id
    fourth = Session(extra, parallel=1).run([timed])["timed"]["RNN"][0].run_id
    assert again != fourth == third  # a newer run of the same config does not hide it


def test_jobs_that_read_runs_are_reused_too(tmp_path: Path) -> None:
    def deploy(results: Any) -> tuple[Job, ...]:
        words = ("task=deploy", f"run={results['RNN'][0].run_id}", "task.timed=3", "task.tokens=50")
        return (Job("deploy", words, alone=True),)

    one = small_study("one", "rnn", (1,))
    study = Study("one", one.jobs, one.questions, then=deploy)
    extra = [*SMALL, *places(tmp_path)]
    found = [Session(extra, parallel=1).run([study])["one"]["deploy"][0] for _ in range(2)]
    assert found[0].run_id == found[1].run_id


def test_follow_up_jobs_that_cannot_be_made_fail_their_study_alone(tmp_path: Path) -> None:
    def fails(results: Any) -> tuple[Job, ...]:
        raise IndexError("no run")

    one, two = small_study("one", "rnn", (1,)), small_study("two", "rnn", (1,))
    session = Session([*SMALL, *places(tmp_path)], parallel=1)
    results = session.run([Study("one", one.jobs, one.questions, then=fails), two])
    assert list(results) == ["two"]
    assert session.failures["one"].reason == "IndexError: no run"


def test_a_job_that_fails_fails_its_study_alone(tmp_path: Path) -> None:
    broken = Study(
        "broken",
        (Job("bad", ("experiment=study/rnn", "data.limit=1")),),
        (Question("broken", "Title", "Question?", nothing),),
    )
    extra = [*SMALL[:1], *SMALL[2:], *places(tmp_path)]
    session = Session(extra, parallel=1)
    results = session.run([broken, small_study("whole", "rnn", (1,))])
    assert list(results) == ["whole"]
    assert session.failures["broken"].code == 2
    assert session.failures["broken"].reason.startswith("bad: ")


def test_a_job_that_ends_is_told_though_a_longer_one_began_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(item: running.Planned, place: int, *rest: object) -> running.Ended:
        if place == 0:
            end = time.monotonic() + 60
            while "2/3" not in "".join(said) and time.monotonic() < end:
                said.append(capsys.readouterr().out)
                time.sleep(0.01)
        return running.Ended(place, "failed", "", running.Failure("on purpose", 1))

    said: list[str] = []
    monkeypatch.setattr(running, "_run", run)
    jobs = tuple(Job(each, ("experiment=study/rnn", f"seed={each}")) for each in "123")
    study = Study("one", jobs, small_study("one").questions)
    with joblib.parallel_config(backend="threading"):
        Session([*SMALL, *places(tmp_path)], parallel=2).run([study])
    assert "2/3" in "".join(said)


def test_a_job_that_was_cut_off_goes_on_and_a_timed_one_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("killed")

    words = ("experiment=study/rnn", "seed=1", "training.checkpoint_every=2")
    jobs = (Job("beside", words), Job("alone", words, alone=True))
    study = Study("one", jobs, small_study("one").questions)
    extra = [*SMALL, *places(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr("unroll.tasks.train.training_result", killed)
        session = Session(extra, parallel=1)
        assert session.run([study]) == {}
        assert "RuntimeError: killed" in session.failures["one"].reason
    capsys.readouterr()
    results = Session(extra, parallel=1).run([study])["one"]
    assert "2 jobs: 1 run, 1 resumed" in capsys.readouterr().out
    whole = Session(extra, parallel=1, rerun=True).run([study])["one"]
    for label in ("beside", "alone"):
        (found,), (expected,) = results[label], whole[label]
        assert found.value("test/perplexity") == expected.value("test/perplexity")
        assert found.run_id != expected.run_id


def test_a_job_that_another_process_runs_is_waited_for_and_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, extra = small_study("one", seeds=(1,)), [*SMALL, *places(tmp_path)]
    other = Session(extra, parallel=1)
    make_group, waits = Session._make_group, []

    def meanwhile(self: Session, *arguments: Any) -> list[Any]:
        elsewhere = make_group(self, *arguments)
        if elsewhere and not waits:
            waits.append(elsewhere)
            claim.__exit__(None, None, None)
            other.run([study])
        return elsewhere

    config = compose(["experiment=study/rnn", "seed=1", *extra, "threads=1"])
    claim = claimed(tmp_path / "mlruns", Run(config, tmp_path / "unused", []).fingerprint)
    assert claim.__enter__()
    monkeypatch.setattr(Session, "_make_group", meanwhile)
    monkeypatch.setattr(running.sweep, "POLL_SECONDS", 0.0)
    results = Session(extra, parallel=1).run([study])["one"]
    assert len(waits) == 1
    assert "2 jobs: 1 run, 1 finished before" in capsys.readouterr().out
    theirs = Session(extra, parallel=1).run([study])["one"]
    for label in ("RNN", "GRU"):
        assert [x.run_id for x in results[label]] == [x.run_id for x in theirs[label]]


def test_a_study_with_data_of_its_own_is_left_alone_by_overrides(tmp_path: Path) -> None:
    study = Study("forecast", forecast.STUDY.jobs[:2], forecast.STUDY.questions, own_data=True)
    extra = ["data.limit=3", "seed=7", *places(tmp_path)]
    (records,) = Session(extra, parallel=1).run([study])["forecast"].values()
    assert [record.params["seed"] for record in records] == ["1", "2"]


def test_a_study_that_brings_its_data_takes_from_the_command_only_where_things_are_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = (Job("a", ("experiment=recall",)),)
    extra = ["data=ag_news", "training.max_steps=4", "tracking.directory=here", "data.cache=there"]
    assert Study("own", jobs, (), own_data=True).words(extra) == extra[2:]
    assert Study("other", jobs, ()).words(extra) == extra
    given = Study("given", jobs, (), corpus="lyrics")
    assert given.missing() == "needs a text: make reproduce LYRICS=PATH"
    monkeypatch.setenv("LYRICS", "songs.zip")
    assert given.missing() is None
    assert given.words(extra) == [*extra[2:], "data.path=songs.zip"]
