"""The dashboards and rules in the repository: current, of metrics that exist, and as Grafana's own types read them."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from pharos.sweep import metrics as m

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dashboards"
sys.path.insert(0, str(FOLDER))

build, look = (importlib.import_module(name) for name in ("build", "look"))

RAYS = {
    *("autoscaler_pending_nodes", "autoscaler_recently_failed_nodes", "autoscaler_started_nodes_total"),
    *("autoscaler_stopped_nodes_total", "autoscaler_failed_create_nodes_total", "ray_cluster_active_nodes"),
    *("ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_mem_total", "ray_node_disk_utilization_percentage"),
    *("ray_node_network_send_speed", "ray_node_network_receive_speed"),
    *("ray_node_gpus_utilization", "ray_node_gram_used"),
}
"""What Ray 2.60 exports of itself; a slow test sees them in a Prometheus, but for those of GPUs."""
PROMETHEUS_OWN = {"up"}
WORDS = {
    *("sum", "max", "avg", "count", "rate", "by", "on", "and", "or", "unless", "group_left", "vector", "deriv"),
    *("changes", "max_over_time", "min_over_time", "clamp_min"),
}
ALERTS = yaml.safe_load((FOLDER / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
RECORDED = yaml.safe_load((FOLDER / "prometheus" / "recording.yml").read_text())["groups"][0]["rules"]
CASES = yaml.safe_load((FOLDER / "prometheus" / "tests" / "alerts.yml").read_text())["tests"]


def names_in(expr: str) -> set[str]:
    """Metrics of a query: what is left without braces, strings, ranges, label lists, functions and numbers."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expr)
    bare = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"[a-zA-Z_][\w:]*", bare)) - WORDS


@pytest.mark.parametrize("board", build.DASHBOARDS, ids=lambda board: board.name)
def test_the_json_is_what_the_script_writes(board: Any) -> None:
    written = (FOLDER / "grafana" / f"{board.name}.json").read_text(encoding="utf-8")
    assert written == build.texts()[board.name], "run: python dashboards/build.py"


@pytest.mark.parametrize("board", build.DASHBOARDS, ids=lambda board: board.name)
def test_every_panel_asks_for_metrics_that_are_declared_or_rays(board: Any) -> None:
    declared = {metric.exported for metric in m.METRICS}
    for panel in board.panels:
        for query in panel.queries:
            names = names_in(query.expr)
            assert names, query.expr
            assert names <= declared | RAYS | PROMETHEUS_OWN, f"{panel.title}: {query.expr}"


def test_every_declared_metric_is_shown_or_watched() -> None:
    asked = {
        name for board in build.DASHBOARDS for panel in board.panels for q in panel.queries for name in names_in(q.expr)
    }
    asked |= {name for rule in (*RECORDED, *ALERTS) for name in names_in(rule["expr"])}
    asked |= {m.RUNNING.exported, m.CLOCKS.exported}  # the lists of sweeps and pools to choose from
    assert {metric.exported for metric in m.METRICS} - asked == set()


@pytest.mark.parametrize("board", build.DASHBOARDS, ids=lambda board: board.name)
def test_grafanas_types_read_it_and_lose_nothing(board: Any) -> None:
    record = json.loads((FOLDER / "grafana" / f"{board.name}.json").read_text(encoding="utf-8"))
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(record)))
    assert again == record


@pytest.mark.parametrize("board", build.DASHBOARDS, ids=lambda board: board.name)
def test_panels_have_places_that_do_not_overlap(board: Any) -> None:
    record = json.loads((FOLDER / "grafana" / f"{board.name}.json").read_text(encoding="utf-8"))
    cells = [
        (x, y)
        for panel in record["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len(record["panels"]) == len(board.panels) + len(board.rows)
    assert record["uid"] == f"pharos-{board.name}"


def test_all_variables_of_the_queries_are_the_dashboards_own() -> None:
    for board in build.DASHBOARDS:
        record = json.loads((FOLDER / "grafana" / f"{board.name}.json").read_text(encoding="utf-8"))
        there = {variable["name"] for variable in record["templating"]["list"]}
        used = {name for panel in board.panels for q in panel.queries for name in re.findall(r"\$(\w+)", q.expr)}
        assert used <= there, f"{board.name} asks for {used - there}"
        assert not any("$" in look.concrete(q.expr) for panel in board.panels for q in panel.queries)


def test_rules_are_of_metrics_that_exist_and_of_each_other() -> None:
    known = {metric.exported for metric in m.METRICS} | RAYS | PROMETHEUS_OWN | {rule["record"] for rule in RECORDED}
    for rule in (*RECORDED, *ALERTS):
        assert names_in(rule["expr"]) <= known, rule


def test_every_alert_says_what_to_do_and_has_a_case_that_fires_and_one_that_does_not() -> None:
    for alert in ALERTS:
        assert len(alert["annotations"]["runbook"]) > 100
        assert alert["labels"]["severity"] in ("warning", "critical")
        mine = [case for case in CASES if case["name"].startswith(f"{alert['alert']} ")]
        fires = [any(test["exp_samples"] for test in case["promql_expr_test"]) for case in mine]
        assert sorted(fires) == [False, True], alert["alert"]


def test_prometheus_and_grafana_find_each_other_and_their_files() -> None:
    config = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())
    for name in config["rule_files"]:
        assert (FOLDER / "prometheus" / name).is_file()
    [job] = config["scrape_configs"]
    assert job["job_name"] == "ray"
    assert job["file_sd_configs"][0]["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    provisioning = FOLDER / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["name"]) == ("prometheus", "Prometheus")
    providers = yaml.safe_load((provisioning / "dashboards" / "pharos.yml").read_text())["providers"]
    assert [provider["folder"] for provider in providers] == ["Pharos", "Ray"]
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    assert Path(job["file_sd_configs"][0]["files"][0]).name == PROMETHEUS_SERVICE_DISCOVERY_FILE


def test_a_page_without_data_says_so_for_every_panel() -> None:
    page = look.page(build.DASHBOARDS, lambda _: [])
    assert page.count("no data") == sum(len(board.panels) for board in build.DASHBOARDS)


def test_a_page_draws_what_it_is_told() -> None:
    series = look.Series(labels={"sweep": "s", "pool": "pool-0", "state": "RUNNING"}, points=((0.0, 1.0), (10.0, 2.0)))
    page = look.page(build.DASHBOARDS, lambda _: [series])
    assert "no data" not in page
    assert "s pool-0" in page
    assert series.named("{{sweep}} {{pool}} {{missing}}") == "s pool-0"


def test_the_script_writes_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(look, "prometheus", lambda url, **_: lambda _: [])
    monkeypatch.setattr(sys, "argv", ["look.py", "--minutes", "10", "--output", str(tmp_path / "page.html")])
    look.main()
    assert "written" in capsys.readouterr().out
    assert "Pharos / Pools" in (tmp_path / "page.html").read_text()


def test_where_no_prometheus_answers_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--prometheus=http://127.0.0.1:9 does not answer"):
        look.prometheus("http://127.0.0.1:9", start_s=0.0, end_s=1.0)("up")
