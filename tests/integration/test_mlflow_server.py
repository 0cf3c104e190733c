"""A real MLflow server that is killed and started again while a sweep reports: nothing lost, nothing twice."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic

import pytest
from tests.support.mlflow_server import Server, wait_until
from tests.unit.track import sweeps

from pharos.errors import TrackingError
from pharos.track.event_log import EventLog
from pharos.track.follower import Follower
from pharos.track.mlflow_client import check_tracking
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.model_versions import find_version, version_folder
from pharos.track.registry import Lineage, register_version

NUM_TRIALS, NUM_STEPS, STEPS_PER_ROUND = 4, 60, 2


def assert_whole(runs: MlflowRuns) -> None:
    """Each trial has one run, and that run each point once with its value."""
    experiment = runs.client.get_experiment_by_name("pharos")
    assert experiment is not None
    stored = runs.client.search_runs([experiment.experiment_id])
    names = [f"{sweeps.SWEEP}-{number:04d}" for number in range(NUM_TRIALS)]
    assert sorted(str(run.info.run_name) for run in stored) == [sweeps.SWEEP, *names]
    assert {run.info.status for run in stored} == {"FINISHED"}
    for number in range(NUM_TRIALS):
        steps = range(1, NUM_STEPS + 1)
        expected = {
            "loss": [(step, sweeps.loss_of(number, step)) for step in steps],
            "num_tokens": [(step, 50.0 * step) for step in steps],
            "eval_loss": [(step, sweeps.loss_of(number, step) + 0.1) for step in steps if step % STEPS_PER_ROUND == 0],
        }
        for name, points in expected.items():
            history = runs.client.get_metric_history(runs.trial_run_id(number), name)
            assert sorted((metric.step, metric.value) for metric in history) == points


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_server_killed_twice_in_mid_stream_ends_with_every_point_once(server: Server, tmp_path: Path) -> None:
    check_tracking(server.uri, "pharos")
    log = EventLog(tmp_path / "events")
    runs = MlflowRuns(server.uri, "pharos", artifact_root=tmp_path / "unused")
    follower = Follower(log, runs, interval_s=0.01)
    batches = list(sweeps.rounds(NUM_TRIALS, NUM_STEPS, STEPS_PER_ROUND))
    third = len(batches) // 3

    # Killed while it writes, with more to write.
    for batch in batches[:third]:
        follower.publish(log.append(batch))
    wait_until(lambda: follower.backlog < log.next_sequence(), "nothing was written")
    server.kill()
    before_s = monotonic()
    for batch in batches[third : 2 * third]:
        follower.publish(log.append(batch))
    assert monotonic() - before_s < 5, "publishing waited for the server"
    wait_until(lambda: follower.last_error is not None, "the outage was not noticed")
    # Where a request was on its way when the server was killed, its connection ended.
    ends = "Connection refused|Connection reset by peer|Remote end closed connection without response"
    said = str(follower.last_error)
    assert re.search(rf"{server.uri} cannot be used: ({ends})\. ", said), said
    assert follower.backlog > 0
    before_s = monotonic()
    with pytest.raises(TrackingError, match="Connection refused"):
        check_tracking(server.uri, "pharos")
    assert monotonic() - before_s < 5

    server.start()
    wait_until(lambda: follower.backlog == 0 and follower.last_error is None, "it did not catch up")

    # Killed again; this follower ends without it, and the next one hands over what it left.
    server.kill()
    for batch in batches[2 * third :]:
        follower.publish(log.append(batch))
    left = follower.close(timeout_s=1)
    assert left == log.next_sequence() - sum(len(batch) for batch in batches[: 2 * third])
    server.start()
    runs = MlflowRuns(server.uri, "pharos")
    assert Follower(log, runs, interval_s=0.01).close(timeout_s=90) == 0
    assert_whole(runs)

    # The hand-over goes through the server: artifacts too.
    merged = sweeps.model_directory(tmp_path / "merged")
    lineage = Lineage(sweep=sweeps.SWEEP, trial=0, digests={"spec": "5bec", "adapter": "ada9"})
    registered = [
        register_version(runs, model="docker", merged=merged, adapter=merged, lineage=lineage) for _ in range(2)
    ]
    assert [(version.version, version.path) for version in registered] == [("1", None)] * 2
    found = find_version(server.uri, "docker", alias="candidate")
    path = version_folder(found, cache=tmp_path / "cache")
    assert (path / "model.safetensors").read_bytes() == b"weights"
    assert not (tmp_path / "unused").exists()

    # What has been fetched once needs the server's files no more; a version that is half fetched is not there.
    server.kill()
    assert version_folder(found, cache=tmp_path / "cache") == path
    with pytest.raises(TrackingError, match="Connection refused"):
        version_folder(found, cache=tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.safetensors"))
    with pytest.raises(TrackingError, match="Connection refused"):
        find_version(server.uri, "docker", version="1")
