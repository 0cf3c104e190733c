"""A sweep that runs as a Ray job: where its driver's files lie, and what it must leave for a later job to go on.

Ray unpacks the working directory of a job on the head node and deletes it when the job has ended. So nothing may be
kept there, and the sweep file, with the rows that came along, is copied below the storage. Nothing here loads Ray.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from pharos.errors import StorageError
from pharos.plan.paths import SweepPaths
from pharos.spec.model import SweepSpec
from pharos.store.mirror import fetch_folder, local_storage, mirrored, push_folder
from pharos.store.uris import checked_storage, is_store
from pharos.sweep.luggage import pack

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray gives the driver of a job its runtime environment and metadata in a variable of this name."""


def is_job() -> bool:
    """Whether this process is the driver of a Ray job."""
    return JOB_CONFIG in os.environ


def job_variables() -> dict[str, str]:
    """Environment variables that the job was submitted with; Ray gives them to all its workers."""
    return dict(_job_config().get("runtime_env", {}).get("env_vars", {}))


def refuse_relative(storage: str) -> None:
    """Raise StorageError for a storage that only the place where a command is typed gives a meaning to."""
    if is_store(checked_storage(storage)) or Path(checked_storage(storage)).is_absolute():
        return
    raise StorageError(
        f"storage={storage} is relative, and a job's working directory is deleted when the job has ended. Give a "
        "directory that every node sees, as an absolute path, or a URI: --storage /shared/pharos-results"
    )


def keep_files(spec: SweepSpec, path: Path) -> Path:
    """Copy the sweep file and what it names by relative paths below the storage, and return the file's place there.

    A file that lies there already stays. Raises what `luggage.pack` raises, and StorageError.
    """
    kept = submitted(SweepPaths(local_storage(spec.storage), spec.name))
    if path.absolute().is_relative_to(kept):
        return path
    packed = pack(spec, path)
    try:
        packed.keep_in(kept)
    except OSError as error:
        raise StorageError(
            f"storage={spec.storage} cannot be written: {error.strerror}. Give with --storage a directory that the "
            "cluster's user may write to."
        ) from error
    push_folder(kept, anew=True)
    return kept / packed.spec


def kept_file(storage: str, sweep: str, place: str) -> Path:
    """The sweep file that an earlier job has kept. place: its path in what travelled. Raises StorageError."""
    kept = submitted(SweepPaths(local_storage(storage), sweep))
    if mirrored(kept) is not None:
        shutil.rmtree(kept, ignore_errors=True)  # this machine may have been another sweep's, or an earlier job's
    fetch_folder(kept)
    if not (kept / place).is_file():
        raise StorageError(
            f"name={sweep}: {storage} does not hold its file: no job of it has come so far. Submit it again: "
            "pharos submit SPEC"
        )
    return kept / place


def submitted(paths: SweepPaths) -> Path:
    """Where the sweep file of a job and the files that came with it are kept."""
    return paths.root / "submitted"


def _job_config() -> dict[str, Any]:
    return dict(json.loads(os.environ.get(JOB_CONFIG, "{}")))
