"""A stock Prometheus beside a Ray of two nodes, while the quickstart runs: every panel's queries have data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.ray_nodes import HOST, free_ports, ray_head, start_node
from tests.support.small_sweep import Workplace, finish, wait_until, workplace

from pharos.plan.events import RoundFinished

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "dashboards"
QUICKSTART = ROOT / "search_spaces" / "quickstart.yaml"
sys.path.insert(0, str(DASHBOARDS))

import look  # noqa: E402 (its folder is no package: it holds scripts)
from build import DASHBOARDS as BOARDS  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The quickstart, which has ended, and the Prometheus that watched it.

    result: its result.json. tops: what `pharos top` said meanwhile.
    """

    url: str
    ask: look.Ask
    result: dict[str, Any]
    tops: list[subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Iterator[Watched]:
    if shutil.which("prometheus") is None:
        pytest.skip(
            "prometheus is not installed; `make test-slow` installs it where apt is there: apt install prometheus"
        )
    place = workplace(tmp_path_factory.mktemp("watched"), small_base)
    place.name = "quickstart"
    shutil.copy(QUICKSTART, place.spec)
    prometheus_port, *rays_ports = free_ports(3)
    place.environment["RAY_metrics_report_interval_ms"] = "5000"
    # Otherwise the same for every Ray on a machine, and the first that came keeps them.
    for name, rays_port in zip(("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"), rays_ports, strict=True):
        place.environment[name] = str(rays_port)
    with ray_head(place) as head:
        start_node(place, place.root / "node.log", f"--address={head.address}", f"--node-ip-address={HOST}")
        url = start_prometheus(place, ray_directory=head.directory, port=prometheus_port)
        place.environment["RAY_ADDRESS"] = head.address
        started_s = time.time()
        prices = ("pool.price_per_node_hour=2.5", "pool.peak_tflops_per_worker=0.05")
        sweep = place.start("sweep", *(word for price in prices for word in ("--set", price)))
        wait_until(lambda: _has_trained(place) or sweep.poll() is not None, "nothing was trained")
        tops = [asked_top(place, *arguments) for arguments in (("quickstart", "--json"), ("--once",), ("large",))]
        run = finish(sweep)
        assert run.returncode == 0, run.stdout + run.stderr
        ask = look.prometheus(url, start_s=started_s, end_s=time.time())
        yield Watched(url=url, ask=ask, result=place.result(), tops=tops)


def asked_top(place: Workplace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`pharos top`, of the cluster that RAY_ADDRESS names."""
    return subprocess.run(
        [sys.executable, "-m", "pharos", "top", *arguments],
        cwd=place.root / "cwd",
        env=place.environment | {"COLUMNS": "120", "LINES": "40"},
        capture_output=True,
        text=True,
        check=False,
    )


def _has_trained(place: Workplace) -> bool:
    return any(isinstance(event, RoundFinished) for event in place.events())


def start_prometheus(place: Workplace, *, ray_directory: Path, port: int) -> str:
    """With the repository's own configuration, but for Ray's directory and how often it looks."""
    folder = place.root / "prometheus"
    shutil.copytree(DASHBOARDS / "prometheus", folder)
    config = folder / "prometheus.yml"
    text = config.read_text()
    for old, new in (("/tmp/ray/", f"{ray_directory}/"), ("_interval: 10s", "_interval: 3s")):
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    with (place.root / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={place.root / 'series'}"),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            env=place.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    place.started.append(process)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _answers(f"{url}/-/ready"), (place.root / "prometheus.log").read_text(), timeout_s=60)
    return url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_query_of_every_panel_has_data_but_those_that_need_a_gpu(watched: Watched) -> None:
    empty = [
        f"{board.title}: {panel.title}: {query.expr}"
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
        if panel.needs != "a GPU" and not watched.ask(query.expr)
    ]
    assert empty == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quickstart_finds_a_model_that_is_far_better_than_its_file_and_registers_it(watched: Watched) -> None:
    result = watched.result
    assert result["state"] == "COMPLETED"
    assert {trial["state"] for trial in result["trials"]} <= {"COMPLETED", "PRUNED", "DIVERGED"}
    winner, baseline = (result["trials"][result[who]] for who in ("best", "baseline"))
    assert winner["score"] < baseline["score"] / 2
    assert winner["test_metrics"]["test_exact_match"] > baseline["test_metrics"]["test_exact_match"]
    assert (result["registered"]["model"], result["registered"]["trial"]) == ("docker-assistant", winner["number"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_figures_are_those_of_the_sweep(watched: Watched) -> None:
    [done] = watched.ask('sum(max by (state) (ray_pharos_sweep_trials{state=~"COMPLETED|PRUNED|DIVERGED"}))')
    assert done.points[-1][1] == 24
    occupancy = watched.ask("pharos:pool_occupancy:ratio5m")
    assert all(0 < value <= 1 for series in occupancy for _, value in series.points)
    clocks = {series.labels["worker"] for series in watched.ask("ray_pharos_worker_clocks_total")}
    assert clocks == {"0", "1"}, "each worker tells of its own clocks, from its own node"
    gather = watched.ask('sum(ray_pharos_pool_seconds_total{part="gather"})')
    assert gather, "two workers share one base, so gathers take time"
    assert watched.ask("sum(ray_pharos_pool_seats)")[0].points[-1][1] == 8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_top_asks_the_desk_of_a_sweep_on_the_cluster(watched: Watched) -> None:
    as_json, once, wrong = watched.tops
    assert as_json.returncode == 0, as_json.stderr
    facts = json.loads(as_json.stdout)
    assert (facts["sweep"], facts["state"]) == ("quickstart", "RUNNING")
    assert facts["pools"][0]["shares"]["gather"] > 0
    assert once.returncode == 0, once.stderr
    assert "pool-0" in once.stdout
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "sweep=large does not run on the cluster at 127.0.0.1:" in wrong.stderr
    assert "There are: quickstart" in wrong.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prometheus_evaluates_every_rule_without_an_error(watched: Watched) -> None:
    with urllib.request.urlopen(f"{watched.url}/api/v1/rules") as answer:
        groups = json.load(answer)["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 16
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_draws_every_panel(watched: Watched) -> None:
    page = look.page(BOARDS, watched.ask)
    assert page.count("class=panel") == sum(len(board.panels) for board in BOARDS)
    assert page.count("no data") == sum(panel.needs == "a GPU" for board in BOARDS for panel in board.panels)


@pytest.mark.slow
def test_every_alert_fires_in_one_case_and_is_silent_in_another() -> None:
    if shutil.which("promtool") is None:
        pytest.skip(
            "promtool is not installed; `make test-slow` installs it where apt is there: apt install prometheus"
        )
    run = subprocess.run(
        ["promtool", "test", "rules", DASHBOARDS / "prometheus" / "tests" / "alerts.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
