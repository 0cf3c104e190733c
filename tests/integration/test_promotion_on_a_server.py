"""Promotion where a server keeps aliases and files: what it keeps now is checked, not what was fetched before."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.mlflow_server import Server
from tests.support.registered_models import MODEL, Registry, new_store, prepared, registry, trained_adapter

from pharos.errors import HandOverError, TrackingError
from pharos.handover.promotion import promote, rollback
from pharos.plan.promotion import Outcome


def run(models: Registry) -> Outcome:
    return promote(MODEL, storage=models.storage, tracking_uri=models.uri, progress=lambda text: None)


@pytest.mark.slow
def test_candidates_are_promoted_refused_and_rolled_back_by_what_the_server_keeps(
    server: Server, tmp_path: Path
) -> None:
    base, data = prepared(tmp_path)
    empty_store = new_store(tmp_path / "empty.db")
    models = registry(tmp_path / "results", base=base, data=data, empty_store=empty_store, server=server.uri)
    models.add(trained_adapter(base, data, tmp_path / "base-like", num_steps=0))
    assert run(models).is_champion
    learned = trained_adapter(base, data, tmp_path / "learned", num_steps=60)
    models.add(learned)
    outcome = run(models)
    assert outcome.comparison is not None
    assert outcome.comparison.high < 0
    assert models.champions() == {"champion": "2", "previous": "1"}

    # A shard of the next candidate is cut off on the server's disk, after it was registered.
    models.add(learned)
    run_id = models.runs.trial_run_id(2)
    [shard] = (tmp_path / "server" / "artifacts").glob(f"*/{run_id}/artifacts/merged/model.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1000])
    with pytest.raises(HandOverError, match=r"bytes, pharos_manifest.json says"):
        run(models)
    shard.write_bytes(whole)
    refused = run(models)
    assert refused.reason.startswith("not surely better")
    assert models.champions() == {"champion": "2", "previous": "1"}
    assert not list((models.storage / "cache").glob("checked.*"))

    rollback(MODEL, storage=models.storage, tracking_uri=server.uri, reason=None, progress=lambda text: None)
    assert models.champions() == {"champion": "1", "previous": "2"}
    server.kill()
    with pytest.raises(TrackingError, match="cannot be used: Connection refused"):
        run(models)
