"""The doctor on this machine: facts as the system tells them, places that do not work, and what is printed."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import psutil
import pytest
from tests.support.command_line import Pharos
from tests.support.doctored import a_cluster, a_node, an_examination
from tests.support.metadata_services import FakeCloud, served

from pharos import console as console_room
from pharos.errors import ClusterError
from pharos.plan.doctor import Gpu, Wanted
from pharos.plan.doctor_verdicts import checks
from pharos.sweep.doctor import refuse_other_addresses, storage_problem
from pharos.sweep.doctor_node import Examiner, gpus, node_facts, tracking_problem
from pharos.sweep.interface import GLOO, interface_of, talk_where_nodes_do


def wanted(storage: Path) -> Wanted:
    return Wanted(storage=str(storage), tracking_uri=f"sqlite:///{storage}/mlflow.db", experiment="pharos")


def test_the_facts_are_those_of_the_system(tmp_path: Path) -> None:
    facts = node_facts(wanted(tmp_path))
    assert facts.num_cpus == len(os.sched_getaffinity(0))
    assert 0 < facts.available_bytes <= facts.memory_bytes <= psutil.virtual_memory().total
    assert facts.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(facts.versions.values()), "everything that is looked for is installed here"
    assert facts.unmet == ()
    assert [room.path for room in facts.rooms] == [str(tmp_path)]
    assert facts.missing_paths == ()
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_version_that_pharos_was_not_made_for_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "importlib.metadata.requires", lambda name: ["torch<2.13", "nowhere>=1; extra == 'x'", "gone>1"]
    )
    unmet = node_facts(wanted(tmp_path)).unmet
    assert [text.partition(",")[2] for text in unmet] == [" and pharos wants torch<2.13", " and pharos wants gone>1"]
    assert "is missing" in unmet[1]


def test_gpus_are_those_that_the_driver_lists(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 570.86.15'\necho 'NVIDIA L4, 23034, 570.86.15'\n"
    )
    program.chmod(0o755)
    assert gpus(str(program)) == (
        Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=81559 * 2**20, driver="570.86.15"),
        Gpu(name="NVIDIA L4", memory_bytes=23034 * 2**20, driver="570.86.15"),
    )
    program.write_text(
        "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the driver.'\nexit 9\n"
    )
    assert gpus(str(program)) == ()
    assert gpus(str(tmp_path / "nothing")) == ()


def test_an_address_leads_to_its_interface() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") == ""


@pytest.mark.parametrize(
    ("address", "set_before", "taken"),
    [("127.0.0.1", None, "lo"), ("127.0.0.1", "ib0", "ib0"), ("203.0.113.7", None, None)],
)
def test_gloo_talks_where_ray_does_unless_it_was_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, address: str, set_before: str | None, taken: str | None
) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: address)
    # Both ways, so that what the code sets is taken away after the test as well.
    monkeypatch.setenv(GLOO, set_before or "")
    if set_before is None:
        monkeypatch.delenv(GLOO)
    talk_where_nodes_do()
    assert os.environ.get(GLOO) == taken


def test_a_storage_is_written_and_read_and_no_marker_stays(tmp_path: Path) -> None:
    assert storage_problem(str(tmp_path)) == ""
    assert list(tmp_path.iterdir()) == []
    assert storage_problem(str(tmp_path / "new")) == ""
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert "storage=" in storage_problem(str(tmp_path / "file"))


def test_a_tracking_server_is_there_when_it_answers_anything_but_an_error_of_its_own() -> None:
    with served(FakeCloud(kind="gcp")) as server:  # answers /health with 403
        assert tracking_problem(server.endpoint) == ""
        server.fails = True
        assert "503" in tracking_problem(server.endpoint)
        host, port = server.endpoint.removeprefix("http://").split(":")
    assert tracking_problem(f"http://{host}:{port}") == "Connection refused"
    assert tracking_problem(f"postgresql+psycopg2://user:secret@{host}:{port}/mlflow") == "Connection refused"
    assert tracking_problem("sqlite:////nowhere/mlflow.db") == ""


def test_an_examiner_knocks_and_is_knocked_at() -> None:
    examiner = Examiner("127.0.0.1")
    port = examiner.listen()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed_port = taken.getsockname()[1]
    found = examiner.closed([("127.0.0.1", port), ("127.0.0.1", closed_port)])
    assert found == [(1, "Connection refused")]


def test_the_dashboard_is_asked_without_a_token() -> None:
    with served(FakeCloud(kind="aws")) as server:  # refuses everybody who has no token
        found = Examiner("127.0.0.1").dashboard(server.endpoint.removeprefix("http://"))
    assert (found.status, found.is_public) == (401, False)
    gone = Examiner("127.0.0.1").dashboard(server.endpoint.removeprefix("http://"))
    assert (gone.status, gone.reason) == (None, "Connection refused")


@pytest.mark.parametrize("address", ["http://10.0.0.1:8265", "ray://10.0.0.1:10001"])
def test_the_addresses_of_rays_other_doors_are_told_apart(address: str) -> None:
    with pytest.raises(ClusterError) as raised:
        refuse_other_addresses(address)
    assert "--address=auto" in raised.value.message
    assert "10.0.0.1:6379" in raised.value.message
    refuse_other_addresses("10.0.0.1:6379")
    refuse_other_addresses("auto")


def test_the_verb_looks_at_this_machine_and_starts_no_ray(
    pharos: Pharos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    code, said, errors = pharos("doctor")
    assert (code, errors) == (0, "")
    assert "verdict: " in said  # ok, or a warning of little free memory
    assert "next:    pharos plan SPEC" in said
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before
    assert list(tmp_path.iterdir()) == [], "the doctor leaves nothing"


def test_what_is_wrong_makes_exit_code_1_and_the_same_command_is_what_comes_next(
    pharos: Pharos, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, said, _ = pharos("doctor", "--storage", tmp_path / "file", "--tracking-uri", "http://127.0.0.1:1")
    assert code == 1
    assert "wrong" in said
    assert f"next:    pharos doctor --storage {tmp_path / 'file'}" in said


def test_json_holds_verdicts_and_facts(pharos: Pharos, tmp_path: Path) -> None:
    code, said, _ = pharos("doctor", "--json", "--storage", tmp_path)
    told = json.loads(said)
    assert code == 0
    assert told["verdict"] in ("ok", "warning")
    assert {line["name"] for line in told["checks"]} >= {"versions", "memory", "storage", "tracking"}
    assert told["nodes"][0]["num_cpus"] == len(os.sched_getaffinity(0))


def test_an_address_that_does_not_answer_is_a_mistake_in_the_input(pharos: Pharos) -> None:
    code, _, errors = pharos("doctor", "--address", "127.0.0.1:1")
    assert code == 2
    assert "--address=127.0.0.1:1 does not answer" in errors


def test_the_table_of_a_cluster_fits_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    nodes = (a_node(0), a_node(1, max_open_files=1024))
    examination = an_examination(*nodes, cluster=a_cluster(*nodes))
    screen = Console(width=80, highlight=False)
    console_room.show_examination(examination, checks(examination), next_steps=["pharos plan x"], console=screen)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "10.0.0.2: 1,024 a process at most" in said
    assert "→ ulimit -Hn 65536" in said
    assert "verdict: warning (1 warning, 2 nodes, 9 s)" in said
