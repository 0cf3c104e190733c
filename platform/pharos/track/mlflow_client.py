"""Reaching an MLflow store: the client, the check at the start, experiments, and errors that say what would help.

MLflow is imported inside functions: it takes two seconds. Ids are explicit everywhere; the fluent API is never used.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pharos.errors import TrackingError
from pharos.plan.paths import tracking_uri_of
from pharos.store.mirror import mirrored

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SERVER_SCHEMES = ("http", "https", "databricks")
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
CHECK_TIMEOUT_S = 4
LOGIN = {
    "UNAUTHENTICATED": (
        "wants a login, and was given none or a wrong one. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
        "or write them into ~/.mlflow/credentials, there where the sweep's driver runs, too."
    ),
    "PERMISSION_DENIED": (
        "does not let this user do that. Have its admin give the user of MLFLOW_TRACKING_USERNAME the right to: EDIT "
        "on the experiment for a sweep, and on the registered model to register and to promote."
    ),
}
"""What a server that wants a login means by an error code, and the remedy."""
PAGE_SIZE = 1000  # the most that MLflow gives at a time
SQLITE_MAGIC = b"SQLite format 3\0"


def connect(tracking_uri: str) -> MlflowClient:
    """A client of the tracking store and of the registry behind one URI, silent on the terminal.

    A new SQLite store is created here, which takes about two seconds.
    """
    # No telemetry; it is read while mlflow is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # set_terminated prints the run's address for each trial, over the live view:
    # https://github.com/mlflow/mlflow/pull/15734
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # What is fetched from a server is told of in a verb's own words.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    # "Creating initial MLflow database tables" and its like, at INFO on every new store.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    # "Waiting up to 300 seconds for model version to finish creation", at INFO for each version on a server.
    logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def registry_of(storage: Path) -> str:
    """The MLflow store of a storage's sweeps, where none is named. Raises TrackingError for an object store.

    storage: absolute.
    """
    if (place := mirrored(storage)) is not None:
        raise TrackingError(
            f"storage={place.uri} is an object store, which holds no MLflow store. Name the one that the sweep was "
            "tracked in: --tracking-uri."
        )
    return tracking_uri_of(storage)


def check_tracking(uri: str, experiment: str) -> None:
    """Raise TrackingError, within about five seconds, when the store at `uri` could not take this sweep.

    Nothing is created: a SQLite file that is not there yet is checked by the directory that will hold it.
    """
    if not is_there(uri):
        return
    remedy = "Start it (mlflow server), correct tracking.uri, or leave it out to track in SQLite beside the storage."
    with request_limits(timeout_s=CHECK_TIMEOUT_S, max_retries=0), tracking_errors(uri, remedy):
        found = connect(uri).get_experiment_by_name(experiment)
    if found is not None and found.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment={experiment} was deleted from {shown(uri)}, and MLflow keeps its name. Restore it "
            f"(mlflow experiments restore --experiment-id {found.experiment_id}) or choose another name."
        )


def open_store(uri: str, remedy: str) -> MlflowClient:
    """A client of a store that is there; nothing is created. Raises TrackingError, with the remedy, where none is."""
    if not is_there(uri):
        raise TrackingError(f"tracking: there is no MLflow store at {shown(uri)}: no sweep has run there. {remedy}")
    return connect(uri)


def ensure_experiment(client: MlflowClient, name: str, artifact_root: Path | None) -> str:
    """The id of an experiment, made where it is not there yet.

    artifact_root: where a database store keeps artifacts, absolute, since Ray's workers change directory. A server
    has its own place for them, and so has an experiment that exists: both stay.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    is_server = urlsplit(client.tracking_uri).scheme in SERVER_SCHEMES
    location = None if is_server or artifact_root is None else artifact_root.resolve().as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def all_pages(search: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Everything that a search of an MLflow client finds, page after page."""
    found: list[Any] = []
    token = None
    while token is None or token:
        page = search(*arguments, max_results=PAGE_SIZE, page_token=token)
        found += page
        token = page.token or ""
    return found


def runs_with(client: MlflowClient, experiments: list[str], tags: Mapping[str, str]) -> list[Run]:
    """All runs of these experiments that have these tags."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    return all_pages(client.search_runs, experiments, wanted)


@contextmanager
def request_limits(*, timeout_s: int, max_retries: int) -> Iterator[None]:
    """Bound MLflow's HTTP requests inside the block; unbounded, one to a dead server takes four minutes.

    MLflow reads these limits from the environment alone. What the user has set there stands.
    """
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(max_retries),
    }
    ours = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


