"""The images and the compose files: pinned, not root, no secret, and every file that they name is there."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TRACKING = ROOT / "cluster" / "tracking"
DOCKERFILES = [ROOT / "cluster" / "Dockerfile", TRACKING / "Dockerfile"]
LOCK = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Of a Dockerfile, in order: continued lines joined, comments gone."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def values(file: Path, name: str) -> list[str]:
    return [value for instruction, value in instructions(file) if instruction == name]


def travels(path: str, ignore: Path) -> bool:
    """Whether a path is sent to the builder: the last pattern that matches it, or a folder above it, decides."""
    kept = True
    parts = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    for line in ignore.read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#") and any(fnmatch.fnmatch(part, pattern) for part in parts):
            kept = line.startswith("!")
    return kept


@pytest.mark.parametrize("file", DOCKERFILES, ids=["pharos", "tracking"])
def test_an_image_is_pinned_is_not_root_and_names_files_that_are_there(file: Path) -> None:
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "ENV", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions(file)} <= known
    [base] = values(file, "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert "latest" not in file.read_text()
    [user] = values(file, "USER")
    assert user not in ("root", "0")
    after = [name for name, _ in instructions(file)]
    assert "RUN" not in after[after.index("USER") :], "what root installs comes before"
    assert values(file, "ENTRYPOINT")[0].startswith('["tini", "--"')
    for copied in values(file, "COPY"):
        *sources, target = copied.split()
        assert target.startswith("./")
        for source in sources:
            assert (ROOT / source).exists(), source
            assert travels(source, file.with_name("Dockerfile.dockerignore")), source
    for secret in ("TOKEN=", "PASSWORD=", "SECRET=", "AWS_ACCESS"):
        assert secret not in " ".join(values(file, "ENV") + values(file, "ARG"))


def test_neither_data_nor_keys_travel_to_the_builder() -> None:
    for file in DOCKERFILES:
        for path in (".git/config", "pharos-results/mlflow.db", "cluster/tracking/secrets/pgpassword", ".venv/bin/ray"):
            assert not travels(path, file.with_name("Dockerfile.dockerignore")), path


def test_the_image_of_a_node_has_what_ray_up_needs_in_it() -> None:
    file = DOCKERFILES[0]
    run = " ".join(values(file, "RUN"))
    for package in ("rsync", "openssh-client", "procps", "wget", "tini"):
        assert re.search(rf"\b{package}\b", run), package
    environment = " ".join(values(file, "ENV"))
    assert "HOME=/home/pharos" in environment
    assert "RAY_AUTH_MODE=token" in environment
    assert "--constraint requirements.lock ." in run
    assert {"TORCH=cpu", "CLOUD=none"} == set(values(file, "ARG"))


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_the_packages_of_a_cloud_are_pinned_and_agree_with_the_lock(cloud: str) -> None:
    lines = (ROOT / "cluster" / f"requirements-{cloud}.txt").read_text().splitlines()
    pins = dict(re.fullmatch(r"([\w-]+)==([\w.]+)", line).groups() for line in lines if not line.startswith("#"))
    assert pins
    assert {name: version for name, version in pins.items() if LOCK.get(name, version) != version} == {}


def compose() -> dict[str, Any]:
    return yaml.safe_load((TRACKING / "compose.yaml").read_text())


def test_the_tracking_server_listens_on_loopback_and_its_database_nowhere() -> None:
    services = compose()["services"]
    assert services["mlflow"]["ports"] == ["${BIND:-127.0.0.1}:5000:5000"]
    assert "ports" not in services["postgres"]
    assert services["postgres"]["networks"] == ["database"]
    assert compose()["networks"]["database"] == {"internal": True}
    assert "--app-name=basic-auth" in services["mlflow"]["command"]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.minio.yaml"])
def test_what_compose_starts_is_pinned_watched_and_given_secrets_as_files(name: str) -> None:
    content = yaml.safe_load((TRACKING / name).read_text())
    for service, given in content["services"].items():
        if "image" in given:
            assert re.search(r":[\w.-]*\d[\w.-]*$", given["image"])
            assert "healthcheck" in given, service
            assert given["restart"] == "unless-stopped"
            assert "no-new-privileges:true" in given["security_opt"]
        for variable, value in given["environment"].items():
            secret = re.search("PASSWORD|SECRET|KEY|USER_FILE", variable)
            assert not secret or value.startswith("/run/secrets/"), variable
    used = {secret for given in content["services"].values() for secret in given.get("secrets", [])}
    assert used <= set(compose()["secrets"])


def test_the_secrets_of_compose_are_made_once_and_are_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    command = [TRACKING / "make-secrets.sh", folder]
    environment = {"PATH": "/usr/bin:/bin", "AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "also mine"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    made = {file.name: file.read_text() for file in folder.iterdir()}
    assert set(made) == set(compose()["secrets"])
    assert {Path(secret["file"]).name for secret in compose()["secrets"].values()} == set(made)
    assert made["aws_access_key_id"] == "mine"
    assert len(set(made.values())) == len(made)
    assert all(len(made[name]) == 48 for name in made if not name.startswith("aws_"))
    assert folder.stat().st_mode & 0o077 == 0
    assert not any(value in run.stdout for value in made.values() if value != "mine")
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert {file.name: file.read_text() for file in folder.iterdir()} == made
    ignored = (ROOT / "cluster" / ".gitignore").read_text().split()
    assert "/tracking/secrets/" in ignored
