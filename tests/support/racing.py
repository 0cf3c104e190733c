"""What processes of their own do to a registry: promote all at once, or be killed at one of their calls.

Small models with real safetensors and a manifest stand in for merged ones: what is tried is the registry, not torch.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path
from time import monotonic
from typing import Any

from tests.support.failing_client import FailingClient, sigkill
from tests.unit.track import sweeps

from pharos.track.champion import Lost, move_champion
from pharos.track.mlflow_client import connect
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.registry import Lineage, RegisteredVersion, register_version

MODEL = "switch"
PATIENCE_S = 240
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["mlflow", "mlflow.store.model_registry.sqlalchemy_store", "pharos.track.champion"])


def small_model(directory: Path, seed: int) -> Path:
    """A directory with a safetensors file in two tensors, a config, and the manifest of both."""
    import numpy as np
    from safetensors.numpy import save_file

    directory.mkdir(parents=True)
    weights = np.random.default_rng(seed).standard_normal((2, 64, 64), dtype=np.float32)
    save_file({"a": weights[0], "b": weights[1]}, directory / "model.safetensors")
    (directory / "config.json").write_text("{}")
    files = {
        path.name: {"size_bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(directory.iterdir())
    }
    (directory / "pharos_manifest.json").write_text(
        json.dumps({"base_digest": "", "adapter_digest": "", "files": files})
    )
    return directory


def attached(uri: str, artifact_root: Path, number: int) -> MlflowRuns:
    """The runs of a sweep with one trial, of a time of its own, so that each is another sweep's."""
    runs = MlflowRuns(uri, "pharos", artifact_root=artifact_root)
    start_s = sweeps.START_S + number
    runs.attach(sweeps.SWEEP, start_s)
    runs.write([sweeps.started(time_s=start_s), sweeps.created(0)])
    return runs


def register(runs: MlflowRuns, directory: Path) -> RegisteredVersion:
    lineage = Lineage(
        sweep=sweeps.SWEEP, trial=0, digests={"spec": "5bec"}, files={"environment.txt": "torch==2.13.0\n"}
    )
    return register_version(runs, model=MODEL, merged=directory, adapter=directory, lineage=lineage)


def promote_at_once(uri: str, expected: str | None, versions: list[str]) -> list[tuple[str, str, str, float]]:
    """One process for each of `versions`, all let go at once; (version, "won", "lost" or "error", message, seconds)."""
    barrier, outcomes = processes.Barrier(len(versions)), processes.Queue()
    racing = [processes.Process(target=_promote, args=(uri, to, expected, barrier, outcomes)) for to in versions]
    for process in racing:
        process.start()
    found = [outcomes.get(timeout=PATIENCE_S) for _ in racing]
    for process in racing:
        process.join(timeout=PATIENCE_S)
    return sorted(found)


def promote_and_be_killed(uri: str, to: str, expected: str, *, at: int, after: bool) -> bool:
    """Promote in a process that is killed at its call number `at`; False where it came to its end before that."""
    return _exit_code(_promote_and_die, uri, to, expected, at, after) < 0


def register_and_be_killed(
    uri: str, artifact_root: Path, number: int, directory: Path, *, at: int, after: bool, half: bool = False
) -> bool:
    """Register in a process that is killed as above. half: when a folder's first file is uploaded, and no other."""
    return _exit_code(_register_and_die, uri, artifact_root, number, directory, at, after, half) < 0


def _exit_code(target: Any, *arguments: Any) -> int:
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join(timeout=PATIENCE_S)
    assert process.exitcode is not None, "it still runs"
    assert process.exitcode in (0, -9), "it failed by itself"
    return process.exitcode


def _promote(uri: str, to: str, expected: str | None, barrier: Any, outcomes: Any) -> None:
    client = connect(uri)
    client.get_registered_model(MODEL)
    barrier.wait(timeout=PATIENCE_S)
    begun_s = monotonic()
    outcome, message = "won", ""
    try:
        move_champion(client, MODEL, kind="promote", to=to, expected=expected, why="a race")
    except Lost as error:
        outcome, message = "lost", error.message
    except Exception as error:  # whatever it is, the test shows it
        outcome, message = "error", repr(error)
    outcomes.put((to, outcome, message, monotonic() - begun_s))


def _promote_and_die(uri: str, to: str, expected: str, at: int, after: bool) -> None:
    client: Any = FailingClient(connect(uri), at=at, after=after, die=sigkill)
    move_champion(client, MODEL, kind="promote", to=to, expected=expected, why="a kill")


class _HalfUpload:
    """A client whose upload of a folder ends with its first file."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str) -> None:
        first = min(Path(local_dir).iterdir())
        self._client.log_artifact(run_id, str(first), artifact_path)
        sigkill()


def _register_and_die(
    uri: str, artifact_root: Path, number: int, directory: Path, at: int, after: bool, half: bool
) -> None:
    runs = attached(uri, artifact_root, number)
    client: Any = runs.client
    runs._client = _HalfUpload(client) if half else FailingClient(client, at=at, after=after, die=sigkill)  # type: ignore[assignment]
    register(runs, directory)
