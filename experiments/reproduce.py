"""Run the studies and write the report: ``python -m experiments.reproduce [override ...]``.

STUDIES="cells hidden_size"   a choice of studies, all where it is empty
JOBS=2                        jobs at a time, by default one a core
"""

from __future__ import annotations

import os
import platform
import sys
import time

from experiments import cells, hidden_size, memory, rnn_improvements
from experiments.study import Study, run
from unroll import __version__
from unroll.app import explained
from unroll.config import HOME
from unroll.registry import Refused, require, unknown
from unroll.report import page
from unroll.tasks import git_commit

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY for module in (cells, hidden_size, rnn_improvements, memory)
}


def main() -> None:
    """Run the chosen studies, then write ``report/index.html``."""
    try:
        reproduce(sys.argv[1:], os.environ.get("STUDIES", "").split())
    except KeyboardInterrupt:
        print(
            "reproduce: interrupted; what has finished is kept and not run again", file=sys.stderr
        )
        sys.exit(130)
    except Exception as error:
        line, code = explained(error)
        if line is None:
            raise
        print(f"reproduce: {line}", file=sys.stderr)
        sys.exit(code)


def reproduce(words: list[str], chosen: list[str]) -> None:
    """Run studies on what the overrides say and write the report.

    Raises:
        Refused: a study does not exist, or a job cannot be run as asked.
    """
    start = time.monotonic()
    rerun = "rerun=true" in words
    extra = [word for word in words if not word.startswith("rerun=")]
    for name in chosen:
        require(name in STUDIES, unknown("study", name, STUDIES))
    try:
        parallel = int(os.environ.get("JOBS") or len(os.sched_getaffinity(0)))
        require(parallel >= 1, f"JOBS={parallel}: at least 1")
    except ValueError as error:
        raise Refused(f"JOBS={os.environ['JOBS']}: a number of jobs") from error
    sections = []
    for name in chosen or STUDIES:
        print(f"study {name}: {len(STUDIES[name].jobs)} runs", flush=True)
        sections.append(run(STUDIES[name], extra, parallel, rerun).section())
    report = HOME / "report" / "index.html"
    report.parent.mkdir(exist_ok=True)
    facts = [
        f"Unroll {__version__}, commit {git_commit()[:12]}, {time.strftime('%Y-%m-%d')}",
        f"{platform.machine()}, Python {platform.python_version()}, {parallel} jobs of one thread",
        "corpus: " + (" ".join(extra) or "data=lee_news (300 + 50 news articles)"),
        "every number leads to the run it comes from",
    ]
    page.write(report, "RNN, LSTM and GRU compared", facts, sections)
    print(f"report: {report} ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    main()
