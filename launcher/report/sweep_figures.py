"""Figures of a sweep's page: curves (the report's Figures 3 to 6, and any other sweep's groups), attacked contributions
until conviction against the law, matrices of attack or number of attackers by rule, and of attackers by split.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from btard.launcher.figures import bars, chart, svg
from btard.launcher.figures.chart import Axis, Band, Chart, Dot, Series
from btard.launcher.figures.matrix import COLUMN, ROW, Cell, Matrix
from btard.launcher.figures.svg import Figure
from btard.launcher.network.traffic import human
from btard.launcher.report import detection
from btard.launcher.report.sweep_data import NO_ATTACK, SEEDS, SweepData, attack_of, draw_of, grouped, grouped_by
from btard.launcher.sweep.plans import AGGRESSIVE, ATTACKS, CLEAN, FINALS, MILD
from btard.launcher.sweep.rows import Row
from btard.node.adversary.timing import ALWAYS

COLOURS = {NO_ATTACK: "#7f7f7f", **dict(zip(ATTACKS, svg.COLOURS, strict=False))}


def report_figures(sweep: SweepData, control: str = "") -> list[Figure]:
    """The report's Figures 3 to 6 from our runs: all attacks in one chart, on axes chosen from the data."""
    wanted = (
        ("figure3", "Figure 3: loss, aggressive", AGGRESSIVE, "loss"),
        ("figure4", "Figure 4: test accuracy, aggressive", AGGRESSIVE, "accuracy"),
        ("figure5", "Figure 5: loss, mild", MILD, "loss"),
        ("figure6", "Figure 6: test accuracy, mild", MILD, "accuracy"),
    )
    found = []
    for key, title, scheme, kind in wanted:
        groups = {attack: _of_attack(sweep, scheme, attack, control) for attack in (NO_ATTACK, *ATTACKS)}
        lines = [_line(sweep, rows, kind, "baseline" if attack == NO_ATTACK else attack.replace("_", " "),
                       COLOURS[attack]) for attack, rows in groups.items()]  # fmt: skip
        lines = [line for line in lines if line.points]
        if len(lines) < 2:
            continue
        steps = max(row.options["steps"] for row in sweep.rows)
        dots = [Dot(float(steps), value, f"report, {attack}", COLOURS[attack])
                for attack, value in FINALS[scheme].items()] if kind == "accuracy" and not control else []  # fmt: skip
        rows = sweep.select(scheme, None, control)
        starts = [row.attacked_from for row in rows if row.attacked_from is not None]
        bands = [Band(float(min(starts)), float(_last_ban(rows, steps)), "attack to last ban")]
        shown = [*(line.points for line in lines), [(dot.x, dot.y) for dot in dots]]
        drawn = Chart(title, Axis("step", 0.0, float(steps)), _axis(kind, shown, min([steps / 10, *starts])), lines,
                      bands, dots=dots, dots_name="report's final" if dots else "")  # fmt: skip
        if control:
            key, title = f"{key}-{control.replace(' ', '-')}", f"{title}, {control}"
        everyone = [row for rows in groups.values() for row in rows]
        found.append(Figure(key, title, drawn, f"{_caption(kind, control)} {_counted(everyone, drawn)}"))
    return found


def _of_attack(sweep: SweepData, scheme: str, attack: str, control: str) -> list[Row]:
    """The runs of one curve; beside a control without clean runs of its own, those of the report's setting."""
    rows = sweep.select(CLEAN if attack == NO_ATTACK else scheme, attack, control)
    return rows or (sweep.select(CLEAN) if attack == NO_ATTACK else [])


def curves(sweep: SweepData) -> list[Figure]:
    """Test accuracy and loss of every group of runs that differ in their seeds only: a chart for each `chart` that the
    plan names, each with the clean runs; else one for all, if there are no more groups than colours. None for a plan in
    phases, whose groups differ in the data that they are judged by."""
    if any(row.labels.get("phase") for row in sweep.rows):
        return []
    labelled = all(row.labels.get("label") for row in sweep.rows)
    names = ["label"] if labelled else [name for name in sweep.varied if name not in SEEDS]
    charts = list(dict.fromkeys(row.labels["chart"] for row in sweep.rows if "chart" in row.labels))
    return [
        figure
        for kind in ("accuracy", "loss")
        for chart_name in charts or [""]
        for figure in _group_chart(
            sweep, [row for row in sweep.rows if row.labels.get("chart", chart_name) == chart_name], names, chart_name,
            kind,
        )
    ]  # fmt: skip


