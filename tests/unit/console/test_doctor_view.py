"""The README's table of the doctor is what is printed of such a cluster."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from tests.support.doctored import GB, VERSIONS, a_cluster, a_node, an_examination

from pharos.console import show_examination
from pharos.plan.doctor import AllReduce, Room, Skew
from pharos.plan.doctor_verdicts import checks

README = Path(__file__).parents[3] / "README.md"
STORAGE = "/shared/pharos-results"
NEXT = f"pharos sweep search_spaces/quickstart.yaml --address auto --storage {STORAGE}"


def test_the_readme_shows_what_is_printed() -> None:
    facts = {
        "versions": VERSIONS | {"torch": "2.13.0+cpu"},
        "num_cpus": 2,
        "ray_cpus": 1.0,
        "memory_bytes": 25_300_000_000,
        "gpus": (),
        "torch_cuda": "",
        "ray_gpus": 0.0,
        "shared_memory": Room(path="/dev/shm", total_bytes=25_300_000_000, free_bytes=25_300_000_000),
        "rooms": tuple(Room(path=path, total_bytes=252 * GB, free_bytes=75 * GB) for path in (STORAGE, "/tmp/ray")),
    }
    nodes = (a_node(0, **facts), a_node(1, **facts))
    cluster = a_cluster(
        *nodes,
        address="10.77.36.1:6379",
        skews=tuple(Skew(node_id=node.node_id, ahead_s=0.0, error_s=0.001) for node in nodes),
        all_reduce=AllReduce(backend="gloo", num_nodes=2, size_bytes=11_500_000, seconds=0.49),
    )
    examination = an_examination(
        *nodes, cluster=cluster, storage=STORAGE, tracking=f"sqlite:///{STORAGE}/mlflow.db", seconds=6.0
    )
    printed = io.StringIO()
    screen = Console(file=printed, width=118, highlight=False)
    show_examination(examination, checks(examination), next_steps=[NEXT], console=screen)
    said = "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
    assert f"```text\n{said}\n```" in README.read_text()
