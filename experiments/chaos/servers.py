"""A tracking server that is stopped for a time, never started, or answers with errors."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from experiments.chaos.evidence import Comparison, compared
from experiments.chaos.processes import after_growth
from experiments.chaos.scenarios import SMALL, Place, Row, complete
from unroll.errors import require
from unroll.tracking import journal

WORDS = (
    f"{SMALL} model=lstm model.hidden_size=64 training.epochs=null training.max_steps=1500 "
    "training.validate_every=500 training.checkpoint_every=500 tracking.every=20"
)
GONE_SECONDS = 20.0
TURNS = 3
ERRORS = 0.2
"""Share of the requests that the proxy answers with 500; half of them after the server had them."""
PROGRAM = """
import os, sys
store, port = sys.argv[1:]
os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{store}/mlflow.db"
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = f"{store}/artifacts"
from mlflow.server import app
app.run("127.0.0.1", int(port), threaded=True)
"""
"""MLflow's server without its helper processes."""


class Server:
    """MLflow's server on 127.0.0.1, with a SQLite store in ``folder``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = [sys.executable, "-c", PROGRAM, str(self.folder), str(self.port)]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(words, stdout=quiet, stderr=quiet)  # noqa: S603
        deadline = time.monotonic() + 120
        while True:
            try:
                urlopen(f"{self.uri}/health", timeout=5).close()  # noqa: S310
                return
            except OSError:
                alive = self.process.poll() is None and time.monotonic() < deadline
                require(alive, "MLflow's server did not start")
                time.sleep(0.1)

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server for the time of the context."""
    made = Server(folder)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def failing(uri: str, seed: int, errors: float) -> Iterator[str]:
    """The address of a proxy before a server that answers this share of requests with 500."""
    generator = random.Random(seed)  # noqa: S311

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            chance = generator.random()
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = (500, b"{}") if chance < errors / 2 else self._passed_on(content)
            if errors / 2 <= chance < errors:
                status, body = 500, b"{}"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _passed_on(self, content: bytes) -> tuple[int, bytes]:
            kind = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
            request = Request(uri + self.path, content or None, kind, method=self.command)  # noqa: S310
            try:
                with urlopen(request, timeout=30) as found:  # noqa: S310
                    return int(found.status), bytes(found.read())
            except HTTPError as error:
                return error.code, error.read()
            except URLError:
                return 502, b"{}"

        def log_message(self, format: str, *arguments: Any) -> None:
            return

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()


def server_rows(place: Place, seed: int) -> Iterator[Row]:
    """A row for each way in which a server fails."""
    with server(place.folder / "server") as steady:
        yield gone_for_a_time(place, steady)
        yield with_errors(place, steady, seed)
        yield never_there(place, steady)


def in_turns(
    scenario: str,
    kills: int,
    calm: Callable[[str], Path],
    disturbed: Callable[[str, Path], Comparison],
    place: Place,
) -> Row:
    """A row of trainings that nothing disturbs and disturbed ones, in turns, since the speed of a
    machine changes with what else it does.

    Args:
        calm: trains under a name with a server that works; the run directory.
        disturbed: trains under a name, and compares the end with that of another run.
    """
    start, found, lost = time.monotonic(), Comparison(), []
    for turn in range(TURNS):
        name = f"{scenario.split(',')[0]} {turn}"
        undisturbed = calm(f"{name} undisturbed")
        found.add(disturbed(name, undisturbed))
        lost.append(time_lost(place.run(name), undisturbed))
    return Row.of(scenario, kills * TURNS, found, start, lost)


def gone_for_a_time(place: Place, steady: Server) -> Row:
    """The server is killed in the middle of a run, and started again later."""

    def disturbed(name: str, undisturbed: Path) -> Comparison:
        command = place.command([*WORDS.split(), *place.words(name)], name, steady.uri)
        begun = after_growth(place.run(name), 2.0)
        while not begun() and command.process.poll() is None:
            time.sleep(0.1)
        steady.stop()
        time.sleep(GONE_SECONDS)
        steady.start()
        require(command.end() == 0, f"the run failed: see {place.folder / name}")
        return compared(place.run(name), undisturbed, place.store(name), steady.uri)

    scenario = f"server gone for {GONE_SECONDS:.0f} seconds"
    return in_turns(scenario, 1, lambda name: trained(place, name, steady.uri), disturbed, place)


def with_errors(place: Place, steady: Server, seed: int) -> Row:
    """The server answers with errors at random. The time is compared with that of a run through
    the same proxy without errors, which takes its part of the processor too."""
    seeds = count(seed)

    def calm(name: str) -> Path:
        with failing(steady.uri, seed, 0.0) as uri:
            return trained(place, name, uri)

    def disturbed(name: str, undisturbed: Path) -> Comparison:
        with failing(steady.uri, next(seeds), ERRORS) as uri:
            trained(place, name, uri)
        return compared(place.run(name), undisturbed, place.store(name), steady.uri)

    return in_turns(f"server answers {ERRORS:.0%} with errors", 0, calm, disturbed, place)


def never_there(place: Place, steady: Server) -> Row:
    """There is no server; task=sync delivers to a file later."""

    def disturbed(name: str, undisturbed: Path) -> Comparison:
        uri = f"http://127.0.0.1:{free_port()}"
        directory, sync = trained(place, name, uri, "tracking.wait_seconds=1"), f"{name} sync"
        words = ["task=sync", f"run={directory}", *place.words(name)[:2], *place.words(sync)[2:]]
        require(
            place.command(words, sync).end() == 0, f"task=sync failed: see {place.folder / sync}"
        )
        return compared(directory, undisturbed, place.store(name))

    scenario = "server never started, then task=sync"
    return in_turns(scenario, 0, lambda name: trained(place, name, steady.uri), disturbed, place)


def trained(place: Place, name: str, uri: str, *more: str) -> Path:
    """Train with the store at ``uri``; the run directory."""
    return complete(place, name, [*WORDS.split(), *more], uri)


def time_lost(directory: Path, undisturbed: Path) -> float:
    """Percent of time between the first and the last point of the training loss, above that of
    the undisturbed run."""
    return 100 * (training_seconds(directory) / training_seconds(undisturbed) - 1)


def training_seconds(directory: Path) -> float:
    """Seconds between the first and the last point of the training loss."""
    times = [point.time for point in journal.history(directory) if point.key == "train/loss"]
    return (times[-1] - times[0]) / 1000


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
