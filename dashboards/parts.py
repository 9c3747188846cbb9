"""What the four dashboards are made of: panels, variables, links and annotations in one style."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TITLES = {"overview": "Overview", "protocol": "Protocol", "network": "Network", "node": "Node"}
STATES = {"0": ("joining", "blue"), "1": ("active", "green"), "2": ("accused", "orange"), "3": ("banned", "red"),
          "4": ("gone", "yellow")}  # fmt: skip
YES_NO = {"0": ("no", "text"), "1": ("yes", "purple")}

Colors = tuple[tuple[float | None, str], ...]
NEUTRAL: Colors = ((None, "text"),)
"""For a value that is neither good nor bad: the colour of ordinary text."""
_TOP = {"count": 5.0, "percentunit": 0.01, "s": 0.01, "decbytes": 1000.0, "Bps": 1000.0}
"""How far an axis reaches at least, by unit, so that a line at zero lies at the bottom and noise is not magnified."""
_HOME = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["tool"]["btard"]["homepage"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        source: the label, or `Value #A` for the first query's value.
        title: its heading; empty: the column is left out.
        unit: Grafana's name of it.
        names: texts and colours of values.
        width: pixels; None: its share of what the others leave.
    """

    source: str
    title: str
    unit: str | None = None
    names: Mapping[str, tuple[str, str]] | None = None
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Show:
    """One panel.

    Args:
        title, about: its name, and what it says when one asks.
        queries: expressions with the legends of their series.
        kind: graph, bars (stacked), stat, name (a stat that shows its legend), states, heatmap, table or matrix.
        unit: Grafana's name of it; `count` for whole numbers.
        width, height: of the grid's 24 columns, and its rows.
        names: texts and colours of values, for states and stats.
        label: the label that names the node a series is about; its legend leads to the Node dashboard.
        colors: a stat's colours, each with the value from which it holds; the first from None.
        empty: what stands there without any data.
        top: how far a graph's axis reaches at least; None: as its unit asks for.
        columns: of a table with several queries, which are merged by their labels, in order.
    """

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "graph"
    unit: str = "short"
    width: int = 12
    height: int = 8
    names: Mapping[str, tuple[str, str]] | None = None
    label: str | None = None
    colors: Colors = NEUTRAL
    empty: str | None = None
    top: float | None = None
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """The panels that answer one question, under it.

    Args:
        guide: the page below docs/ that explains them, with its anchor.
        folded: closed until it is clicked, for what few runs have, or what is zero in most.
    """

    question: str
    guide: str
    panels: tuple[Show, ...]
    folded: bool = False


def uid(name: str) -> str:
    """The address of a dashboard: `/d/btard-overview`."""
    return f"btard-{name}"


def guide(where: str, home: str = _HOME) -> str:
    """A page below docs/, as a link in Markdown where the project has a homepage."""
    return f"[docs/{where}]({home}/blob/HEAD/docs/{where})" if home else f"docs/{where}"


def panel(show: Show, explained: str) -> Any:
    """The builder of a panel; `explained` is its page of the guide."""
    made: Any = _KINDS[show.kind](show)
    made.title(show.title).description(f"{show.about} Guide: {guide(explained)}").span(show.width).height(
        show.height
    ).datasource(SOURCE)
    if show.unit == "count":
        made.unit("none").decimals(0)
    else:
        made.unit(show.unit)
    if show.empty is not None:
        made.no_value(show.empty)
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
    for title, color, expression, _ in ANNOTATIONS:
        query = dashboard.AnnotationQuery().name(title).datasource(SOURCE).enable(True).icon_color(color)
        made.annotation(query.expr(expression))
    # What the launcher wrote through Grafana's API, as regions.
    target = dashboard.AnnotationTarget().limit(100).match_any(False).tags(["btard", "$run_id"]).type("tags")
    own = models.DataSourceRef(type_val="grafana", uid="-- Grafana --")
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


def asked_of_prometheus() -> dict[str, dict[str, Any]]:
    """What annotations hold for their data source alone, by name: Grafana's schema leaves that open."""
    return {
        title: {
            "target": prometheus.Dataquery().expr(expression).ref_id("Anno").range().interval("1s").build().to_json(),
            "step": "1s",
            "titleFormat": title,
            "textFormat": text,
        }
        for title, _, expression, text in ANNOTATIONS
    }


def node_choice() -> dashboard.QueryVariable:
    """The variable of the Node dashboard."""
    return _choice("node", "Node", 'label_values(btard_step{run_id="$run_id"}, node)', newest=False)


def _choice(name: str, label: str, query: str, newest: bool = True) -> dashboard.QueryVariable:
    """A variable whose values Prometheus knows; run ids begin with the time, so the newest comes first."""
    sort = models.VariableSort.ALPHABETICAL_DESC if newest else models.VariableSort.NATURAL_ASC
    made = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query({"query": query, "refId": name})
    return made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(sort)


def _to_node(label: str) -> dashboard.DashboardLink:
    where = f"/d/{uid('node')}?${{run_id:queryparam}}&var-node=${{__field.labels.{label}}}&${{__url_time_range}}"
    return dashboard.DashboardLink(f"Node ${{__field.labels.{label}}}").type(models.DashboardLinkType.LINK).url(where)


