"""What the four dashboards are made of: panels, variables, links and annotations in one style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
TITLES = {"overview": "Overview", "protocol": "Protocol", "network": "Network", "node": "Node"}
STATES = {"0": ("joining", "blue"), "1": ("active", "green"), "2": ("accused", "orange"), "3": ("banned", "red"),
          "4": ("gone", "yellow")}  # fmt: skip
YES_NO = {"0": ("no", "text"), "1": ("yes", "purple")}


@dataclass(frozen=True, slots=True)
class Show:
    """One panel.

    Args:
        title, about: its name, and what it says when one asks.
        queries: expressions with the legends of their series.
        kind: graph, bars (stacked), stat, states, heatmap, table or matrix.
        unit: Grafana's name of it.
        width, height: of the grid's 24 columns, and its rows.
        names: texts and colours of values, for states.
        label: the label that names the node a series is about; its legend leads to the Node dashboard.
    """

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "graph"
    unit: str = "short"
    width: int = 12
    height: int = 8
    names: dict[str, tuple[str, str]] | None = None
    label: str | None = None


def uid(name: str) -> str:
    """The address of a dashboard: `/d/btard-overview`."""
    return f"btard-{name}"


def panel(show: Show) -> Any:
    """The builder of a panel."""
    made: Any = _KINDS[show.kind](show)
    made.title(show.title).description(show.about).unit(show.unit).span(show.width).height(show.height)
    made.datasource(SOURCE)
    if show.names is not None:
        made.mappings([_value_map(show.names)])
    links = [_to_node(show.label)] if show.label is not None else []
    return made.data_links(links)


def frame(name: str) -> dashboard.Dashboard:
    """An empty dashboard with the variables, links and annotations that all of them have."""
    made = dashboard.Dashboard(f"BTARD {TITLES[name]}").uid(uid(name)).tags(["btard"]).refresh("5s").editable()
    made.time("now-15m", "now").timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    made.with_variable(_choice("run_id", "Run", "label_values(btard_run_info, run_id)"))
    made.with_variable(_choice("compare_run", "Compare with", "label_values(btard_run_info, run_id)"))
    for other, title in TITLES.items():
        if other != name:
            link = dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(f"/d/{uid(other)}")
            made.link(link.include_vars(True).keep_time(True))
    for title, color, expression, text in ANNOTATIONS:
        query = prometheus.Dataquery().expr(expression).ref_id("Anno").range()
        made.annotation(
            dashboard.AnnotationQuery().name(title).datasource(SOURCE).enable(True).icon_color(color)
            .target(query).expr(expression).title_format(title).text_format(text).step("1s")
        )  # fmt: skip
    # What the launcher wrote through Grafana's API, as regions.
    target = dashboard.AnnotationTarget().limit(100).match_any(False).tags(["btard", "$run_id"]).type("tags")
    own = common.DataSourceRef(type_val="grafana", uid="-- Grafana --")
    regions = dashboard.AnnotationQuery().name("From the launcher").datasource(own).enable(True).icon_color("purple")
    return made.annotation(regions.target(target))


def attacked(comparison: str) -> str:
    """True where an attack is on, or where it was on between two scrapes or before the first: attackers may be caught
    within less than a second. `comparison` is for the steps that it has gained."""
    chosen = '{run_id="$run_id", attack!="none"}'
    steps = f"btard_attack_steps_total{chosen}"
    # One series for each attack: `or` alone would give two, one with the metric's name.
    gained = f"{steps} - ({steps} offset 3s or 0 * {steps})"
    return f"max by (attack) (btard_attack_active{chosen} == 1 or {gained} {comparison})"


ANNOTATIONS = (
    ("Attack", "orange", attacked("> 0"), "{{attack}}"),
    ("Ban", "red", 'changes(run_id_peer:btard_banned:max{run_id="$run_id"}[5s]) > 0', "peer {{peer}}"),
)
"""Name, colour, expression and text; samples that follow each other make one region."""


def node_choice() -> dashboard.QueryVariable:
    """The variable of the Node dashboard."""
    return _choice("node", "Node", 'label_values(btard_step{run_id="$run_id"}, node)', newest=False)


def _choice(name: str, label: str, query: str, newest: bool = True) -> dashboard.QueryVariable:
    """A variable whose values Prometheus knows; run ids begin with the time, so the newest comes first."""
    sort = models.VariableSort.ALPHABETICAL_DESC if newest else models.VariableSort.NATURAL_ASC
    made = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query({"query": query, "refId": name})
    return made.definition(query).refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(sort)


def _to_node(label: str) -> dashboard.DashboardLink:
    where = f"/d/{uid('node')}?${{run_id:queryparam}}&var-node=${{__field.labels.{label}}}&${{__url_time_range}}"
    return dashboard.DashboardLink(f"Node ${{__field.labels.{label}}}").type(models.DashboardLinkType.LINK).url(where)


def _value_map(names: dict[str, tuple[str, str]]) -> models.ValueMap:
    return models.ValueMap({value: models.ValueMappingResult(text=text, color=color, index=place)
                            for place, (value, (text, color)) in enumerate(names.items())})  # fmt: skip


def _targets(show: Show, instant: bool = False, shape: PromQueryFormat | None = None) -> list[prometheus.Dataquery]:
    made = []
    for place, (expression, legend) in enumerate(show.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + place))
        query = query.datasource(SOURCE)
        query = query if shape is None else query.format(shape)
        made.append(query.instant() if instant else query.range())
    return made


def _graph(show: Show) -> timeseries.Panel:
    made = timeseries.Panel().targets(_targets(show)).line_width(1).fill_opacity(8)
    made.show_points(common.VisibilityMode.NEVER)
    legend = common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.RIGHT)
    made.legend(legend.display_mode(common.LegendDisplayMode.TABLE).calcs(["lastNotNull"]))
    return made.tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))


def _bars(show: Show) -> timeseries.Panel:
    stacked = common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
    return _graph(show).stacking(stacked).fill_opacity(60)


def _stat(show: Show) -> stat.Panel:
    made = stat.Panel().targets(_targets(show)).graph_mode(common.BigValueGraphMode.AREA)
    return made.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))


def _states(show: Show) -> statetimeline.Panel:
    made = statetimeline.Panel().targets(_targets(show)).merge_values(True).row_height(0.8).line_width(0)
    return made.show_value(common.VisibilityMode.NEVER).fill_opacity(80)


def _heatmap(show: Show) -> heatmap.Panel:
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    made = heatmap.Panel().targets(_targets(show, shape=PromQueryFormat.HEATMAP)).color(colors)
    return made.y_axis(heatmap.YAxisConfig().unit("s"))


def _table(show: Show) -> table.Panel:
    made = table.Panel().targets(_targets(show, instant=True, shape=PromQueryFormat.TABLE))
    hidden = dict.fromkeys(("Time", "__name__", "instance", "job", "run_id"), True)
    return made.with_transformation(models.DataTransformerConfig("organize", options={"excludeByName": hidden}))


def _matrix(show: Show) -> table.Panel:
    """One row for each sender, one column for each receiver."""
    made = table.Panel().targets(_targets(show, instant=True, shape=PromQueryFormat.TABLE))
    options = {"rowField": "node", "columnField": "peer", "valueField": "Value"}
    return made.with_transformation(models.DataTransformerConfig("groupingToMatrix", options=options))


_KINDS = {"graph": _graph, "bars": _bars, "stat": _stat, "states": _states, "heatmap": _heatmap, "table": _table,
          "matrix": _matrix}  # fmt: skip
