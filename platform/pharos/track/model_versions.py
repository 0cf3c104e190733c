"""Versions of registered models as they are found again: by an alias or a number, with their files.

Files stay where they lie when this machine holds them; from a server they are fetched once, whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pharos.errors import ModelError
from pharos.folders import ensure_folder
from pharos.spec.fields import nearest
from pharos.track.mlflow_client import CHECK_TIMEOUT_S, open_store, request_limits, shown, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

MERGED, ADAPTER = "merged", "adapter"
"""Directories of the trial's run that hold the merged model and, beside it, the adapter."""
MODELS = "models"
"""Below the cache of a storage, what was fetched from a server."""
FETCH_TIMEOUT_S = 30
"""Without a byte from the server."""
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
REMEDY = "Start the server, or name another with --tracking-uri, or the storage with --storage."


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundVersion:
    """A version of a registered model. aliases: of it alone. artifacts: the URI of its run's artifacts."""

    tracking_uri: str
    model: str
    version: str
    run_id: str
    artifacts: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        return f"{self.model}/{self.version}"


def find_version(
    tracking_uri: str, model: str, *, alias: str | None = None, version: str | None = None
) -> FoundVersion:
    """The version that an alias or a number names; give one of them.

    Raises TrackingError when the store is not there or does not answer, ModelError, with what there is, when it has no
    such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    client = open_store(tracking_uri, REMEDY)
    with request_limits(timeout_s=CHECK_TIMEOUT_S, max_retries=0), tracking_errors(tracking_uri, REMEDY):
        registered = registered_model(client, tracking_uri, model)
        aliases = {name: str(number) for name, number in registered.aliases.items()}
        number = version if alias is None else aliases.get(alias)
        if number is None:
            said = f"{model}@{alias}: {model} has no alias {alias}.{_nearest(str(alias), aliases)}"
            there = ", ".join(f"{model}@{name} (version {number})" for name, number in sorted(aliases.items()))
            raise ModelError(f"{said} There {'are' if len(aliases) > 1 else 'is'} {there or 'no alias at all'}.")
        try:
            found = client.get_model_version(model, number)
        except MlflowException as error:
            if error.error_code not in (*NOT_THERE, "INVALID_PARAMETER_VALUE"):
                raise
            numbers = [int(entry.version) for entry in client.search_model_versions(f"name = '{model}'")]
            there = ", ".join(f"{model}/{entry}" for entry in sorted(numbers)[-10:]) or "no version at all"
            raise ModelError(f"{model}/{number}: {model} has no version {number}. There is {there}.") from None
        return FoundVersion(
            tracking_uri=tracking_uri,
            model=model,
            version=str(found.version),
            run_id=str(found.run_id),
            artifacts=client.get_run(str(found.run_id)).info.artifact_uri,
            aliases=tuple(sorted(name for name, pointed in aliases.items() if pointed == str(found.version))),
            tags=dict(found.tags),
        )


def version_folder(found: FoundVersion, part: str = MERGED, *, cache: Path) -> Path:
    """The directory of a version's merged model, or of its adapter.

    part: MERGED or ADAPTER. cache: of the storage, where what lies on a server is fetched to, once. Raises ModelError
    when this machine should hold it and does not, TrackingError when it cannot be fetched.
    """
    local = local_artifacts(found.artifacts)
    if local is not None:
        if not (local / part).is_dir():
            raise ModelError(
                f"{found.shown}: its files should be in {local / part}, which is not there. Put them back, or run the "
                "sweep again, which registers its model again."
            )
        return local / part

    def fetch(folder: Path) -> None:
        client = open_store(found.tracking_uri, REMEDY)
        limits = request_limits(timeout_s=FETCH_TIMEOUT_S, max_retries=2)
        with limits, tracking_errors(found.tracking_uri, REMEDY):
            fetched = Path(client.download_artifacts(found.run_id, part, str(folder)))
        for path in fetched.iterdir():
            shutil.move(path, folder)
        fetched.rmdir()

    # A version's number says nothing without its store: the run tells two stores apart.
    return ensure_folder(cache / MODELS / f"{found.model}-{found.version}-{found.run_id[:8]}" / part, fetch)


def local_artifacts(artifact_uri: str) -> Path | None:
    """The directory of a run's artifacts, none where they are not files of this machine."""
    artifacts = urlsplit(artifact_uri)
    return Path(url2pathname(artifacts.path)) if artifacts.scheme in ("", "file") else None


def registered_model(client: MlflowClient, tracking_uri: str, model: str) -> RegisteredModel:
    """A registered model. Raises ModelError, with what there is, where the store has none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        raise _unknown_model(client, tracking_uri, model) from None


def _unknown_model(client: MlflowClient, tracking_uri: str, model: str) -> ModelError:
    names = sorted(entry.name for entry in client.search_registered_models(max_results=1000))
    there = f"There are: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}." if names else "There is none."
    return ModelError(
        f"{model}: no such registered model in {shown(tracking_uri)}.{_nearest(model, names)} {there} `pharos sweep` "
        "registers its winner."
    )


def _nearest(name: str, names: Iterable[str]) -> str:
    near = nearest(name, names)
    return f" Did you mean {near}?" if near else ""