def _value_map(names: Mapping[str, tuple[str, str]]) -> models.ValueMap:
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
    made = made.axis_soft_min(0) if show.unit == "short" else made.min(0)  # a loss may lie below zero
    made.axis_soft_max(_TOP.get(show.unit, 1.0) if show.top is None else show.top)
    # One line for most panels, where a table at the side took up to three fifths of the width; values are hovered over.
    legend = common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    made.legend(legend.display_mode(common.LegendDisplayMode.LIST).calcs([]))
    return made.tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))


def _bars(show: Show) -> timeseries.Panel:
    stacked = common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
    return _graph(show).stacking(stacked).fill_opacity(60)


def _colored(made: Any, colors: Colors) -> Any:
    """Its colours are always said: Grafana's own, green below 80 and red above, mean nothing here."""
    steps = [models.Threshold(value, color) for value, color in colors]
    limits = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    return made.thresholds(limits).color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))


def _stat(show: Show) -> stat.Panel:
    made: stat.Panel = _colored(stat.Panel().targets(_targets(show)), show.colors)
    made.graph_mode(common.BigValueGraphMode.NONE if show.names else common.BigValueGraphMode.AREA)
    return made.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))


def _name(show: Show) -> stat.Panel:
    """The legend in the colour of the value; asked for the end of the time that is shown, since legends may change."""
    made = _stat(show).targets(_targets(show, instant=True)).graph_mode(common.BigValueGraphMode.NONE)
    return made.text_mode(common.BigValueTextMode.NAME)


def _states(show: Show) -> statetimeline.Panel:
    made = statetimeline.Panel().targets(_targets(show)).merge_values(True).row_height(0.8).line_width(0)
    return made.show_value(common.VisibilityMode.AUTO).fill_opacity(80)


def _heatmap(show: Show) -> heatmap.Panel:
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    made = heatmap.Panel().targets(_targets(show, shape=PromQueryFormat.HEATMAP)).color(colors)
    return made.y_axis(heatmap.YAxisConfig().unit("s"))


def _table(show: Show) -> table.Panel:
    made: table.Panel = _colored(table.Panel(), NEUTRAL)
    made.targets(_targets(show, instant=True, shape=PromQueryFormat.TABLE))
    if not show.columns:
        hidden = dict.fromkeys(("Time", "Value", "__name__", "instance", "job", "run_id"), True)
        return made.with_transformation(models.DataTransformerConfig("organize", options={"excludeByName": hidden}))
    made.with_transformation(models.DataTransformerConfig("merge", options={}))
    shown = [column for column in show.columns if column.title]
    options = {
        "excludeByName": {"Time": True, **{column.source: True for column in show.columns if not column.title}},
        "indexByName": {column.source: place for place, column in enumerate(shown)},
        "renameByName": {column.source: column.title for column in shown},
    }
    made.with_transformation(models.DataTransformerConfig("organize", options=options))
    for column in shown:
        properties = [] if column.unit is None else [models.DynamicConfigValue("unit", column.unit)]
        if column.unit == _A_TIME:  # a number for Grafana, which would touch the words beside it
            properties.append(models.DynamicConfigValue("custom.align", common.FieldTextAlignment.LEFT))
        if column.width is not None:
            properties.append(models.DynamicConfigValue("custom.width", column.width))
        if not column.source.startswith("Value") and show.empty is not None:
            # What stands in an empty table would stand in each of its empty cells, too.
            properties.append(models.DynamicConfigValue("noValue", ""))
        if column.names is not None:
            properties.append(models.DynamicConfigValue("mappings", [_value_map(column.names)]))
            color = {"type": common.TableCellDisplayMode.COLOR_TEXT}
            properties.append(models.DynamicConfigValue("custom.cellOptions", color))
        if properties:
            made.override_by_name(column.title, properties)
    return made


def _matrix(show: Show) -> table.Panel:
    """One row for each sender, one column for each receiver; the more in a cell, the more of one hue it has."""
    made: table.Panel = _colored(table.Panel(), NEUTRAL)
    made.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.CONTINUOUS_BLUES)).min(0)
    made.cell_options(common.TableColoredBackgroundCellOptions(common.TableCellBackgroundDisplayMode.BASIC))
    made.targets(_targets(show, instant=True, shape=PromQueryFormat.TABLE))
    head = "node\\peer"
    for kind, options in (
        ("sortBy", {"sort": [{"field": "peer"}]}),  # columns stand in the order in which they occur
        ("groupingToMatrix", {"rowField": "node", "columnField": "peer", "valueField": "Value"}),
        ("sortBy", {"sort": [{"field": head}]}),
    ):
        made.with_transformation(models.DataTransformerConfig(kind, options=options))
    # Else the ids of the rows would be bytes, too.
    plain = models.DynamicConfigValue("custom.cellOptions", {"type": common.TableCellDisplayMode.AUTO})
    return made.override_by_name(head, [models.DynamicConfigValue("unit", "string"), plain])


_A_TIME = "dateTimeAsIso"
_KINDS = {"graph": _graph, "bars": _bars, "stat": _stat, "name": _name, "states": _states,
          "heatmap": _heatmap, "table": _table, "matrix": _matrix}  # fmt: skip
