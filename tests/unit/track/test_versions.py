"""Versions come from package metadata, without loading what they describe."""

from __future__ import annotations

import subprocess
import sys

from pharos import __version__
from pharos.track.versions import LIBRARIES, library_versions


def test_every_library_has_a_version() -> None:
    versions = library_versions()
    assert set(versions) == {"python", "pharos", *LIBRARIES}
    assert versions["pharos"] == __version__
    assert all(version[0].isdigit() for version in versions.values())


def test_reading_versions_loads_no_library() -> None:
    program = (
        "import sys; from pharos.track.versions import *; library_versions(); print(set(LIBRARIES) & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
