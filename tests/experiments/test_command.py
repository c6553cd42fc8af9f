"""How the commands of the studies end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from unroll.errors import TERMINATED

PROGRAM = """
import os, sys, time
from pathlib import Path
from joblib import Parallel, delayed
from experiments.command import run_command

def wait(number):
    Path(sys.argv[1], f"{number}.pid").write_text(str(os.getpid()))
    time.sleep(60)

def work():
    list(Parallel(n_jobs=2, return_as="generator")(delayed(wait)(number) for number in range(2)))
    return 0

run_command("sleep", work, "nothing is lost")
"""


def ended(process: int) -> bool:
    """Whether a process is gone, or a zombie whose parent has not asked for it."""
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_sigterm_ends_the_command_in_one_line_and_its_workers_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(found := list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)
    workers = [int(path.read_text()) for path in found]
    assert len(workers) == 2
    parent.send_signal(signal.SIGTERM)
    _, line = parent.communicate(timeout=30)
    assert (parent.returncode, line) == (TERMINATED, "sleep: terminated; nothing is lost\n")
    until = time.monotonic() + 30
    while not all(map(ended, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert all(map(ended, workers))