def _group_chart(
    sweep: SweepData, rows: Sequence[Row], names: Sequence[str], chart_name: str, kind: str
) -> Iterator[Figure]:
    groups = grouped(rows, names)
    if not 1 <= len(groups) <= len(svg.COLOURS):
        return
    lines = []
    for (key, found), colour in zip(groups.items(), svg.COLOURS, strict=False):
        shown = [f"{value}" for name, value in zip(names, key, strict=True)
                 if value not in (None, ()) and (name, value) != ("byzantine", 0)]  # fmt: skip
        words = ", ".join(shown).removeprefix(chart_name).lstrip(", ")
        words = words or ("all" if any(row.byzantine_peers for row in found) else "clean")
        lines.append(_line(sweep, found, kind, words[:26], colour))
    if not any(line.points for line in lines):
        return
    steps = float(max(row.options["steps"] for row in rows))
    starts = [row.attacked_from for row in rows if row.attacked_from is not None]
    axis = _axis(kind, [line.points for line in lines], min([steps / 10, *starts]))
    drawn = Chart(_KINDS[kind].lower(), Axis("step", 0.0, steps), axis, lines)
    title = f"{_KINDS[kind]}: {chart_name.removesuffix(' with')}" if chart_name else f"{_KINDS[kind]} by group"
    name = "-".join(["curves" if kind == "accuracy" else "losses", *chart_name.split()])
    yield Figure(name, title, drawn, f"{_SMOOTHED if kind == 'loss' else ''} {_counted(rows, drawn)}".strip())


_KINDS = {"accuracy": "Test accuracy", "loss": "Training loss"}
_SMOOTHED = "Mean of the last 15 steps of the honest peers' mini-batch loss."


def _axis(kind: str, shown: Sequence[chart.Points], since: float) -> Axis:
    return chart.around(_KINDS[kind].lower(), shown, since if kind == "accuracy" else 0.0, log=kind == "loss")


def _line(sweep: SweepData, rows: Sequence[Row], kind: str, name: str, colour: str) -> Series:
    """The median over draws, of the mean of each draw's runs; behind it the least and greatest draw."""
    draws = grouped_by(rows, draw_of)
    made = [
        _mean_accuracy(sweep, found) if kind == "accuracy" else _mean_loss(sweep, found) for found in draws.values()
    ]
    by_step: dict[float, list[float]] = {}
    for points in made:
        for step, value in points:
            by_step.setdefault(step, []).append(value)
    at = sorted(by_step.items())
    points = [(step, statistics.median(values)) for step, values in at]
    starts = {float(row.attacked_from) for row in rows if row.attacked_from is not None}
    spread = [(step, min(values), max(values)) for step, values in at] if len(draws) > 1 else []
    dash = "" if any(row.byzantine_peers for row in rows) else "6 3"
    return Series(name, chart.gapped(points, starts), colour, dash, spread=spread)


def _mean_accuracy(sweep: SweepData, rows: Sequence[Row]) -> chart.Points:
    by_step: dict[int, list[float]] = {}
    for row in rows:
        for step, value in sweep.curves(row).accuracy:
            by_step.setdefault(step, []).append(value)
    return [(float(step), statistics.fmean(values)) for step, values in sorted(by_step.items())]


def _mean_loss(sweep: SweepData, rows: Sequence[Row], width: int = 15, every: int = 3) -> chart.Points:
    """Smoothed and thinned: at 900 steps a pixel has more than one."""
    losses = [sweep.curves(row).loss for row in rows]
    length = min(map(len, losses))
    by_step = [[value for loss in losses if (value := loss[step]) is not None] for step in range(length)]
    known = [step for step, values in enumerate(by_step) if values]
    middle = chart.smooth([statistics.fmean(by_step[step]) for step in known], width)
    return [(float(step), value) for step, value in zip(known, middle, strict=True) if step % every == 0]


def _counted(rows: Sequence[Row], drawn: Chart) -> str:
    """How many runs and draws a chart's curves are made of, and what they show of them."""
    draws = len(set(map(draw_of, rows)))
    words = f"{len(rows)} run{'s' * (len(rows) > 1)}, {draws} draw{'s' * (draws > 1)} of validators."
    if any(line.spread for line in drawn.series):
        words += " Lines: median over draws; bands: from the least to the greatest draw."
    return f"{words} {drawn.cut}".strip()


