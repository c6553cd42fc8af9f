"""Run the studies and write the report: ``python -m experiments.reproduce [override ...]``.

FULL=1                        train on Wikipedia instead of a few news articles
STUDIES="cells hidden_size"   a choice of studies; all where it is empty
JOBS=2                        jobs at a time, by default one for each core
LYRICS=lyrics.zip             the text of a study that needs one; also TIME_MACHINE, PENN_TREEBANK,
                              AG_NEWS
"""

from __future__ import annotations

import os
import platform
import sys
import time

from experiments import (
    cells,
    character_rnn,
    context,
    cross_scoring,
    deployment,
    equal_time,
    estimate,
    forecast,
    gates,
    gradient_flow,
    hidden_size,
    indices,
    memory,
    models,
    ngrams,
    rnn_improvements,
    shuffling,
    tokens,
    training_curves,
    width_and_batch,
    zipf,
)
from experiments.bench import section
from experiments.chaos import section as chaos
from experiments.command import jobs_at_a_time, run_command
from experiments.running import Failure, Session, failed_sections, sections
from experiments.study import FULL, Study
from unroll import __version__
from unroll.app import compose
from unroll.errors import FAILED, redacted, require, unknown
from unroll.folders import HOME
from unroll.report import page
from unroll.tracking.source import git_commit

QUICK_PROFILE = (
    "the quick profile: 300 + 50 news articles (data=lee_news), 90,000 subwords to learn from; the "
    "validation split is of the same 300 articles, the test split is the other 50, so that their "
    "perplexities differ; a section says where it learns from fewer articles; make reproduce "
    "FULL=1 has seven times as much text; make tune chose the learning rate of each model on this "
    "text, with one seed"
)
FULL_PROFILE = (
    "the full profile: 95 articles of Wikipedia, 616,000 subwords to learn from, six epochs; "
    "a section says where it learns from fewer articles; make tune FULL=1 chose the learning rate "
    "on this text by trainings of four epochs with one seed, of each cell from the same four, of "
    "the Transformer from three"
)
STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        models.STUDY,
        zipf.STUDY,
        tokens.STUDY,
        indices.STUDY,
        shuffling.STUDY,
        cells.STUDY,
        training_curves.STUDY,
        gates.STUDY,
        rnn_improvements.STUDY,
        hidden_size.STUDY,
        cross_scoring.STUDY,
        deployment.STUDY,
        gradient_flow.STUDY,
        memory.STUDY,
        context.STUDY,
        equal_time.STUDY,
        ngrams.STUDY,
        forecast.STUDY,
        ngrams.PENN_TREEBANK_STUDY,
        ngrams.TOO_LONG_STUDY,
        width_and_batch.STUDY,
        character_rnn.LYRICS_STUDY,
        character_rnn.TIME_MACHINE_STUDY,
        zipf.TIME_MACHINE_STUDY,
        zipf.AG_NEWS_STUDY,
        section.STUDY,
        chaos.STUDY,
    )
}


def main() -> None:
    """Run the chosen studies, then write ``report/index.html``."""
    words, names = sys.argv[1:], os.environ.get("STUDIES", "").split()
    run_command(
        "reproduce",
        lambda: reproduce(words, names),
        "finished runs will be reused, others go on",
    )


def reproduce(words: list[str], names: list[str]) -> int:
    """Run studies with the overrides ``words`` and write the report; returns the exit code.

    A study or section that fails shows the reason on the page, and the others go on.

    Raises:
        Refused: a study does not exist.
    """
    start = time.monotonic()
    extra = [word for word in words if not word.startswith("rerun=")]
    rerun = compose([word for word in words if word.startswith("rerun=")]).rerun
    for name in names:
        require(name in STUDIES, unknown("study", name, STUDIES))
    require(
        not any(word.startswith("tracking=") for word in words),
        "tracking= cannot be chosen here, because the report reads its runs from MLflow: leave it "
        "out",
    )
    jobs = jobs_at_a_time()
    chosen = [STUDIES[name] for name in names or STUDIES]
    absent = [page.Absent(study.name, missing) for study in chosen if (missing := study.missing())]
    for skipped in absent:
        print(f"study {skipped.name}: skipped, {skipped.reason}", flush=True)
    given = [study for study in chosen if not study.missing()]
    session = Session(extra, jobs, rerun=rerun)
    results = session.run(given)
    found = [
        each
        for study in given
        for each in (
            sections(study, results[study.name])
            if study.name in results
            else failed_sections(study, session.failures[study.name])
        )
    ]
    report = HOME / "report" / "index.html"
    report.parent.mkdir(exist_ok=True)
    whole = page.write(
        report, "RNN, LSTM and GRU compared", _facts(extra, jobs, names), found, absent
    )
    for each in found:
        if each.answer is None:
            print(f"section {each.name}: {each.failure}", file=sys.stderr, flush=True)
    estimate.write(report.with_name("seconds.json"), results)
    print(f"report: {report} ({time.monotonic() - start:.0f} s)")
    return _code(list(session.failures.values()), whole)


def _code(failures: list[Failure], whole: bool) -> int:
    return max([failure.code for failure in failures] or [0 if whole else FAILED])


def _facts(extra: list[str], jobs: int, names: list[str]) -> list[str]:
    found, _, dirty = git_commit().partition("-")
    commit = found[:12] + (dirty and f"-{dirty}")
    part = [f"this page holds a part of the studies: {', '.join(names)}"] if names else []
    beside = "one job at a time" if jobs == 1 else f"{jobs} jobs side by side"
    return [
        *part,
        f"Unroll {__version__}, commit {commit}, {time.strftime('%Y-%m-%d')}; the runs are listed "
        "at the end of their section, each with its own commit",
        f"{platform.machine()}, Python {platform.python_version()}, {beside}, each on one "
        "thread; speeds are measured with nothing beside them",
        f"{FULL_PROFILE if FULL else QUICK_PROFILE}"
        + (f"; settings given with the command: {redacted(' '.join(extra))}" if extra else ""),
        "a test perplexity is that of the weights that did best on the validation split",
        "every figure of a run links to it; every comparison is paired by seed, with the 95% "
        "interval of the mean difference (Student's t), each for its own pair: of twenty pairs "
        "without a difference about one is told apart by chance, and some beyond that where seeds "
        "were added or the first name was chosen by its mean; seeds vary, the test text does not",
    ]


if __name__ == "__main__":
    main()
