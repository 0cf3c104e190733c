"""Where a sweep keeps its state below its storage. Pure: nothing is read or made here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SweepPaths:
    """All paths of one sweep; absolute, since Ray's workers change their directory."""

    storage: Path
    sweep: str

    @property
    def root(self) -> Path:
        return self.storage / self.sweep

    @property
    def events(self) -> Path:
        return self.root / "events"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def ray(self) -> Path:
        return self.root / "ray"

    @property
    def merged(self) -> Path:
        return self.root / "merged"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def cache(self) -> Path:
        """Prepared data and built-in bases, shared by the sweeps of one storage."""
        return self.storage / "cache"

    @property
    def tracking_uri(self) -> str:
        return tracking_uri_of(self.storage)

    @property
    def artifacts(self) -> Path:
        return self.storage / "mlartifacts"


def tracking_uri_of(storage: Path) -> str:
    """The MLflow store of a storage's sweeps, where the spec names none. storage: absolute."""
    return f"sqlite:///{storage / 'mlflow.db'}"