def _caption(kind: str, control: str) -> str:
    if kind == "loss":
        return _SMOOTHED
    if control:
        return "The report has no such runs."
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
    until_caught = row.options.get("attack_when", ALWAYS) == ALWAYS and row.options.get("attack_last") is None
    return bool(row.byzantine_peers and every_time and until_caught and row.options["validators"])


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
    drawn = bars.AgainstLaw(title, law, waited, "attacked contributions until conviction")
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
_MARKS = f"{ROW} the worst rule of a row, {COLUMN} the worst row of a rule; the larger the value, the darker."
_CAPTIONS = {
    "final": _WORST,
    "best": _WORST,
    "latency": "Mean over the caught attackers of each cell's runs. With a plus, some were never caught, so the mean "
    "is too low: point at the cell for how many. Free: none was caught.",
    "bytes": "Mean over each cell's runs, all peers together.",
}


_HEAT = (
    "Mean over the runs of each cell; the darker, the more accurate, on one scale for all attacks of the sweep. "
    f"{ROW} the worst split of a row, {COLUMN} the worst row of a split. The line without attackers is in each figure."
)


def matrices(sweep: SweepData) -> list[Figure]:
    """Attack by rule, and number of attackers by rule: worst accuracies, how long attackers lasted, bytes.

    Runs with a `control` or a `phase` are not among them: they differ in more than the rule.
    """
    rows = [row for row in sweep.rows if not row.labels.get("control") and not row.labels.get("phase")]
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
    at = [[(attack if count else NO_ATTACK, count, split) for split in splits] for count in counts]
    cells: list[list[Cell]] = [
        [(means.get(key), f"{means[key]:.3f}" if key in means else "", _spread(groups.get(key, []))) for key in line]
        for line in at
    ]
    drawn = Matrix(
        f"{attack}: final test accuracy", [str(count) for count in counts], splits, cells, min(means.values()),
        max(means.values()), "attackers", "split", min,
    )  # fmt: skip
    name = "-".join(["heatmap", *re.findall("[a-z0-9]+", attack.lower())])
    yield Figure(name, f"Attackers by split: {attack}, final test accuracy", drawn, _HEAT)


def _finals(rows: Sequence[Row]) -> list[float]:
    return [row.final_test_accuracy for row in rows if row.final_test_accuracy is not None]


def _spread(rows: Sequence[Row]) -> str:
    """How many runs a cell is made of, and how far apart; empty: one, which the cell itself shows."""
    finals = _finals(rows)
    if len(rows) < 2:
        return ""
    return f"{len(rows)} runs" + (f"; final {min(finals):.4f} to {max(finals):.4f}" if finals else "")


def _matrices(
    rows: Sequence[Row], what: str, names: Sequence[str], rules: Sequence[str], key: Callable[[Row], str]
) -> Iterator[Figure]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((key(row), row.options["rule"]), []).append(row)
    finals = [value for row in rows for value in (row.final_test_accuracy, row.best_test_accuracy) if value is not None]
    waits = [count for row in rows for count in row.detection_steps]
    low, high = min(finals, default=0.0), max(finals, default=1.0)
    wanted: Mapping[str, tuple[str, float, float, Callable[[Iterable[float]], float]]] = {
        "final": ("worst final test accuracy", low, high, min),
        "best": ("worst best test accuracy", low, high, min),
        "latency": ("attacked steps until a ban, mean", 0.0, max(waits, default=1.0), max),
        "bytes": ("bytes sent, mean", 0.0, max(row.bytes_sent for row in rows), max),
    }
    for kind, (title, least, most, worst) in wanted.items():
        cells = [[_cell(kind, groups.get((name, rule), [])) for rule in rules] for name in names]
        drawn = Matrix(title, names, rules, cells, least, most, what, "rule", worst)
        caption = f"{_CAPTIONS[kind]} {_MARKS}"
        yield Figure(f"matrix-{what}-{kind}", f"{what.capitalize()} by rule: {title}",
                     drawn.arranged if what == "attack" else drawn, caption)  # fmt: skip


def _cell(kind: str, rows: Sequence[Row]) -> Cell:
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


def _worst(values: Sequence[float], tip: str) -> Cell:
    return (min(values), f"{min(values):.3f}", tip) if values else (None, "", "")


def _latency(rows: Sequence[Row], tip: str) -> Cell:
    attackers = sum(row.byzantine_peers for row in rows)
    caught = attackers - sum(row.undetected for row in rows)
    waited = [count for row in rows for count in row.detection_steps]
    if not waited:
        return None, "free" if attackers else "", tip
    mean = statistics.fmean(waited)
    few = f"{caught} of {attackers} attackers caught" if caught < attackers else ""
    return mean, f"{mean:.1f}{'+' if few else ''}", "; ".join(filter(None, (tip, few)))
