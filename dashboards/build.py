"""python dashboards/build.py: write grafana/*.json from the boards beside it, with Grafana's own typed builder.

A test holds the files to what this writes. Queries live in the boards alone.
"""

from __future__ import annotations

from pathlib import Path

from cluster_board import CLUSTER
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from pools_board import POOLS_BOARD
from shapes import Dashboard, Panel, Query
from sweep_board import SWEEP

DASHBOARDS = (SWEEP, POOLS_BOARD, CLUSTER)
FOLDER = Path(__file__).parent / "grafana"
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHTS = {"number": 4, "lines": 8, "areas": 8, "timeline": 8}
COLORS = {
    "RUNNING": "blue",
    "WAITING": "gray",
    "COMPLETED": "green",
    "PRUNED": "light-green",
    "STOPPED": "yellow",
    "DIVERGED": "orange",
    "FAILED": "red",
}
"""Of trial states, the same wherever they are shown."""

AnyPanel = stat.Panel | timeseries.Panel | statetimeline.Panel


def main() -> None:
    for name, text in texts().items():
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"written: {FOLDER / name}.json")


def texts() -> dict[str, str]:
    """Each dashboard's JSON by its name."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {board.name: encoder.encode(built(board)) + "\n" for board in DASHBOARDS}


def built(board: Dashboard) -> models.Dashboard:
    builder = (
        builders.Dashboard(board.title)
        .uid(f"pharos-{board.name}")
        .description(board.says)
        .tags(["pharos"])
        .readonly()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("Pharos")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["pharos"])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in _variables(board):
        builder = builder.with_variable(variable)
    for row in board.rows:
        builder = builder.with_row(builders.Row(row.title))
        for panel in row.panels:
            builder = builder.with_panel(_panel(panel))
    return builder.build()


def _variables(
    board: Dashboard,
) -> list[builders.DatasourceVariable | builders.QueryVariable | builders.IntervalVariable]:
    """The data source, sweeps, pools where the dashboard is of them, and over what time rates are taken."""
    source = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    window = (
        builders.IntervalVariable("window")
        .label("Rates over")
        .values("1m,5m,15m,1h")
        .current(models.VariableOption(text="1m", value="1m"))
    )
    choices = [_choice("sweep", "Sweep", "label_values(ray_pharos_sweep_running, sweep)")]
    if board.of_pools:
        choices.append(_choice("pool", "Pool", 'label_values(ray_pharos_pool_clocks_total{sweep=~"$sweep"}, pool)'))
    return [source, *choices, window]


def _choice(name: str, label: str, query: str) -> builders.QueryVariable:
    """Any number of a label's values; all of them at first."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .query({"query": query, "refId": name})
        .datasource(DATASOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all"))
    )


def _panel(panel: Panel) -> AnyPanel:
    made: AnyPanel
    match panel.kind:
        case "number":
            made = _number(panel)
        case "timeline":
            made = _timeline(panel)
        case _:
            made = _chart(panel)
    made = made.title(panel.title).description(_described(panel)).datasource(DATASOURCE).unit(panel.unit)
    made = made.span(panel.width).height(HEIGHTS[panel.kind]).min(0)
    if panel.decimals is not None:
        made = made.decimals(panel.decimals)
    if panel.maximum is not None:
        made = made.max(panel.maximum)
    for place, query in enumerate(panel.queries):
        made = made.with_target(_target(query, chr(ord("A") + place), instant=panel.kind == "number"))
    return made


def _described(panel: Panel) -> str:
    return f"{panel.says}. Needs {panel.needs}." if panel.needs else f"{panel.says}."


def _target(query: Query, ref: str, *, instant: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref).datasource(DATASOURCE)
    return target.instant() if instant else target.range()


def _number(panel: Panel) -> stat.Panel:
    limits = panel.limits or ((0, "text"),)
    steps = [models.Threshold(value=None if start == 0 else start, color=color) for start, color in limits]
    return (
        stat.Panel()
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    )


def _chart(panel: Panel) -> timeseries.Panel:
    stacked = panel.kind == "areas"
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(60 if stacked else 8)
        .span_nulls(False)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs([])
        )
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    )
    if stacked:
        made = made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        for state, color in COLORS.items() if panel.title == "Trials by state" else ():
            fixed = models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})
            made = made.override_by_name(state, [fixed])
    return made


def _timeline(panel: Panel) -> statetimeline.Panel:
    steps = [models.Threshold(value=None, color="gray"), models.Threshold(value=1, color="green")]
    return (
        statetimeline.Panel()
        .show_value(common.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .mappings(
            [
                models.ValueMap(
                    options={
                        "0": models.ValueMappingResult(text="free", index=0),
                        "1": models.ValueMappingResult(text="taken", index=1),
                    }
                )
            ]
        )
    )


if __name__ == "__main__":
    main()
