"""What a result depends on beside its spec and its rows: libraries, read from package metadata and never imported, the
whole environment as a lock, and the code of Pharos itself.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from pharos import __version__

LIBRARIES = ("torch", "ray", "deepspeed", "transformers", "peft", "optuna", "mlflow")
ENVIRONMENT = "environment.txt"
"""The lock of the environment, among the files of a trial's run."""
PACKAGE = Path(__file__).parents[1]


def library_versions() -> dict[str, str]:
    """Version by name, for Python, Pharos and LIBRARIES; "not installed" where there is no package of that name."""
    return {
        "python": platform.python_version(),
        "pharos": __version__,
        **{name: _version(name) for name in LIBRARIES},
    }


def environment_lock() -> str:
    """Every installed package as name==version, a line each, in order: a requirements file, after Python's version."""
    names = {
        f"{distribution.metadata['Name'].lower()}=={distribution.version}"
        for distribution in distributions()
        if distribution.metadata["Name"]
    }
    return "".join(f"{line}\n" for line in [f"# python {platform.python_version()}", *sorted(names)])


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_version(package: Path = PACKAGE) -> str:
    """The commit of the checkout that Pharos runs from, "+changes" where files differ from it; else its version."""
    if not (package.parents[1] / ".git").exists():
        return f"pharos {__version__}"
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return f"pharos {__version__}"
    return f"git {commit}" + ("+changes" if _git(package, "status", "--porcelain", "--", ".") else "")


def _git(directory: Path, *arguments: str) -> str | None:
    """What git says of the checkout around `directory`; none where git is missing or refuses."""
    try:
        run = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
