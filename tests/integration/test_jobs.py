"""Sweeps as jobs of a real cluster that wants a token, and a sweep of this machine from another terminal.

The head is started as cluster/README.md says; commands are typed in an empty directory.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.ray_nodes import free_ports, start_node
from tests.support.small_sweep import HEARING_INTERRUPTS, Finished, Workplace, finish, wait_until, workplace

from pharos.sweep.paths import lock_holder

NUM_TRIALS = 12
SEARCH = {"num_trials": NUM_TRIALS, "space": {"optim.learning_rate": {"log_uniform": [1e-5, 3e-2]}}}
POOL = {"workers": 2, "seats_per_worker": 2, "sharding": "replicate"}
TRAIN = {"max_steps": 160, "batch_size": 8, "micro_batch_size": 4, "report_every": 16}
"""Long enough that a command which is typed when the first trial has ended comes before the last one has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    place: Workplace
    token: str
    url: str
    dashboard_port: int
    agent_port: int
    directory: Path

    @property
    def storage(self) -> Path:
        return self.place.root / "results"

    def pharos(self, *arguments: str, **environment: str) -> Finished:
        return pharos(self.place, *arguments, "--address", self.url, **environment)

    def status(self, sweep: str) -> dict[str, Any]:
        said = self.pharos("status", sweep, "--json")
        assert said.returncode == 0, said.stderr
        return dict(json.loads(said.stdout)[0])


def pharos(place: Workplace, *arguments: str, **environment: str) -> Finished:
    return finish(start(place, *arguments, **environment))


