"""The tracking server of cluster/tracking for real: its own command line, over PostgreSQL and S3, behind its login."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
import yaml
from tests.support import aws
from tests.support.mlflow_server import wait_until
from tests.support.postgres import Postgres, postgres
from tests.support.registered_models import MODEL, new_store, prepared, registry, trained_adapter

from pharos.errors import TrackingError
from pharos.handover.promotion import promote
from pharos.track.mlflow_client import check_tracking, connect, tracking_errors
from pharos.track.model_versions import find_version, version_folder

TRACKING = Path(__file__).parents[2] / "cluster" / "tracking"
BUCKET = "tracking"
PASSWORD = "a password of the test's own"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingServer:
    uri: str
    s3: str
    """The address of the object store."""


def service() -> dict:
    return yaml.safe_load((TRACKING / "compose.yaml").read_text())["services"]["mlflow"]


def command_line(port: int) -> list[str]:
    """The command of compose.yaml, with this test's address and bucket in place of a container's."""
    given = {"ARTIFACTS": f"s3://{BUCKET}/files"}
    words = [
        re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda found: given.get(found[1], found[2]), word)
        for word in service()["command"]
    ]
    ours = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}"}
    assert ours.keys() < set(words)
    return [sys.executable, "-m", *(ours.get(word, word) for word in words)]


@contextmanager
def tracking_server(folder: Path, database: Postgres, s3: str, **secrets: str) -> Iterator[TrackingServer]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "secrets").mkdir()
    given = {"pgpassword": database.password, "mlflow_flask_server_secret_key": "k" * 48, **secrets}
    given |= {"aws_access_key_id": aws.KEY_ID, "aws_secret_access_key": aws.KEY}
    for name, value in given.items():
        (folder / "secrets" / name).write_text(value)
    assert set(given) <= set(service()["secrets"])
    fixed = {name: value for name, value in service()["environment"].items() if "${" not in value}
    not_secret = {name: value for name, value in aws.environment(s3).items() if name.lower() not in given}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [TRACKING / "start.sh", *command_line(port)],
            cwd=folder,
            env=os.environ
            | fixed
            | not_secret
            | {"PGHOST": database.host, "PGPORT": str(database.port), "PGUSER": database.user}
            | {"SECRETS": str(folder / "secrets"), "TMPDIR": str(folder)}
            | {"MLFLOW_AUTH_CONFIG_PATH": str(TRACKING / "basic_auth.ini")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = TrackingServer(uri=f"http://127.0.0.1:{port}", s3=s3)
    try:
        wait_until(lambda: process.poll() is not None or answers(server), f"no server: {folder / 'log'}", timeout_s=180)
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(server: TrackingServer) -> bool:
    try:
        return requests.get(f"{server.uri}/health", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture
def database() -> Iterator[Postgres]:
    with postgres(user="mlflow", database="mlflow", password="not a word of any file") as server:
        yield server


@pytest.fixture
def s3() -> Iterator[str]:
    import boto3

    with aws.aws_server() as address:
        client = boto3.client(
            "s3",
            endpoint_url=address,
            region_name=aws.REGION,
            aws_access_key_id=aws.KEY_ID,
            aws_secret_access_key=aws.KEY,
        )
        client.create_bucket(Bucket=BUCKET)
        yield address


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_is_tracked_registered_and_promoted_with_a_login_and_no_key_to_the_bucket(
    database: Postgres, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    base, data = prepared(tmp_path)
    empty_store = new_store(tmp_path / "empty.db")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "server"
    folder.mkdir()
    with tracking_server(folder, database, s3, mlflow_auth_admin_password=PASSWORD) as server:
        # Without a login, or with a wrong one, nothing is told and nothing is taken.
        for path in ("api/2.0/mlflow/experiments/search?max_results=1", "api/2.0/mlflow-artifacts/artifacts", ""):
            assert requests.get(f"{server.uri}/{path}", timeout=30).status_code == 401
            assert requests.get(f"{server.uri}/{path}", auth=("admin", "password1234"), timeout=30).status_code == 401
        with pytest.raises(TrackingError, match="MLFLOW_TRACKING_USERNAME"):
            check_tracking(server.uri, "pharos")
        # A page in a browser that calls the server by another name is refused, even with a login.
        named = requests.get(
            f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1",
            headers={"Host": "elsewhere.example"},
            auth=("admin", PASSWORD),
            timeout=30,
        )
        assert named.status_code == 403

        check_tracking(server.uri.replace("://", f"://admin:{quote(PASSWORD)}@"), "pharos")
        # As on the nodes of a `ray up` cluster, which get this file.
        with monkeypatch.context() as patch:
            patch.setenv("HOME", str(tmp_path))
            (tmp_path / ".mlflow").mkdir()
            login = f"[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = {PASSWORD}\n"
            (tmp_path / ".mlflow" / "credentials").write_text(login)
            check_tracking(server.uri, "pharos")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        check_tracking(server.uri, "pharos")
        models = registry(tmp_path / "results", base=base, data=data, empty_store=empty_store, server=server.uri)
        models.add(trained_adapter(base, data, tmp_path / "base-like", num_steps=0))
        promoted = promote(MODEL, storage=models.storage, tracking_uri=server.uri, progress=lambda text: None)
        assert promoted.is_champion
        models.add(trained_adapter(base, data, tmp_path / "learned", num_steps=60))
        promoted = promote(MODEL, storage=models.storage, tracking_uri=server.uri, progress=lambda text: None)
        assert promoted.is_champion
        assert models.champions() == {"champion": "2", "previous": "1"}

        # The files went through the server into the bucket, and come back whole.
        found = find_version(server.uri, MODEL, alias="champion")
        fetched = version_folder(found, cache=tmp_path / "fetched")
        merged = models.storage / "made" / "merged-1"
        assert (fetched / "model.safetensors").read_bytes() == (merged / "model.safetensors").read_bytes()
        client = boto3.client(
            "s3",
            endpoint_url=s3,
            region_name=aws.REGION,
            aws_access_key_id=aws.KEY_ID,
            aws_secret_access_key=aws.KEY,
        )
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
        assert any(key.startswith("files/") and key.endswith("merged/model.safetensors") for key in keys)
        # Another user makes what it likes, and may look at the rest, but not move the champion.
        made = requests.post(
            f"{server.uri}/api/2.0/mlflow/users/create",
            json={"username": "sweeps", "password": "of the sweeps alone"},
            auth=("admin", PASSWORD),
            timeout=30,
        )
        assert made.status_code == 200, made.text
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "sweeps")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of the sweeps alone")
        other = connect(server.uri)
        run = other.create_run(other.create_experiment("theirs"))
        other.log_metric(run.info.run_id, "eval_loss", 1.0)
        other.create_registered_model("theirs")
        assert other.get_registered_model(MODEL).aliases["champion"] in (2, "2")
        with pytest.raises(TrackingError, match="not let this user"), tracking_errors(server.uri, ""):
            other.set_registered_model_alias(MODEL, "champion", "1")
        # No secret is shown by what was started.
        log = (folder / "log").read_text()
        for secret in (PASSWORD, database.password, aws.KEY):
            assert secret not in log


@pytest.mark.slow
def test_it_does_not_start_without_a_password_for_its_admin(database: Postgres, s3: str, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="MLFLOW_AUTH_ADMIN_PASSWORD"),
        tracking_server(tmp_path, database, s3),
    ):
        pass
