"""Run the studies and write the report: ``python -m experiments.reproduce [override ...]``.

STUDIES="cells hidden_size"   a choice of studies, all where it is empty
JOBS=2                        jobs at a time, by default one a core
"""

from __future__ import annotations

import os
import platform
import sys
import time

from joblib import cpu_count

from experiments import (
    cells,
    character_rnn,
    cross_scoring,
    deployment,
    forecast,
    gates,
    gradient_flow,
    hidden_size,
    indices,
    memory,
    ngrams,
    rnn_improvements,
    shuffling,
    tokens,
    training_curves,
    width_and_batch,
    zipf,
)
from experiments.study import Study, run
from unroll import __version__
from unroll.config import HOME
from unroll.errors import explain, require, unknown
from unroll.report import page
from unroll.tasks.run import git_commit

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
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
        ngrams.STUDY,
        forecast.STUDY,
        ngrams.PENN_TREEBANK_STUDY,
        width_and_batch.STUDY,
        character_rnn.LYRICS_STUDY,
        character_rnn.TIME_MACHINE_STUDY,
        zipf.TIME_MACHINE_STUDY,
        zipf.AG_NEWS_STUDY,
    )
}


def main() -> None:
    """Run the chosen studies, then write ``report/index.html``."""
    try:
        sys.exit(reproduce(sys.argv[1:], os.environ.get("STUDIES", "").split()))
    except KeyboardInterrupt:
        print(
            "reproduce: interrupted; what has finished is kept and not run again", file=sys.stderr
        )
        sys.exit(130)
    except Exception as error:
        line, code = explain(error)
        if line is None:
            raise
        print(f"reproduce: {line}", file=sys.stderr)
        sys.exit(code)


def reproduce(words: list[str], chosen: list[str]) -> int:
    """Run studies on what the overrides say and write the report; the exit code.

    A study that cannot be run as asked is named on the page, and the others go on.

    Raises:
        Refused: a study does not exist.
    """
    start = time.monotonic()
    rerun = "rerun=true" in words
    extra = [word for word in words if not word.startswith("rerun=")]
    for name in chosen:
        require(name in STUDIES, unknown("study", name, STUDIES))
    jobs = os.environ.get("JOBS") or str(cpu_count())
    require(jobs.isdigit() and int(jobs) >= 1, f"JOBS={jobs}: how many jobs at once, at least 1")
    parallel = int(jobs)
    sections: list[page.Section] = []
    absent: list[page.Absent] = []
    worst = 0
    for study in (STUDIES[name] for name in chosen or STUDIES):
        missing = study.missing()
        if missing:
            absent.append(page.Absent(study.name, f"needs a text: make reproduce {missing}"))
            print(f"study {study.name}: skipped, {absent[-1].reason}", flush=True)
            continue
        print(f"study {study.name}", flush=True)
        try:
            sections += run(study, extra, parallel, rerun).sections()
        except Exception as error:  # the others go on, and the page says what is missing
            line, code = explain(error)
            if line is None:
                raise
            absent.append(page.Absent(study.name, line))
            print(f"study {study.name}: {line}", file=sys.stderr, flush=True)
            worst = max(worst, code)
    report = HOME / "report" / "index.html"
    report.parent.mkdir(exist_ok=True)
    facts = [
        f"Unroll {__version__}, commit {git_commit()[:12]}, {time.strftime('%Y-%m-%d')}",
        f"{platform.machine()}, Python {platform.python_version()}, {parallel} jobs of one thread",
        "corpus: " + (" ".join(extra) or "data=lee_news (300 + 50 news articles)"),
        "every number leads to the run it comes from",
    ]
    page.write(report, "RNN, LSTM and GRU compared", facts, sections, absent)
    print(f"report: {report} ({time.monotonic() - start:.0f} s)")
    return worst


if __name__ == "__main__":
    main()