def start(place: Workplace, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*HEARING_INTERRUPTS, sys.executable, "-m", "pharos", *arguments],
        cwd=place.root / "cwd",
        env=place.environment | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    place.started.append(process)
    return process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Iterator[Cluster]:
    """A head with a token; `python` is the one of these tests, as in the environment of a cluster's image."""
    place = workplace(tmp_path_factory.mktemp("jobs"), small_base, search=SEARCH, pool=POOL)
    place.write_spec(base=str(place.root / "base"), search=SEARCH, pool=POOL, train=TRAIN)
    token = secrets.token_hex(32)
    mine = place.environment | {"RAY_AUTH_TOKEN": token}
    place.environment = mine | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    port, client, dashboard, agent, metrics = free_ports(5)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        try:
            start_node(
                place,
                place.root / "head.log",
                *("--head", f"--port={port}", f"--temp-dir={directory}", f"--ray-client-server-port={client}"),
                # A second Ray of a machine needs an agent's port of its own, or no job can run.
                *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
                f"--metrics-export-port={metrics}",
                num_cpus=4,
                # As where a script has started it in the background: what runs on it inherits that.
                under=("env", "--ignore-signal=INT"),
            )
            yield Cluster(
                place=place,
                token=token,
                url=f"http://127.0.0.1:{dashboard}",
                dashboard_port=dashboard,
                agent_port=agent,
                directory=Path(directory),
            )
        finally:
            place.end_everything()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_is_submitted_stopped_and_resumed_by_its_name(cluster: Cluster) -> None:
    place, name = cluster.place, cluster.place.name
    submitted = cluster.pharos("submit", str(place.spec), "--storage", str(cluster.storage))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert submitted.stdout.startswith(f"{name} submitted as job pharos-{name}-0001 of {cluster.url}\n")
    assert f"{name}  {NUM_TRIALS} trials over" in submitted.stdout, "the plan, as the cluster sees it"
    assert f"pharos stop {name} --address {cluster.url}" in submitted.stdout
    status = cluster.status(name)
    assert (status["state"], status["status"]["num_trials"]) == ("RUNNING", NUM_TRIALS)
    again = cluster.pharos("submit", str(place.spec), "--storage", str(cluster.storage))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert f"runs on {cluster.url} already, as job pharos-{name}-0001" in again.stderr

    wait_until(lambda: any(event.kind == "trial_ended" for event in place.events()), "no trial has ended")
    stopped = cluster.pharos("stop", name)
    assert stopped.returncode == 0, stopped.stderr
    assert f"resume  pharos resume {name} --address {cluster.url}" in stopped.stdout
    assert lock_holder(place.paths) is None, "the driver has ended"
    before = place.ledger()
    done = {number for number, trial in before.trials.items() if trial.state.is_final}
    assert 0 < len(done) < NUM_TRIALS
    status = cluster.status(name)
    assert (status["state"], status["status"]["num_trials"]) == ("STOPPED", NUM_TRIALS)
    nothing = cluster.pharos("stop", name)
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)

    resumed = cluster.pharos("resume", name, "--wait")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert f"{name} resumed as job pharos-{name}-0002" in resumed.stdout
    assert "pharos-status" not in resumed.stdout
    assert cluster.status(name)["state"] == "COMPLETED"
    ended = Counter(event.number for event in place.events() if event.kind == "trial_ended")
    assert ended == dict.fromkeys(range(NUM_TRIALS), 1), "each trial once, whatever session it was in"
    after = place.ledger()
    for number in done:
        assert after.trials[number].evaluations == before.trials[number].evaluations, (
            "finished trials are kept as they were"
        )
    compared = pharos(place, "compare", name, "--storage", str(cluster.storage), "--json")
    assert compared.returncode == 0, compared.stderr
    everything = cluster.pharos("logs", name)
    assert "small-0" in everything.stdout
    assert list((place.root / "cwd").iterdir()) == []
    assert not _holding(cluster.token, cluster.storage, cluster.directory)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rays_own_command_runs_a_sweep_from_a_checkout(cluster: Cluster, small_base: Path) -> None:
    """`ray job submit --working-dir . -- python -m pharos sweep ...`, in a directory with results and a .venv."""
    checkout = cluster.place.root / "checkout"
    for folder in (".venv", "pharos-results", "search_spaces"):
        (checkout / folder).mkdir(parents=True)
    for folder in (".venv", "pharos-results"):
        (checkout / folder / "large").write_bytes(b"\0" * 1000)
    (checkout / ".gitignore").write_text((Path(__file__).parents[2] / ".gitignore").read_text())
    rows = (cluster.place.root / "rows.jsonl").read_text()
    (checkout / "search_spaces" / "rows.jsonl").write_text(rows)
    (checkout / "search_spaces" / "x.yaml").write_text(cluster.place.spec.read_text())

    def submit(*arguments: str) -> Finished:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "job", "submit", "--address", cluster.url, "--working-dir", ".", "--"]
        command += ["python", "-m", "pharos", "sweep", "search_spaces/x.yaml", "--set", "name=typed", *arguments]
        environment = cluster.place.environment | {"RAY_AUTH_MODE": "token"}
        process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        cluster.place.started.append(process)
        return finish(process)

    relative = submit()
    assert relative.returncode != 0
    assert "storage=pharos-results is relative, and a job's working directory is deleted" in relative.stdout
    smaller = ("search.num_trials=3", "train.max_steps=16", "train.report_every=4")
    run = submit(*(word for each in smaller for word in ("--set", each)), "--storage", str(cluster.storage))
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((cluster.storage / "typed" / "result.json").read_text())
    assert (result["state"], len(result["trials"])) == ("COMPLETED", 3)
    kept = cluster.storage / "typed" / "submitted"
    assert {str(path.relative_to(kept)) for path in kept.rglob("*")} == {"x.yaml", "rows.jsonl"}
    unpacked = list(cluster.directory.rglob("working_dir_files/*"))
    assert unpacked
    assert not [path for path in unpacked if path.is_dir() and {".venv", "pharos-results"} & set(os.listdir(path))]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_but_figures_is_answered_without_the_token(cluster: Cluster) -> None:
    for verb in ("status", "logs", "stop", "resume"):
        for token, said in (("", "wants the cluster's token"), ("0" * 64, "the one that was found here is another")):
            refused = cluster.pharos(
                verb, "small", RAY_AUTH_TOKEN=token, RAY_AUTH_MODE="token" if token else "disabled"
            )
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
            assert said in refused.stderr
            assert cluster.token not in refused.stderr
    body = json.dumps({"entrypoint": "touch /tmp/never"}).encode()
    request = urllib.request.Request(f"{cluster.url}/api/jobs/", data=body, method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request)
    dashboard, agent = cluster.dashboard_port, cluster.agent_port
    for port, path in ((dashboard, "/api/version"), (agent, "/api/job_agent/jobs/"), (dashboard, "/api/v0/actors")):
        assert _answer(port, path) == 401
    for listening in _listening(cluster.place):
        for path in ("/api/jobs/", "/api/job_agent/jobs/"):
            assert _answer(listening.port, path) in (None, "figures", 401, 404), listening


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_of_this_machine_is_seen_stopped_and_resumed_and_listens_on_loopback(
    tmp_path: Path, small_base: Path
) -> None:
    place = workplace(tmp_path, small_base, search=SEARCH, pool=POOL, train=TRAIN)
    where = ("--storage", str(place.root / "results"))
    try:
        running = place.start("sweep")
        wait_until(lambda: any(e.kind == "trial_ended" for e in place.events()), "no trial has ended")
        sockets = _listening(place)
        assert len(sockets) > 5
        # torch's rendezvous cannot be bound: one port of the pool's first worker is open, and speaks no HTTP.
        beyond = [listening for listening in sockets if not listening.is_loopback]
        assert all(listening.command.startswith("ray::RayTrainWorker") for listening in beyond), beyond
        assert len(beyond) <= 1
        assert {_answer(listening.port, "/api/jobs/") for listening in sockets} == {None, "figures", 401}

        said = json.loads(pharos(place, "status", place.name, *where, "--json").stdout)[0]
        assert (said["state"], said["where"].split(" of ")[0]) == ("RUNNING", f"process {running.pid}")
        stopped = pharos(place, "stop", place.name, *where)
        assert stopped.returncode == 0, stopped.stderr
        assert f"pharos resume {place.name}" in stopped.stdout
        assert finish(running).returncode == 130
        assert place.processes() == []
        resumed = pharos(place, "resume", place.name, *where)
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr
        ended = Counter(event.number for event in place.events() if event.kind == "trial_ended")
        assert ended == dict.fromkeys(range(NUM_TRIALS), 1)
        assert place.ledger().ended is not None
    finally:
        place.end_everything()


@dataclass(frozen=True, slots=True)
class Listening:
    address: str
    port: int
    command: str

    @property
    def is_loopback(self) -> bool:
        return self.address.removeprefix("::ffff:").startswith("127.") or self.address == "::1"


def _listening(place: Workplace) -> list[Listening]:
    """Every TCP socket on which a process of a place waits for connections."""
    found = []
    for pid in place.processes():
        try:
            process = psutil.Process(pid)
            sockets, command = process.net_connections("tcp"), " ".join(process.cmdline())[:80]
        except psutil.NoSuchProcess:
            continue
        found += [Listening(s.laddr.ip, s.laddr.port, command) for s in sockets if s.status == psutil.CONN_LISTEN]
    return found


def _answer(port: int, path: str) -> int | str | None:
    """What a port answers to a request without a token: `figures` for Prometheus; none where it is not HTTP."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return "figures" if answer.read(7) == b"# HELP " else int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return None


def _holding(secret: str, *folders: Path) -> list[Path]:
    """Files that hold a secret."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if secret.encode() in path.read_bytes()]
