"""The small parts of a session: phases, ports, the environment, and what a resume may change."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.support.plans import a_spec

from pharos.errors import ClusterError, StorageError
from pharos.plan.events import SweepStarted
from pharos.plan.ledger import Ledger
from pharos.spec.identity import spec_to_json
from pharos.sweep.driver import refuse_other_spec
from pharos.sweep.environment import set_environment
from pharos.sweep.phases import Phases
from pharos.sweep.ray_session import check_address, check_port, worker_environment


def test_each_second_belongs_to_the_phase_it_was_in() -> None:
    clock = iter([0.0, 2.0, 2.0, 5.0, 5.0, 6.0])
    phases = Phases(now=lambda: next(clock))
    for name in ("start", "search", "start"):
        phases.enter(name)
    assert phases.seconds() == {"start": 2.0 + 1.0, "search": 3.0}


def test_a_port_in_use_is_named_and_a_free_one_passes() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"--dashboard-port={port} is in use"):
            check_port(port)
    check_port(port)


def test_the_network_that_the_driver_names_is_the_one_that_its_workers_talk_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth1")
    made = worker_environment(gpus=True, threads_per_worker=4)
    assert made["NCCL_SOCKET_IFNAME"] == "eth1"
    assert "GLOO_SOCKET_IFNAME" not in made, "what is not set is left to the libraries"
    assert made["OMP_NUM_THREADS"] == "4"


def test_our_own_cluster_takes_requests_with_a_token_only_and_what_is_set_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    set_environment(address=None)
    token = os.environ["RAY_AUTH_TOKEN"]
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(token) == 64
    set_environment(address=None)
    assert os.environ["RAY_AUTH_TOKEN"] == token
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    set_environment(address=None)
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_cluster_that_is_there_is_sent_the_token_that_there_is_and_none_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")

    def mode() -> str:
        set_environment(address="10.0.0.1:6379")
        found = os.environ.pop("RAY_AUTH_MODE")
        assert not (set(names) & os.environ.keys()) - given.keys()
        return found

    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    given: dict[str, str] = {}
    assert mode() == "disabled"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a token")
    assert mode() == "token"
    (tmp_path / ".ray" / "auth_token").unlink()
    for name, value in (("RAY_AUTH_TOKEN", "a token"), ("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))):
        (tmp_path / "token").write_text("a token")
        given = {name: value}
        monkeypatch.setenv(name, value)
        assert mode() == "token"
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    given = {"RAY_AUTH_MODE": "disabled"}
    set_environment(address="10.0.0.1:6379")
    assert os.environ["RAY_AUTH_MODE"] == "disabled", "what is set stays"


@dataclass(frozen=True)
class StagedStandIn:
    """The fields of a staged sweep that a resume is checked against."""

    spec: object
    storage: Path
    data: object


@dataclass(frozen=True)
class DataStandIn:
    digest: str


def test_a_resume_may_change_trials_and_pool_and_nothing_that_changes_a_trial(tmp_path: Path) -> None:
    spec = a_spec()
    before = Ledger(
        started=SweepStarted(
            sweep=spec.name,
            spec=spec_to_json(spec),
            digests={"data": "d1"},
            versions={},
            num_trials=8,
            metric="eval_loss",
        )
    )
    same = StagedStandIn(spec, tmp_path, DataStandIn("d1"))
    for allowed in (spec, a_spec(num_trials=12), a_spec(pool={"workers": 1}), a_spec(storage="elsewhere")):
        refuse_other_spec(before, replace(same, spec=allowed))
    with pytest.raises(StorageError, match=r"train.max_steps: 40 -> 41"):
        refuse_other_spec(before, replace(same, spec=a_spec(max_steps=41)))
    with pytest.raises(StorageError, match=r"pool.placement: .*local.* -> .*data_parallel"):
        refuse_other_spec(before, replace(same, spec=a_spec(pool={"placement": "data_parallel"})))
    with pytest.raises(StorageError, match="its data have changed since"):
        refuse_other_spec(before, replace(same, data=DataStandIn("d2")))


def test_the_address_of_a_dashboard_is_told_from_that_of_the_cluster() -> None:
    with pytest.raises(ClusterError, match=r"--address=http://head:8265 is a cluster's dashboard.*host:6379"):
        check_address("http://head:8265")
    check_address("auto")
