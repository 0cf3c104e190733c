"""The registered models of a store with all their versions, aliases, tags and moves. Only read, never written."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pharos.plan.registered import ListedModel, ListedVersion
from pharos.track.champion import history
from pharos.track.mlflow_client import CHECK_TIMEOUT_S, all_pages, open_store, request_limits, tracking_errors
from pharos.track.model_versions import REMEDY, registered_model
from pharos.track.turns import Intent, Place, intents

if TYPE_CHECKING:
    from mlflow import MlflowClient


def list_models(tracking_uri: str, name: str | None = None) -> list[ListedModel]:
    """All registered models by name, or the one of that name.

    Raises TrackingError when the store is not there or does not answer, ModelError where it has no such model.
    """
    client = open_store(tracking_uri, REMEDY)
    with request_limits(timeout_s=CHECK_TIMEOUT_S, max_retries=0), tracking_errors(tracking_uri, REMEDY):
        if name is None:
            found = all_pages(client.search_registered_models)
            return [_listed(client, registered) for registered in sorted(found, key=lambda model: str(model.name))]
        return [_listed(client, registered_model(client, tracking_uri, name))]


def _listed(client: MlflowClient, registered: Any) -> ListedModel:
    name = str(registered.name)
    found = all_pages(client.search_model_versions, f"name = '{name}'")
    versions = [_version(version, registered.aliases) for version in found]
    return ListedModel(
        name=name,
        versions=tuple(sorted(versions, key=lambda version: -int(version.version))),
        moves=tuple(asdict(move) for move in history(registered.tags)),
        under_way=tuple(_under_way(intent) for intent in intents(registered.tags)),
    )


def _under_way(intent: Intent) -> str:
    if intent.place.is_gone(Place.own()):
        return f"a command of {intent.who} was cut off ({intent.when}): the next promotion or roll-back settles it"
    return f"a command of {intent.who} is at it ({intent.when})"


def _version(version: Any, aliases: Any) -> ListedVersion:
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return ListedVersion(
        model=str(version.name),
        version=str(version.version),
        aliases=tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(version.version))),
        created=created.isoformat(timespec="seconds").replace("+00:00", "Z"),
        status=str(version.status),
        run_id=str(version.run_id),
        tags=dict(version.tags),
    )
