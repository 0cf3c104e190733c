"""The versions of the libraries that a result depends on, read from package metadata; none of them is imported."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from pharos import __version__

LIBRARIES = ("torch", "ray", "deepspeed", "transformers", "peft", "optuna", "mlflow")


def library_versions() -> dict[str, str]:
    """Version by name, for Python, Pharos and LIBRARIES; "not installed" where there is no package of that name."""
    return {
        "python": platform.python_version(),
        "pharos": __version__,
        **{name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
