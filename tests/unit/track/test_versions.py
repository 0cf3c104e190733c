"""Versions come from package metadata, without loading what they describe."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from pharos import __version__
from pharos.track.versions import LIBRARIES, code_version, digest_of, environment_lock, library_versions


def test_every_library_has_a_version() -> None:
    versions = library_versions()
    assert set(versions) == {"python", "pharos", *LIBRARIES}
    assert versions["pharos"] == __version__
    assert all(found[0].isdigit() for found in versions.values())


def test_reading_versions_loads_no_library() -> None:
    program = (
        "import sys; from pharos.track.versions import *; library_versions(); print(set(LIBRARIES) & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_the_environment_is_a_lock_of_every_installed_package() -> None:
    lines = environment_lock().splitlines()
    assert lines[0] == f"# python {platform.python_version()}"
    assert lines[1:] == sorted(lines[1:])
    assert f"numpy=={version('numpy')}" in lines
    assert all(re.fullmatch(r"\S+==\S+", line) for line in lines[1:])
    assert digest_of(environment_lock()) == digest_of(environment_lock()) != digest_of("numpy==1.0\n")


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


def test_code_of_a_checkout_is_its_commit_and_says_whether_files_differ(tmp_path: Path) -> None:
    package = tmp_path / "platform" / "pharos"
    package.mkdir(parents=True)
    (package / "loop.py").write_text("a = 1\n")
    assert code_version(package) == f"pharos {__version__}"
    git(tmp_path, "init")
    assert code_version(package) == f"pharos {__version__}"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = code_version(package)
    assert re.fullmatch(r"git [0-9a-f]{40}", clean)
    (tmp_path / "notes.txt").write_text("nothing that runs\n")
    assert code_version(package) == clean
    (package / "loop.py").write_text("a = 2\n")
    assert code_version(package) == f"{clean}+changes"
