"""The hand-over: a merged model and its adapter as one version in the MLflow registry, under an alias.

A version is a plain safetensors directory; a pickle is refused. Registering the same trial of the same spec again
finishes what a crash left undone and makes no second version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pharos.errors import HandOverError
from pharos.track.mlflow_client import tracking_errors
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.model_versions import ADAPTER, MERGED, local_artifacts
from pharos.track.versions import digest_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE = "candidate"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
REMEDY = "Start the server, or correct tracking.uri, and run the same sweep again: it only repeats the hand-over."


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a version comes from. It becomes tags, but for the texts, which become files of the trial's run.

    digests: of spec, data, base, adapter ("spec" is required). metrics: of eval and test. versions: of libraries.
    origin: base and its revision, the base's directory and the storage, and the code's version, where they are known.
    files: text by name, such as spec.json and environment.txt; each has its digest among the tags, too.
    """

    sweep: str
    trial: int
    digests: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        return {
            "pharos.sweep": self.sweep,
            "pharos.trial": str(self.trial),
            **{f"pharos.origin.{name}": value for name, value in self.origin.items()},
            **{f"pharos.digest.{Path(name).stem}": digest_of(text) for name, text in self.files.items()},
            **{f"pharos.digest.{name}": digest for name, digest in self.digests.items()},
            **{f"pharos.metric.{name}": repr(value) for name, value in self.metrics.items()},
            **{f"pharos.version.{name}": version for name, version in self.versions.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """A version of a registered model. path: its directory on this machine, none where a server keeps it."""

    model: str
    version: str
    alias: str
    source: str
    path: Path | None


def register_version(
    runs: MlflowRuns,
    *,
    model: str,
    merged: Path,
    adapter: Path,
    lineage: Lineage,
    alias: str = CANDIDATE,
) -> RegisteredVersion:
    """Upload a trial's merged model and adapter to its run, register them as a version and set the alias.

    `runs` is attached, and has written the trial. An alias that already names a later version stays there. Raises
    HandOverError when a directory holds a pickle or no safetensors, TrackingError when the store does not answer.
    """
    for directory in (merged, adapter):
        _check_weights(directory)
    client, run_id = runs.client, runs.trial_run_id(lineage.trial)
    with tracking_errors(runs.tracking_uri, REMEDY):
        _ensure_model(client, model)
        found = _find_version(client, model, run_id, lineage)
        source = f"runs:/{run_id}/{MERGED}"
        if found is None:
            for name, text in lineage.files.items():
                client.log_text(run_id, text, name)
            if not _has_version(client, run_id):
                client.log_artifacts(run_id, str(merged), MERGED)
                client.log_artifacts(run_id, str(adapter), ADAPTER)
            found = client.create_model_version(model, source=source, run_id=run_id, tags=lineage.tags())
        aliased = client.get_registered_model(model).aliases.get(alias)
        if aliased is None or int(aliased) < int(found.version):
            client.set_registered_model_alias(model, alias, found.version)
        artifacts = local_artifacts(client.get_run(run_id).info.artifact_uri)
    path = None if artifacts is None else artifacts / MERGED
    return RegisteredVersion(model=model, version=str(found.version), alias=alias, source=source, path=path)


def _check_weights(directory: Path) -> None:
    pickles = sorted(path.name for path in directory.rglob("*") if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise HandOverError(f"{directory} holds {', '.join(pickles)}: pickles are not handed over, only safetensors.")
    if not any(directory.glob("*.safetensors")):
        raise HandOverError(f"{directory} holds no safetensors file: there is no model to register.")


def _ensure_model(client: MlflowClient, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _has_version(client: MlflowClient, run_id: str) -> bool:
    """Whether a version stands on this run's files: they are whole then, and are never written again.

    A sweep that is extended may register the same trial once more; a crash while its files, which may be the
    champion's, were written over would leave half of them.
    """
    return bool(client.search_model_versions(f"run_id = '{run_id}'"))


def _find_version(client: MlflowClient, model: str, run_id: str, lineage: Lineage) -> Any | None:
    """The version that an earlier call made of this run under this spec."""
    same = [
        version
        for version in client.search_model_versions(f"run_id = '{run_id}'")
        if version.name == model and version.tags.get("pharos.digest.spec") == lineage.digests["spec"]
    ]
    return max(same, key=lambda version: int(version.version), default=None)
