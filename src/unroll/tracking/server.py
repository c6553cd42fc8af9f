"""A tracking server on this machine: MLflow, with PostgreSQL and an S3-compatible file store.

    python -m unroll.tracking.server        # or: make server

Ctrl-C or SIGTERM stops it. Started again on the same folder it has all runs and files. The
environment may give:

SERVER_FOLDER=server            database, files and logs
SERVER_HOST=127.0.0.1           the address to listen on
SERVER_PORT=5000                the port of MLflow
SERVER_S3_PORT=9000             the port of the file store, which listens on 127.0.0.1 only
SERVER_ARTIFACTS=s3://BUCKET    another S3 store, with the variables that boto3 and MLflow have for
                                it (AWS_ACCESS_KEY_ID, MLFLOW_S3_ENDPOINT_URL, ...)
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

from unroll.errors import Refused, explain, require

PACKAGES = ("psycopg", "boto3")
SYSTEM = Path("/usr/lib/postgresql")
"""Where Debian keeps PostgreSQL, a folder for each version."""
LOCAL, BUCKET = "127.0.0.1", "unroll"
START_SECONDS, STOP_SECONDS = 300.0, 20.0
"""Seconds that a process may take until it answers, and to end before it is killed."""


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    folder: Path
    host: str
    port: int
    s3_port: int
    artifacts: str | None
    """None: the file store of this module."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """The settings, checked.

        Raises:
            Refused: a value is wrong.
        """
        artifacts = environment.get("SERVER_ARTIFACTS") or None
        require(
            artifacts is None or artifacts.startswith("s3://"),
            f"SERVER_ARTIFACTS={artifacts}: expected a bucket, as in s3://BUCKET/PATH",
        )
        return cls(
            Path(environment.get("SERVER_FOLDER") or "server").resolve(),
            environment.get("SERVER_HOST") or LOCAL,
            _port(environment, "SERVER_PORT", 5000),
            _port(environment, "SERVER_S3_PORT", 9000),
            artifacts,
        )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    require(
        text.isdecimal() and 1 <= int(text) <= 65535,
        f"{name}={text}: expected a port, an integer from 1 to 65535",
    )
    return int(text)


def require_packages(settings: Settings) -> None:
    """Raise ``Refused`` if a package is missing."""
    needed = PACKAGES if settings.artifacts else (*PACKAGES, "localbucket")
    missing = [name for name in needed if find_spec(name) is None]
    require(
        not missing,
        f"the server needs {', '.join(missing)}: install it with pip install 'unroll[server]'",
    )


def require_free(host: str, port: int, name: str) -> None:
    """Raise ``Refused`` if another program listens on the port, or the address is not ours."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise Refused(
                f"{name}={port} on {host} cannot be used: {error.strerror or error}; stop the "
                "program that uses it, or name another port"
            ) from error


def postgres_programs() -> Path:
    """The folder of ``initdb`` and ``postgres``: on PATH, of the system, or of pgserver.

    Raises:
        Refused: there is none.
    """
    if found := shutil.which("initdb"):
        real = Path(found).resolve().parent  # a link may stand alone in its folder
        if (real / "postgres").exists():
            return real
    versions = [path for path in SYSTEM.glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    spec = find_spec("pgserver")
    require(
        spec is not None and spec.origin,
        "the server needs PostgreSQL: install the system's package (Debian: postgresql), or pip "
        "install pgserver",
    )
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def unprivileged() -> str | None:
    """The user that runs PostgreSQL, which refuses to run as root; None: this user."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class Processes:
    """The processes of the server. They are stopped in reverse order at the end."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._stack = ExitStack()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    def start(
        self,
        name: str,
        words: list[str],
        answers: Callable[[], object],
        end: signal.Signals = signal.SIGTERM,
        **options: object,
    ) -> None:
        """Start a process and wait until it answers.

        Args:
            answers: raises OSError until the process answers.
            end: the signal that stops it.
            options: of ``subprocess.Popen``.

        Raises:
            Refused: it ends, or does not answer in time.
        """
        with (self.logs / f"{name}.log").open("wb") as log:
            # a session of its own: Ctrl-C reaches this process only, which stops them in order
            process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]  # noqa: S603
                words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **options
            )
        self._running[name] = process
        self._stack.callback(_stop, process, end)
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.require_running()
            try:
                answers()
                return
            except OSError as error:
                require(
                    time.monotonic() < deadline,
                    f"{name} does not answer within {START_SECONDS:.0f} seconds ({error}): see "
                    f"{self.logs / name}.log",
                )
                time.sleep(0.2)

    def require_running(self) -> None:
        """Raise ``Refused`` if a process has ended, with the last line that it wrote."""
        for name, process in self._running.items():
            if process.poll() is not None:
                log = self.logs / f"{name}.log"
                lines = log.read_text("utf-8", "replace").strip().splitlines() or ["no message"]
                raise Refused(f"{name} has ended ({lines[-1].strip()}): see {log}")


