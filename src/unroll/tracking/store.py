"""The MLflow store: how it is opened, and how runs are found in it.

Only this folder and the report import mlflow, and only when a store is opened.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from unroll.errors import Refused, redacted

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PATIENCE = 5.0
"""Seconds that a server or a locked database has to answer. MLflow itself retries for minutes."""
SERVER = ("http://", "https://")
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""Tells MLflow's pages that an experiment holds trained models, not traces of agents."""
FINGERPRINT = "config_fingerprint"
"""Tag of a run: the hash of what decides its figures."""
ABSENT, REJECTED = "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"
"""MLflow's error codes of what trying again cannot change."""
KEY_TAG = "unroll.run_id"
"""Tag of a run: the id that its journal gave it, by which a run is found that the store created but
whose id did not arrive."""
LOCK_SECONDS = 60.0
"""Seconds that another process may take to create the tables of the embedded store."""
HTTP = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""Unless the user sets them. With MLflow's own values one call to a silent server takes minutes;
here what fails is delivered again later."""
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_importing = threading.Lock()  # two threads must not import mlflow at the same time


class Unavailable(Refused):
    """The store does not answer, or fails. It may work again later."""


def uri(directory: Path) -> str:
    """Where runs are kept: MLFLOW_TRACKING_URI, else the SQLite store in ``directory``."""
    hide_credentials()
    return os.environ.get("MLFLOW_TRACKING_URI") or _embedded(directory)


def address(directory: Path) -> str:
    """``uri`` without a password."""
    return redacted(uri(directory))


def hide_credentials() -> None:
    """Move user and password of a server's address into the variables that MLflow has for them.
    MLflow then sends them as before, and no message of it can show them."""
    place = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not place.startswith(SERVER) or "@" not in urlsplit(place).netloc:
        return
    parts = urlsplit(place)
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(name)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
    os.environ["MLFLOW_TRACKING_URI"] = parts._replace(netloc=host).geturl()


def _embedded(directory: Path) -> str:
    return f"sqlite:///{_database(directory)}"


def _database(directory: Path) -> Path:
    return (directory / "mlflow.db").resolve()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let one process at a time work on the store. MLflow creates its tables without a lock of
    its own: of two processes that start at once on a new store, one would fail.

    Raises:
        Refused: ``directory`` cannot be written.
        Unavailable: another process keeps the lock.
    """
    from filelock import FileLock, Timeout

    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise Unavailable(f"another process keeps the tracking store in {directory}") from error
    except OSError as error:
        raise Refused(
            f"the tracking store in {directory} cannot be written: {error.strerror or error}; set "
            "tracking.directory"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def store_errors(directory: Path) -> Iterator[None]:
    """Turn an error of MLflow, its database or the network into one line.

    Raises:
        Unavailable: the store failed.
    """
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unavailable(
            f"the tracking store {address(directory)} does not work: {redacted(first)}; start or "
            "repair it, set MLFLOW_TRACKING_URI, or set tracking=disabled"
        ) from error


def is_shared(directory: Path) -> bool:
    """Whether runs are kept in a server, which other machines can ask too."""
    return uri(directory).startswith(SERVER)


def exists(directory: Path) -> bool:
    """Whether there is a store to ask: MLFLOW_TRACKING_URI names one, or the embedded one was
    made."""
    return uri(directory) != _embedded(directory) or _database(directory).exists()


def require_store(directory: Path) -> None:
    """Ask the store for a sign of life, without mlflow and its minutes of retries.

    Raises:
        Unavailable: a server does not answer within seconds, or the embedded database cannot be
            opened.
    """
    place = uri(directory)
    with store_errors(directory):
        if place.startswith(SERVER):
            _require_server(place)
        elif place == _embedded(directory) and _database(directory).exists():
            with closing(sqlite3.connect(_database(directory), timeout=PATIENCE)) as database:
                database.execute("PRAGMA schema_version")


def _require_server(address: str) -> None:
    """Any answer counts, a refused password too, except that of a proxy without a server."""
    try:
        urlopen(f"{address.rstrip('/')}/health", timeout=PATIENCE).close()  # noqa: S310  MLflow asks it too
    except HTTPError as error:
        if error.code >= 500:
            raise
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow has settings of its own for those
            raise ConnectionError(f"no answer ({error.reason})") from error
    except TimeoutError as error:
        raise ConnectionError(f"no answer within {PATIENCE:.0f} seconds") from error


def connect(directory: Path) -> MlflowClient:
    """A client of the store, which is created if it does not exist.

    Raises:
        Refused: ``directory`` cannot be written.
        Unavailable: the store cannot be opened.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for key, value in HTTP.items():
        os.environ.setdefault(key, value)
    with store_errors(directory):
        # before the store is asked: a run waits for the first answer, whereas an import after a
        # failed one would slow the steps beside it
        with _importing:
            from mlflow.tracking import MlflowClient

        require_store(directory)
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # it logs every error that it raises, with the whole traceback
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        with locked(directory):
            if not _has_tables(directory):
                MlflowClient(uri(directory))
        client = MlflowClient(uri(directory))  # outside of the lock, since it takes seconds
        client.search_experiments(max_results=1)
        return client


def _has_tables(directory: Path) -> bool:
    """Whether the tables are there. Only a process that holds the lock creates them."""
    place = uri(directory)
    if place != _embedded(directory):
        return place.startswith(SERVER)
    with closing(sqlite3.connect(_database(directory), timeout=PATIENCE)) as database:
        found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
        return found.fetchone() is not None


def experiment_id(client: MlflowClient, directory: Path, name: str) -> str:
    """The id of an MLflow experiment, which is created if it does not exist, and marked as one of
    model training if nothing else is said of it.

    Raises:
        Refused: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        local = not os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = (directory / "artifacts").resolve().as_uri() if local else None
        try:
            return str(client.create_experiment(name, artifacts, {KIND_TAG: KIND}))
        except MlflowException:  # another process created it meanwhile
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise Refused(
            f"the MLflow experiment '{name}' was deleted: restore it, or set "
            "tracking.experiment to another name"
        )
    if KIND_TAG not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, KIND_TAG, KIND)
    return str(experiment.experiment_id)


def search(client: MlflowClient, experiment: str, condition: str) -> list[Run]:
    """All runs of an experiment that meet a condition, oldest first."""
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment], condition, max_results=1000, order_by=["start_time ASC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def finished(client: MlflowClient, experiment: str, fingerprint: str) -> Run | None:
    """The newest run under this config fingerprint that ended by itself."""
    found = all_finished(client, experiment, f" and tags.{FINGERPRINT} = '{fingerprint}'")
    return found[-1] if found else None


def all_finished(client: MlflowClient, experiment: str, condition: str = "") -> list[Run]:
    """The runs with a config fingerprint that ended by themselves, oldest first."""
    found = search(client, experiment, f"attributes.status = 'FINISHED'{condition}")
    return [
        run
        for run in found
        if FINGERPRINT in run.data.tags and run.data.tags.get("interrupted") != "true"
    ]


def is_run_id(text: str) -> bool:
    """Whether a text has the form of a run id of MLflow or of a journal."""
    return _RUN_ID.fullmatch(text) is not None


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """The run that MLflow or a journal gave this id, also a deleted one; None if there is none."""
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    if not is_run_id(run_id):
        return None
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != ABSENT:
            raise
    experiments = [str(found.experiment_id) for found in client.search_experiments()]
    condition = f"tags.`{KEY_TAG}` = '{run_id}'"
    found = client.search_runs(experiments, condition, ViewType.ALL, max_results=1)
    return found[0] if found else None
