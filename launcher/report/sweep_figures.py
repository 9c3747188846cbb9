"""Curves of a sweep's page: the report's Figures 3 to 6, and any other sweep's groups."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from btard.launcher.figures import chart, svg
from btard.launcher.figures.chart import Axis, Band, Dot, Series
from btard.launcher.figures.svg import Figure
from btard.launcher.report.published import FINALS
from btard.launcher.report.sweep_data import NO_ATTACK, SEEDS, SweepData, grouped
from btard.launcher.sweep.plans import AGGRESSIVE, ATTACKS, CLEAN, MILD
from btard.launcher.sweep.rows import Row

COLOURS = {NO_ATTACK: "#7f7f7f", **dict(zip(ATTACKS, svg.COLOURS, strict=False))}


def report_figures(sweep: SweepData, control: str = "") -> list[Figure]:
    """The report's Figures 3 to 6 from our runs: all attacks in one chart, the median where there are several runs."""
    wanted = (
        ("figure3", "Figure 3: loss, aggressive", AGGRESSIVE, "loss", Axis("training loss", 0.0, 2.5)),
        ("figure4", "Figure 4: test accuracy, aggressive", AGGRESSIVE, "accuracy", Axis("test accuracy", 0.0, 1.0)),
        ("figure5", "Figure 5: loss, mild, zoomed in", MILD, "loss", Axis("training loss", 0.0, 0.8)),
        ("figure6", "Figure 6: test accuracy, mild, zoomed in", MILD, "accuracy", Axis("test accuracy", 0.94, 0.99)),
    )
    found = []
    for key, title, scheme, kind, axis in wanted:
        lines = _lines(sweep, scheme, control, kind)
        if len(lines) < 2:
            continue
        steps = max(row.options["steps"] for row in sweep.rows)
        dots = [Dot(float(steps), value, f"report, {attack}", COLOURS[attack])
                for attack, value in FINALS[scheme].items()] if kind == "accuracy" and not control else []  # fmt: skip
        starts = [row.attacked_from for row in sweep.select(scheme, None, control) if row.attacked_from is not None]
        bands = [
            Band(float(min(starts)), float(_last_ban(sweep.select(scheme, None, control), steps)), "attack to last ban")
        ]
        drawn = chart.draw(title, Axis("step", 0.0, float(steps)), axis, lines, bands=bands, dots=dots,
                           dots_name="report's final" if dots else "")  # fmt: skip
        if control:
            key, title = f"{key}-{control.replace(' ', '-')}", f"{title}, {control}"
        found.append(Figure(key, title, drawn, _caption(kind, control)))
    return found


def curves(sweep: SweepData) -> list[Figure]:
    """Test accuracy of every group of runs that differ in their seeds only: a chart for each `chart` that the plan
    names, each with the clean runs; else one for all, if there are no more groups than colours."""
    labelled = all(row.labels.get("label") for row in sweep.rows)
    names = ["label"] if labelled else [name for name in sweep.varied if name not in SEEDS]
    charts = list(dict.fromkeys(row.labels["chart"] for row in sweep.rows if "chart" in row.labels))
    if not charts:
        return _group_chart(sweep, sweep.rows, names, "")
    return [
        figure
        for chart_name in charts
        for figure in _group_chart(
            sweep, [row for row in sweep.rows if row.labels.get("chart", chart_name) == chart_name], names, chart_name
        )
    ]


def _group_chart(sweep: SweepData, rows: Sequence[Row], names: Sequence[str], chart_name: str) -> list[Figure]:
    groups = grouped(rows, names)
    if not 1 <= len(groups) <= len(svg.COLOURS):
        return []
    lines = []
    for (key, found), colour in zip(groups.items(), svg.COLOURS, strict=False):
        words = ", ".join(f"{value}" for value in key if value not in (None, ())) or "all"
        words = words.removeprefix(chart_name).lstrip(", ")
        dash = "" if any(row.byzantine_peers for row in found) else "6 3"
        lines.append(Series(words[:26], _median_accuracy(sweep, found), colour, dash))
    low = min((y for line in lines for _, y in line.points), default=0.0)
    steps = float(max(row.options["steps"] for row in rows))
    drawn = chart.draw(
        "test accuracy", Axis("step", 0.0, steps), Axis("test accuracy", 0.1 * int(10 * low), 1.0), lines
    )
    title = f"Test accuracy: {chart_name.removesuffix(' with')}" if chart_name else "Test accuracy by group"
    name = "-".join(["curves", *chart_name.split()])
    return [Figure(name, title, drawn, "Median over the seeds of each group.")]


def _lines(sweep: SweepData, scheme: str, control: str, kind: str) -> list[Series]:
    lines = []
    for attack in (NO_ATTACK, *ATTACKS):
        rows = sweep.select(CLEAN if attack == NO_ATTACK else scheme, attack, control)
        if attack == NO_ATTACK and not rows:
            rows = sweep.select(CLEAN)
        points = _median_accuracy(sweep, rows) if kind == "accuracy" else _median_loss(sweep, rows)
        if points:
            name = "baseline" if attack == NO_ATTACK else attack.replace("_", " ")
            dash = "6 3" if attack == NO_ATTACK else ""
            lines.append(Series(name, points, COLOURS[attack], dash))
    return lines


def _median_accuracy(sweep: SweepData, rows: Sequence[Row]) -> list[tuple[float, float]]:
    by_step: dict[int, list[float]] = {}
    for row in rows:
        for step, value in sweep.curves(row).accuracy:
            by_step.setdefault(step, []).append(value)
    return [(float(step), statistics.median(values)) for step, values in sorted(by_step.items())]


def _median_loss(sweep: SweepData, rows: Sequence[Row], width: int = 15, every: int = 3) -> list[tuple[float, float]]:
    """Smoothed and thinned: at 900 steps a pixel has more than one."""
    losses = [sweep.curves(row).loss for row in rows]
    if not losses:
        return []
    length = min(map(len, losses))
    by_step = [[value for loss in losses if (value := loss[step]) is not None] for step in range(length)]
    known = [step for step, values in enumerate(by_step) if values]
    middle = chart.smooth([statistics.median(by_step[step]) for step in known], width)
    return [(float(step), value) for step, value in zip(known, middle, strict=True) if step % every == 0]


def _caption(kind: str, control: str) -> str:
    if kind == "loss":
        return "Moving average over 15 steps of the honest peers' mini-batch loss."
    if control:
        return "Median over the runs of each kind. The report has no such runs."
    return (
        "Rings at the last step: the report's published finals (mean of three). Its curves themselves were published "
        "as pictures only, so they are not redrawn here."
    )


def _last_ban(rows: Sequence[Row], steps: int) -> int:
    if any(row.undetected for row in rows):
        return steps
    return max((row.last_ban for row in rows if row.last_ban is not None), default=steps)
