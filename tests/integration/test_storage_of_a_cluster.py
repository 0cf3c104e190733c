"""A cluster whose second node sees nothing of the first one's disk: what is said, and that an object store does.

The node lies in a mount namespace of its own, with an empty file system over the place of the test.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.object_store import CREDENTIALS, Bucket
from tests.support.ray_nodes import HOST, ray_head, start_node
from tests.support.small_sweep import NAME, Workplace, workplace

from pharos.store.mirror import local_storage
from pharos.track.event_log import EventLog

HIDE = 'mount -t tmpfs none "$1" && shift && exec "$@"'


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Iterator[Workplace]:
    (tmp_path / "place").mkdir()
    pool = {"workers": 2, "seats_per_worker": 1, "sharding": "zero3"}
    search = {"num_trials": 3, "space": {"optim.learning_rate": {"log_uniform": [1e-5, 3e-2]}}}
    base = tmp_path / "place" / "own-base"
    place = workplace(
        tmp_path / "place", base, search=search, pool=pool, test={"generate": False}, keep={"adapters": 1}
    )
    shutil.copytree(small_base, base)
    place.environment |= CREDENTIALS
    try:
        yield place
    finally:
        place.end_everything()


def has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", HIDE, "sh", tempfile.gettempdir(), "true"], capture_output=True, check=False
    )
    return tried.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not has_namespaces(), reason="mount namespaces need root, and unshare of util-linux")
def test_a_node_that_sees_no_local_storage_is_named_and_works_with_an_object_store(
    bucket: Bucket, place: Workplace, tmp_path: Path
) -> None:
    with ray_head(place) as head:
        start_node(
            place,
            tmp_path / "node.log",
            *(f"--address={head.address}", f"--node-ip-address={HOST}"),
            under=["unshare", "--mount", "sh", "-c", HIDE, "sh", str(place.root)],
        )
        place.environment["RAY_ADDRESS"] = head.address

        refused = place.run("sweep")
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert f"storage={place.root / 'results'} is not seen by 1 of 2 nodes of the cluster" in refused.stderr
        assert re.search(
            r"  node \S+ \([0-9a-f]{12}\): what is written to it elsewhere is not there", refused.stderr
        ), refused.stderr
        assert "s3://bucket/prefix" in refused.stderr
        assert place.events() == []

        tracking = f"sqlite:///{place.root / 'tracking.db'}"
        run = place.run("sweep", "--storage", bucket.uri(), "--tracking-uri", tracking)
        assert run.returncode == 0, run.stdout + run.stderr
        events = list(EventLog(local_storage(bucket.uri()) / NAME / "events").read())
        [opened] = [event for event in events if event.kind == "pool_opened"]
        assert len(set(opened.nodes)) == 2
        assert [event.state for event in events if event.kind == "sweep_ended"] == ["COMPLETED"]
        assert sum(event.kind == "trial_ended" for event in events) == 3
        removed = {number for event in events if event.kind == "adapters_removed" for number in event.numbers}
        left = {int(name.partition("/")[0]) for name in bucket.store(NAME, "trials").names()}
        assert removed
        assert left == {0, 1, 2} - removed
