"""How a command of the studies ends: the exit code, and one line for an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from joblib import cpu_count

from unroll.app import end_on_sigterm
from unroll.errors import INTERRUPTED, TERMINATED, Terminated, explain, require


def jobs_at_a_time() -> int:
    """JOBS of the environment, by default one for each core.

    Raises:
        Refused: it is no number of jobs.
    """
    jobs = os.environ.get("JOBS") or str(cpu_count())
    require(jobs.isdigit() and int(jobs) >= 1, f"JOBS={jobs}: must be an integer of at least 1")
    return int(jobs)


def run_command(name: str, work: Callable[[], int], interrupted: str) -> None:
    """Exit with the code that ``work`` returns, or with that of its error.

    Args:
        name: of the command, before the line of an error.
        interrupted: what Ctrl-C or SIGTERM leaves.
    """
    end_on_sigterm()  # as an error: joblib then ends its workers too
    try:
        sys.exit(work())
    except Terminated:
        print(f"{name}: terminated; {interrupted}", file=sys.stderr)
        sys.exit(TERMINATED)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {interrupted}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        line, code = explain(error)
        if line is None:
            raise
        print(f"{name}: {line}", file=sys.stderr)
        sys.exit(code)
