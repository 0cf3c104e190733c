"""What makes a machine or a cluster ill, and what the doctor says to do: one ill thing at a time."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.doctored import GB, VERSIONS, a_cluster, a_node, an_examination

from pharos.plan.doctor import AllReduce, Check, ClosedPort, Dashboard, Gpu, Room, SilentNode, Skew
from pharos.plan.doctor_verdicts import checks, verdict

HEAD, OTHER = a_node(0), a_node(1)


def of(name: str, lines: tuple[Check, ...]) -> list[Check]:
    return [line for line in lines if line.name == name]


def ill(lines: tuple[Check, ...]) -> list[Check]:
    return [line for line in lines if line.verdict != "ok"]


def with_other(**changes: Any) -> tuple[Check, ...]:
    """A cluster of a healthy head and a second node with these facts."""
    other = a_node(1, **changes)
    return checks(an_examination(HEAD, other, cluster=a_cluster(HEAD, other)))


def between(**changes: Any) -> tuple[Check, ...]:
    return checks(an_examination(HEAD, OTHER, cluster=a_cluster(HEAD, OTHER, **changes)))


def test_a_cluster_that_is_well_is_said_to_be_and_says_each_thing_once() -> None:
    lines = between()
    assert ill(lines) == []
    assert verdict(lines) == "ok"
    assert [line.name for line in lines] == [
        *("nodes", "versions", "CPUs", "memory", "GPUs", "shared memory", "room on disk", "swap", "open files"),
        *("storage", "tracking", "clocks", "ports", "all-reduce", "token", "dashboard"),
    ]
    assert all(line.nodes == () for line in lines)


def test_a_machine_alone_says_that_nothing_between_nodes_was_looked_at() -> None:
    lines = checks(an_examination(a_node(0, ray_cpus=None, ray_gpus=None), tracking="sqlite:////results/mlflow.db"))
    assert [(line.name, line.verdict) for line in ill(lines)] == [("cluster", "not checked")]
    assert "--address" in of("cluster", lines)[0].remedy
    assert verdict(lines) == "ok"


@pytest.mark.parametrize(
    ("changes", "name", "expected", "said"),
    [
        ({"versions": VERSIONS | {"torch": "2.12.0"}}, "versions", "wrong", "torch 2.12.0 (head: 2.13.0+cu128)"),
        ({"versions": VERSIONS | {"mlflow": "3.16.0"}}, "versions", "warning", "mlflow 3.16.0 (head: 3.17.2)"),
        ({"versions": VERSIONS | {"python": "3.11.9"}}, "versions", "warning", "python 3.11.9 (head: 3.11.7)"),
        ({"versions": VERSIONS | {"python": "3.12.1"}}, "versions", "wrong", "python 3.12.1"),
        ({"versions": VERSIONS | {"peft": ""}}, "versions", "wrong", "not installed: peft"),
        ({"unmet": ("ray 2.59, and pharos wants ray<2.61",)}, "versions", "warning", "pharos wants"),
        ({"ray_cpus": 32.0}, "CPUs", "warning", "16, of which Ray gives out 32"),
        ({"available_bytes": GB}, "memory", "warning", "only 1.0 GB of it free"),
        ({"torch_cuda": ""}, "GPUs", "wrong", "torch is built without CUDA"),
        ({"ray_gpus": 1.0}, "GPUs", "warning", "Ray gives out 1"),
        ({"gpus": (Gpu(name="L4", memory_bytes=24 * GB, driver="550.1"),) * 2}, "GPUs", "warning", "drivers differ"),
        (
            {"shared_memory": Room(path="/dev/shm", total_bytes=64 * 2**20, free_bytes=0)},
            "shared memory",
            "warning",
            "",
        ),
        ({"rooms": (Room(path="/x", total_bytes=100 * GB, free_bytes=4 * GB),)}, "room on disk", "wrong", "96% full"),
        ({"rooms": (Room(path="/x", total_bytes=20 * GB, free_bytes=5 * GB),)}, "room on disk", "warning", "5.0 GB"),
        ({"swap_bytes": 9 * GB, "swap_used_bytes": 3 * GB}, "swap", "warning", "3.0 GB in use"),
        ({"max_open_files": 4096}, "open files", "warning", "4,096"),
        ({"missing_paths": ("/models/llama",)}, "paths", "wrong", "/models/llama is not there"),
        ({"tracking_problem": "Connection refused"}, "tracking", "warning", "Connection refused"),
    ],
)
def test_what_ails_one_node_is_said_of_that_node_alone(
    changes: dict[str, Any], name: str, expected: str, said: str
) -> None:
    lines = with_other(**changes)
    assert verdict(lines) == expected
    [line] = ill(lines)
    assert (line.name, line.verdict) == (name, expected)
    assert said in line.found
    assert line.remedy
    assert line.nodes == (("10.0.0.2",) if "drivers differ" not in line.found else ())


def test_a_head_without_gpu_and_the_cpu_build_of_torch_is_no_difference() -> None:
    head = a_node(0, versions=VERSIONS | {"torch": "2.13.0+cpu"}, gpus=(), torch_cuda="", ray_gpus=0.0)
    lines = checks(an_examination(head, OTHER, cluster=a_cluster(head, OTHER)))
    assert ill(lines) == []


def test_nodes_that_share_an_address_are_told_apart_by_their_ids() -> None:
    nodes = (a_node(0), a_node(1, address="10.0.0.1", max_open_files=1024))
    [line] = ill(checks(an_examination(*nodes, cluster=a_cluster(*nodes))))
    assert line.nodes == ("10.0.0.1 (000000)",)


def test_a_node_that_gives_no_answer_is_wrong_and_one_that_drains_is_to_be_known_of() -> None:
    silent = SilentNode(node_id="f" * 56, address="10.0.0.9", reason="nothing within 60 s")
    lines = between(silent=(silent,), draining=("10.0.0.2",))
    told = {line.nodes: (line.verdict, line.found) for line in of("nodes", lines) if line.nodes}
    assert told[("10.0.0.9",)] == ("wrong", "no answer: nothing within 60 s")
    assert told[("10.0.0.2",)][0] == "warning"
    bare = SilentNode(node_id="e" * 56, address="10.0.0.8", reason="ModuleNotFoundError: No module named 'pharos'")
    assert "pip install" in of("nodes", between(silent=(bare,)))[1].remedy


def test_storage_is_wrong_here_or_on_the_nodes_that_do_not_see_it() -> None:
    here = checks(an_examination(HEAD, storage_problem="storage=/x cannot be written: Permission denied."))
    assert [line.verdict for line in of("storage", here)] == ["wrong"]
    lines = between(storage_problems={OTHER.node_id: "what is written to it elsewhere is not there"})
    [line] = of("storage", lines)
    assert (line.verdict, line.nodes) == ("wrong", ("10.0.0.2",))
    assert "s3://" in line.remedy


def test_a_sqlite_file_is_right_on_one_node_and_a_warning_on_several() -> None:
    uri = "sqlite:////shared/results/mlflow.db"
    assert of("tracking", checks(an_examination(HEAD, tracking=uri)))[0].verdict == "ok"
    lines = checks(an_examination(HEAD, OTHER, cluster=a_cluster(HEAD, OTHER), tracking=uri))
    assert of("tracking", lines)[0].verdict == "warning"


def test_a_server_that_the_head_does_not_reach_is_wrong_since_submitted_sweeps_are_driven_there() -> None:
    head = a_node(0, tracking_problem="Connection refused")
    [line] = of("tracking", checks(an_examination(head, OTHER, cluster=a_cluster(head, OTHER))))
    assert (line.verdict, line.nodes) == ("wrong", ("10.0.0.1",))


@pytest.mark.parametrize(
    ("of_head_s", "ahead_s", "error_s", "expected"),
    [
        (0.0, 1.5, 0.01, "warning"),
        (0.0, -1.5, 0.01, "warning"),
        (0.0, 0.9, 0.01, "ok"),
        (5.0, 5.2, 0.01, "ok"),  # it is this machine's clock that is wrong, and it takes no part
        (0.0, 1.5, 0.8, "ok"),  # so slow an answer that it may be nothing
    ],
)
def test_clocks_are_compared_with_the_heads_and_only_what_is_certain_counts(
    of_head_s: float, ahead_s: float, error_s: float, expected: str
) -> None:
    skews = (
        Skew(node_id=HEAD.node_id, ahead_s=of_head_s, error_s=0.0),
        Skew(node_id=OTHER.node_id, ahead_s=ahead_s, error_s=error_s),
    )
    assert [line.verdict for line in of("clocks", between(skews=skews))] == [expected]


def test_closed_ports_are_named_some_of_them_and_the_rest_counted() -> None:
    closed = [
        ClosedPort(from_node=HEAD.node_id, to_node=OTHER.node_id, port=port, what="raylet", reason="refused")
        for port in range(10)
    ]
    lines = of("ports", between(closed=tuple(closed)))
    assert len(lines) == 5
    assert "10.0.0.2 cannot be reached on 0 (raylet): refused" in lines[0].found
    assert lines[-1].found == "6 more like these"
    assert {line.verdict for line in lines} == {"wrong"}


def test_bandwidth_is_told_and_judged_only_where_it_is_absurd() -> None:
    def line(**fields: Any) -> Check:
        measured = AllReduce(backend="gloo", num_nodes=4, **fields)
        return of("all-reduce", between(all_reduce=measured))[0]

    slow_link = line(size_bytes=10**7, seconds=0.6)
    assert slow_link.verdict == "ok"
    # 10 MB in 0.6 s; each of 4 nodes sends and receives 1.5 times the tensor.
    assert "17 MB/s, 25 MB/s over each link" in slow_link.found
    assert "states 10,000 Mbit/s, 1,250 MB/s" in slow_link.found
    assert line(size_bytes=10**6, seconds=2.0).verdict == "warning"
    assert line(problem="connection refused").verdict == "wrong"
    found = AllReduce(backend="nccl", num_nodes=4, size_bytes=10**7, seconds=0.6, needs_interface="eth0")
    [interface] = of("all-reduce", between(all_reduce=found))
    assert interface.verdict == "wrong"
    assert "NCCL_SOCKET_IFNAME=eth0" in interface.remedy


@pytest.mark.parametrize(
    ("status", "is_public", "token", "dashboard"),
    [
        (401, False, "ok", "ok"),
        (200, False, "warning", "ok"),
        (401, True, "ok", "warning"),
        (200, True, "wrong", "warning"),
    ],
)
def test_who_may_enter_without_a_token(status: int, is_public: bool, token: str, dashboard: str) -> None:
    lines = between(dashboard=Dashboard(url="http://10.0.0.1:8265", status=status, is_public=is_public))
    assert [line.verdict for name in ("token", "dashboard") for line in of(name, lines)] == [token, dashboard]


def test_without_a_dashboard_training_would_hang_and_jobs_could_not_come() -> None:
    assert [line.verdict for line in of("dashboard", between(dashboard=None))] == ["wrong"]
    silent = Dashboard(url="http://127.0.0.1:8265", status=None, is_public=False, reason="Connection refused")
    assert [line.verdict for line in of("dashboard", between(dashboard=silent))] == ["wrong"]
