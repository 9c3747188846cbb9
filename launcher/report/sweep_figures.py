"""Figures of a sweep's page: curves (the report's Figures 3 to 6, and any other sweep's groups), attacked contributions
until conviction against the law, matrices of attack or number of attackers by rule, and of attackers by split.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Sequence

from btard.launcher.figures import bars, chart, matrix, svg
from btard.launcher.figures.chart import Axis, Band, Dot, Series
from btard.launcher.figures.svg import Figure
from btard.launcher.network.traffic import human
from btard.launcher.report import detection
from btard.launcher.report.sweep_data import NO_ATTACK, SEEDS, SweepData, attack_of, grouped
from btard.launcher.sweep.plans import AGGRESSIVE, ATTACKS, CLEAN, FINALS, MILD
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


_ALWAYS = ("byzantine", "attack_every", "on_ban")
_WHERE_VARIED = {
    "peers": "{} peers",
    "validators": "{} validating",
    "validate_every": "a draw in {} steps",
    "validators_contribute": "validators contribute: {}",
    "attack_start": "from step {} on",
}
"""Options that the law depends on as well, and what a title says of them."""


def detections(sweep: SweepData) -> list[Figure]:
    """One figure for each setting of the law; none where nobody was convicted of a false gradient."""
    rows = [row for row in sweep.rows if _plain(row)]
    beside = [name for name in _WHERE_VARIED if len({row.options.get(name) for row in rows}) > 1]
    figures = (_figure(found, beside) for found in grouped(rows, [*_ALWAYS, *beside]).values())
    return [figure for figure in figures if figure is not None]


def _plain(row: Row) -> bool:
    """Attackers on one schedule, looked at by validators: what the law speaks of."""
    every_time = row.options["attack_probability"] == 1 and not row.options["role"]
    return bool(row.byzantine_peers and every_time and row.options["validators"])


def _figure(rows: Sequence[Row], beside: Sequence[str]) -> Figure | None:
    waited = [count for row in rows for count in detection.convicted(row)]
    run, roles = detection.setting_of(rows[0].options)
    law, note = detection.law_of(run, roles)
    wanted = detection.mean_of(law)
    if not waited or wanted is None:
        return None
    given = rows[0].options
    byzantine, every, on_ban = (given[name] for name in _ALWAYS)
    title = f"Detection: {byzantine} attacker{'s' * (byzantine > 1)}, every {every} step{'s' * (every > 1)}, {on_ban}"
    title = ", ".join([title, *(_WHERE_VARIED[name].format(given.get(name)) for name in beside)])
    key = "-".join([f"detection-{byzantine}-{every}-{on_ban}", *(f"{name}{given.get(name)}" for name in beside)])
    drawn = bars.against_law(title, law, waited, "attacked contributions until conviction")
    caption = (
        f"Mean seen {statistics.fmean(waited):.2f}, by the law {wanted:.2f}. Law: {note}. {_others(rows, len(waited))}"
        "Attacks on the same seeds meet the same draws, so runs that share a protocol seed are not independent."
    )
    return Figure(key.replace("_", "-"), title, drawn, caption)


def _others(rows: Sequence[Row], shown: int) -> str:
    """Who is not in the histogram: leaving them out in silence would make attackers look short-lived."""
    attackers, free = sum(row.byzantine_peers for row in rows), sum(row.undetected for row in rows)
    elsewhere = max(0, attackers - free - shown)
    if not free and not elsewhere:
        return ""
    words = [f"{free} never caught"] if free else []
    words += [f"{elsewhere} banned or removed for something else"] if elsewhere else []
    return f"Not in the histogram, of {attackers} attackers: {', '.join(words)}. "


_WORST = "The worst run of each cell, over the seeds and over whatever else the sweep varies."
_CAPTIONS = {
    "final": _WORST,
    "best": _WORST,
    "latency": "Mean over the caught attackers of each cell's runs. With a plus, some were never caught, so the mean "
    "is too low: point at the cell for how many. Free: none was caught.",
    "bytes": "Mean over each cell's runs, all peers together.",
}


_HEAT = (
    "Mean over the runs of each cell; the darker, the more accurate, on one scale for all attacks of the sweep. The "
    "line without attackers is the same in each figure."
)


def matrices(sweep: SweepData) -> list[Figure]:
    """Attack by rule, and number of attackers by rule: worst accuracies, how long attackers lasted, bytes.

    Runs with a `control` are not among them: they differ in more than the rule.
    """
    rows = [row for row in sweep.rows if not row.labels.get("control")]
    rules = list(dict.fromkeys(row.options["rule"] for row in rows))
    if len(rules) < 2:
        return []
    attacks = list(dict.fromkeys(map(attack_of, rows)))
    counts = [str(count) for count in sorted({row.byzantine_peers for row in rows})]
    found: list[Figure] = []
    if len(attacks) > 1:
        found += _matrices(rows, "attack", attacks, rules, attack_of)
    if len(counts) > 1:
        found += _matrices(rows, "attackers", counts, rules, lambda row: str(row.byzantine_peers))
    return found


def heatmaps(sweep: SweepData) -> list[Figure]:
    """Number of attackers by `--split`: final accuracies, one figure for each attack; none for runs with several rules.

    All figures have one scale, so an attack's colours may be held against another's.
    """
    rows = [row for row in sweep.rows if not row.labels.get("control")]
    splits = list(dict.fromkeys(row.options["split"] for row in rows))
    counts = sorted({row.byzantine_peers for row in rows})
    if len(splits) < 2 or len(counts) < 2 or len({row.options["rule"] for row in rows}) > 1:
        return []
    attacks = list(dict.fromkeys(attack_of(row) for row in rows if row.byzantine_peers))
    return [figure for attack in attacks for figure in _heatmap(rows, attack, counts, splits)]


def _heatmap(rows: Sequence[Row], attack: str, counts: Sequence[int], splits: Sequence[str]) -> Iterator[Figure]:
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((attack_of(row), row.byzantine_peers, row.options["split"]), []).append(row)
    means = {key: statistics.fmean(values) for key, found in groups.items() if (values := _finals(found))}
    if not means:
        return
    shown = {
        (count, split): means[key]
        for count in counts
        for split in splits
        if (key := (attack if count else NO_ATTACK, count, split)) in means
    }
    best, worst = max(shown.values()), min(shown.values())
    cells: list[list[matrix.Cell]] = []
    for count in counts:
        line: list[matrix.Cell] = []
        for split in splits:
            found, mean = groups.get((attack if count else NO_ATTACK, count, split), []), shown.get((count, split))
            mark = "" if mean is None or best == worst else {best: " best", worst: " worst"}.get(mean, "")
            line.append((mean, "" if mean is None else f"{mean:.3f}{mark}", _spread(found)))
        cells.append(line)
    colour = matrix.shade(min(means.values()), max(means.values()))
    drawn = matrix.draw(
        f"{attack}: final test accuracy",
        [str(count) for count in counts],
        splits,
        cells,
        colour,
        cell_width=130,
        row_label="attackers",
        column_label="split",
    )
    name = "-".join(["heatmap", *re.findall("[a-z0-9]+", attack.lower())])
    yield Figure(name, f"Attackers by split: {attack}, final test accuracy", drawn, _HEAT)


def _finals(rows: Sequence[Row]) -> list[float]:
    return [row.final_test_accuracy for row in rows if row.final_test_accuracy is not None]


def _spread(rows: Sequence[Row]) -> str:
    finals = _finals(rows)
    return f"{len(rows)} runs" + (f"; final {min(finals):.4f} to {max(finals):.4f}" if finals else "")


def _matrices(
    rows: Sequence[Row], what: str, names: Sequence[str], rules: Sequence[str], key: Callable[[Row], str]
) -> Iterator[Figure]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((key(row), row.options["rule"]), []).append(row)
    top = max((row.best_test_accuracy or 0.0 for row in rows), default=1.0)
    shades = {
        "final": ("worst final test accuracy", matrix.verdict(0.1, top)),
        "best": ("worst best test accuracy", matrix.verdict(0.1, top)),
        "latency": ("attacked steps until a ban, mean", matrix.shade(0, 20, (178, 34, 34))),
        "bytes": ("bytes sent, mean", matrix.shade(0, max(row.bytes_sent for row in rows))),
    }
    for kind, (title, colour) in shades.items():
        cells = [[_cell(kind, groups.get((name, rule), [])) for rule in rules] for name in names]
        drawn = matrix.draw(title, names, rules, cells, colour, cell_width=58, row_label=what, column_label="rule")
        yield Figure(f"matrix-{what}-{kind}", f"{what.capitalize()} by rule: {title}", drawn, _CAPTIONS[kind])


def _cell(kind: str, rows: Sequence[Row]) -> matrix.Cell:
    if not rows:
        return None, "", ""
    finals, tip = _finals(rows), _spread(rows)
    match kind:
        case "latency":
            return _latency(rows, tip)
        case "bytes":
            mean = statistics.fmean(row.bytes_sent for row in rows)
            return mean, human(mean).replace(" ", "\u00a0"), tip
        case "best":
            best = [row.best_test_accuracy for row in rows if row.best_test_accuracy is not None]
            return _worst(best, tip)
        case _:
            return _worst(finals, tip)


def _worst(values: Sequence[float], tip: str) -> matrix.Cell:
    return (min(values), f"{min(values):.3f}", tip) if values else (None, "", "")


def _latency(rows: Sequence[Row], tip: str) -> matrix.Cell:
    attackers = sum(row.byzantine_peers for row in rows)
    caught = attackers - sum(row.undetected for row in rows)
    waited = [count for row in rows for count in row.detection_steps]
    if not waited:
        return None, "free" if attackers else "", tip
    mean = statistics.fmean(waited)
    return mean, f"{mean:.1f}{'+' if caught < attackers else ''}", f"{tip}; {caught} of {attackers} attackers caught"
