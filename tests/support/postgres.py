"""A PostgreSQL server for a test, from Debian's package: on loopback, with a password, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.mlflow_server import wait_until

START_S = 60
STOP_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    host: str
    port: int
    user: str
    password: str


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs, which Debian keeps off the PATH. Skips the test where it is missing."""
    places = [shutil.which(name), *sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), reverse=True)]
    found = next((place for place in places if place), None)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is missing: install Debian's package postgresql (`make test-slow` does)")
    return found


def unprivileged_user() -> str | None:
    """Who runs the server: PostgreSQL refuses to be run by root. None: who runs the test."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def postgres(*, user: str, database: str, password: str) -> Iterator[Postgres]:
    """A server that is up, with this database of this user; it is gone, with its files, when the block ends."""
    initdb, server = program("initdb"), program("postgres")
    runs_as = unprivileged_user()
    # Not below pytest's own folder, which only the user of the test may enter.
    folder = Path(tempfile.mkdtemp(prefix="pharos-pg-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        (folder / "password").write_text(password)
        if runs_as is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, runs_as)
        made = (f"--username={user}", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync")
        _run([initdb, f"--pgdata={folder / 'data'}", "--encoding=UTF8", "--locale=C", *made], runs_as)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        settings = (f"unix_socket_directories={folder}", "listen_addresses=127.0.0.1", "fsync=off")
        process = subprocess.Popen(
            [server, "-D", folder / "data", "-p", str(port), *(word for one in settings for word in ("-c", one))],
            cwd=folder,
            user=runs_as,
            group=_group_of(runs_as),
            extra_groups=[] if runs_as else None,
            stdout=(folder / "log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        found = Postgres(host="127.0.0.1", port=port, user=user, password=password)
        wait_until(lambda: _answers(found, process), f"no PostgreSQL: {folder / 'log'}", timeout_s=START_S)
        _create(found, database)
        yield found
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # its fast shutdown: clients are dropped
            process.wait(STOP_S)
        shutil.rmtree(folder)


def _group_of(user: str | None) -> int | None:
    return None if user is None else pwd.getpwnam(user).pw_gid


def _run(command: list[str], user: str | None) -> None:
    run = subprocess.run(
        command,
        cwd="/",
        user=user,
        group=_group_of(user),
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def _answers(server: Postgres, process: subprocess.Popen[bytes] | None) -> bool:
    import psycopg

    assert process is not None
    assert process.poll() is None, "PostgreSQL ended at once"
    try:
        _connect(server).close()
    except psycopg.OperationalError:
        return False
    return True


def _create(server: Postgres, database: str) -> None:
    connection = _connect(server)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{database}"')
    connection.close()


def _connect(server: Postgres) -> Any:
    import psycopg

    where = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    return psycopg.connect(dbname="postgres", connect_timeout=5, **where)
