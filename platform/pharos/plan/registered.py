"""What the registry holds of a model, as plain values: its versions, their aliases and lineage, its moves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedVersion:
    """A version. created: UTC. tags: all of them; those of Pharos begin with `pharos.`."""

    model: str
    version: str
    aliases: tuple[str, ...]
    created: str
    status: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, str]:
        """Tags below `pharos.<prefix>.`, without it: digest, metric, origin, promoted, version."""
        start = f"pharos.{prefix}."
        return {name.removeprefix(start): value for name, value in self.tags.items() if name.startswith(start)}

    @property
    def sweep(self) -> str | None:
        return self.tags.get("pharos.sweep")

    @property
    def trial(self) -> int | None:
        written = self.tags.get("pharos.trial", "")
        return int(written) if written.isdigit() else None

    @property
    def metrics(self) -> dict[str, float]:
        return {name: float(value) for name, value in sorted(self.group("metric").items())}

    def to_json(self) -> dict[str, Any]:
        """For programs. Keys are never renamed."""
        return {
            "model": self.model,
            "version": self.version,
            "aliases": list(self.aliases),
            "created": self.created,
            "status": self.status,
            "run_id": self.run_id,
            "sweep": self.sweep,
            "trial": self.trial,
            "metrics": self.metrics,
            "digests": self.group("digest"),
            "origin": self.group("origin"),
            "versions": self.group("version"),
            "promoted": self.group("promoted") or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A registered model. versions: the newest first. moves: of its champion, the oldest first, as they were recorded.

    under_way: commands that are at it now, or that a crash has left: who and since when.
    """

    name: str
    versions: tuple[ListedVersion, ...]
    moves: tuple[Mapping[str, Any], ...] = ()
    under_way: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "versions": [version.to_json() for version in self.versions],
            "moves": [dict(move) for move in self.moves],
            "under_way": list(self.under_way),
        }