def _stop(process: subprocess.Popen[bytes], end: signal.Signals) -> None:
    process.send_signal(end)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):  # the processes that it started, if they are left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_postgres(processes: Processes, folder: Path, sockets: Path) -> str:
    """Start PostgreSQL, with a database in ``folder`` that is made if it does not exist.

    It listens on a socket file only, in a folder that no other user can enter. So it needs no
    password.

    Returns:
        The address for SQLAlchemy.

    Raises:
        Refused: PostgreSQL is missing, or fails.
    """
    import psycopg

    programs, user, data = postgres_programs(), unprivileged(), folder / "postgres"
    identity: dict[str, object] = {"cwd": folder}
    if user is not None:
        identity |= {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        shutil.chown(sockets, user)
    if not data.exists():
        making = folder / "postgres.unfinished"  # so that an interrupted initdb is not used
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        if user is not None:
            shutil.chown(making, user)
        words = [str(programs / "initdb"), "--pgdata", str(making), "--username", BUCKET]
        words += ["--auth", "trust", "--encoding", "UTF8", "--no-locale"]
        made = subprocess.run(words, capture_output=True, **identity)  # type: ignore[call-overload]  # noqa: S603
        if made.returncode != 0:
            shutil.rmtree(making)
            said = made.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
            runs = "" if user is None else f"; user {user} runs it and must be able to enter"
            raise Refused(f"SERVER_FOLDER={folder}: initdb fails there: {said[0]}{runs}")
        making.rename(data)

    def answers() -> None:
        try:
            psycopg.connect(host=str(sockets), user=BUCKET, dbname="postgres").close()
        except psycopg.OperationalError as error:
            raise OSError(str(error)) from error

    words = [str(programs / "postgres"), "-D", str(data), "-k", str(sockets)]
    words += ["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"]
    processes.start("postgres", words, answers, signal.SIGINT, **identity)  # SIGINT: at once
    return f"postgresql+psycopg://{BUCKET}@/postgres?host={sockets}"


def start_file_store(processes: Processes, folder: Path, port: int) -> dict[str, str]:
    """Start a file store that keeps its bucket as a folder.

    Returns:
        The variables by which MLflow finds it.
    """
    (folder / "s3" / BUCKET).mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "localbucket", str(folder / "s3"), "--host", LOCAL]
    address = f"http://{LOCAL}:{port}"
    processes.start(
        "s3", [*words, "--port", str(port)], lambda: urlopen(address, timeout=5).close()
    )
    return {
        "MLFLOW_S3_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "local",  # it checks none
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def require_bucket(artifacts: str) -> None:
    """Raise ``Refused`` if the bucket of ``SERVER_ARTIFACTS`` cannot be used."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    patience = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 2})
    try:
        endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None
        client = boto3.client("s3", endpoint_url=endpoint, config=patience)
        client.head_bucket(Bucket=artifacts.removeprefix("s3://").partition("/")[0])
    except (BotoCoreError, ClientError, ValueError) as error:
        raise Refused(
            f"SERVER_ARTIFACTS={artifacts} cannot be used: {error}; make the bucket, and set "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL"
        ) from error


@contextmanager
def serving(settings: Settings) -> Iterator[Processes]:
    """The server, from when it answers until the end of the context.

    Raises:
        Refused: a part of it is missing or fails.
    """
    require_packages(settings)
    require_free(settings.host, settings.port, "SERVER_PORT")
    if settings.artifacts is None:
        require_free(LOCAL, settings.s3_port, "SERVER_S3_PORT")
    else:
        require_bucket(settings.artifacts)
    postgres_programs()
    logs = settings.folder / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"SERVER_FOLDER={settings.folder} cannot be written: {error.strerror or error}; name "
            "another folder"
        ) from error
    # the name of a socket file has at most 107 characters, so it is not in the folder
    with tempfile.TemporaryDirectory(prefix="unroll-") as sockets, Processes(logs) as processes:
        database = start_postgres(processes, settings.folder, Path(sockets))
        environment = dict(os.environ)
        environment.pop("MLFLOW_TRACKING_URI", None)
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # jobs of agents: not ours
        if settings.artifacts is None:
            environment |= start_file_store(processes, settings.folder, settings.s3_port)
        words = [sys.executable, "-m", "mlflow", "server", "--serve-artifacts", "--workers", "2"]
        words += ["--host", settings.host, "--port", str(settings.port)]
        words += ["--backend-store-uri", database]
        words += ["--artifacts-destination", settings.artifacts or f"s3://{BUCKET}"]
        words += ["--x-frame-options", "DENY"]
        host = LOCAL if settings.host == "0.0.0.0" else settings.host  # noqa: S104  asked, not opened
        health = f"http://{host}:{settings.port}/health"
        processes.start(
            "mlflow",
            words,
            lambda: urlopen(health, timeout=5).close(),
            env=environment,
            cwd=settings.folder,
        )
        yield processes


def serve(settings: Settings) -> None:
    """Serve until a signal ends it."""
    with serving(settings) as processes:
        print(
            f"MLflow answers on http://{settings.host}:{settings.port}; everything is in "
            f"{settings.folder}; Ctrl-C stops it",
            flush=True,
        )
        while True:
            processes.require_running()
            time.sleep(1)


def main() -> None:
    """The command. Exits with 0 when a signal stops it, 2 if it cannot be started."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        serve(Settings.read(os.environ))
    except KeyboardInterrupt:
        print("stopped", flush=True)
    except (Refused, OSError) as error:  # that of an address too
        line, code = explain(error)
        print(f"server: {line or error}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