INNERMOST = re.compile(r"(?:\[Errno -?\d+\] |Error\(\d+, '|Disconnected\(')([^'\")\]]+)")
"""Of an error within errors: [Errno 111] Connection refused, ConnectionResetError(104, 'Connection reset by peer')."""


@contextmanager
def tracking_errors(uri: str, remedy: str) -> Iterator[None]:
    """Turn whatever a store raises inside the block into a TrackingError with the address, the reason and a remedy."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        # requests' errors are OSErrors; a missing database driver is an ImportError.
        login = LOGIN.get(str(getattr(error, "error_code", None)))
        if login is not None:
            raise TrackingError(f"tracking: {shown(uri)} {login}") from error
        raise TrackingError(f"tracking: {shown(uri)} cannot be used: {reason_of(error, uri)}. {remedy}") from error


def reason_of(error: BaseException, uri: str) -> str:
    """One line that says what went wrong, without MLflow's advice on its own settings and without a password."""
    text = str(error).strip().replace(uri, shown(uri))
    innermost = INNERMOST.search(text)
    if innermost:
        return innermost[1].strip()
    first_line = text.splitlines()[0] if text else type(error).__name__
    return first_line.rstrip(".")[:300]


def shown(uri: str) -> str:
    """A URI as it may be shown: a password in it is replaced."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", uri)


def is_there(uri: str) -> bool:
    """False for a SQLite file that is yet to be made. Raises TrackingError for what is no store, or is out of reach."""
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme == "sqlite":
        return _check_sqlite_file(uri)
    if scheme in DATABASE_PORTS:
        _check_port(uri, DATABASE_PORTS[scheme])
    elif scheme not in SERVER_SCHEMES:
        raise TrackingError(
            f"tracking.uri={shown(uri)} is no MLflow store that works: MLflow no longer writes to plain directories. "
            "Use sqlite:////absolute/path/mlflow.db, or the address of a server such as http://host:5000."
        )
    return True


def _check_sqlite_file(uri: str) -> bool:
    """Whether the file of a SQLite URI exists. Raises TrackingError when it is no database or cannot be written."""
    path = Path(unquote(urlsplit(uri).path[1:]))
    if not path.is_absolute():
        raise TrackingError(
            f"tracking.uri={uri} is relative, and Ray's workers each run in a directory of their own. "
            f"Write it absolute: sqlite:///{path.resolve()}"
        )
    target = next(place for place in (path, *path.parents) if place.exists())
    try:
        if target == path:
            path.open("r+b").close()
        else:
            TemporaryFile(dir=target).close()
    except OSError as error:
        raise TrackingError(
            f"tracking.uri={uri} cannot be written: {target}: {error.strerror or error}. "
            "Give the path of a file in a directory that this user can write to."
        ) from error
    if target == path and path.stat().st_size and path.open("rb").read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
        raise TrackingError(f"tracking.uri={uri} is no SQLite database. Give another file, or one that is not there.")
    return target == path


def _check_port(uri: str, default_port: int) -> None:
    """A database that is away makes SQLAlchemy's start retry for minutes: ask the port first."""
    parts = urlsplit(uri)
    try:
        socket.create_connection((parts.hostname or "localhost", parts.port or default_port), CHECK_TIMEOUT_S).close()
    except OSError as error:
        raise TrackingError(
            f"tracking: {shown(uri)} cannot be used: {error.strerror or error}. "
            "Start the database, correct tracking.uri, or leave it out to track in SQLite beside the storage."
        ) from error
