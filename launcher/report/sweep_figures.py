"""The figures of a sweep's page: the report's 3 to 6, detection against the law, and matrices of rules."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from launcher.figures import bars, chart, matrix, svg
from launcher.figures.chart import Axis, Band, Dot, Series
from launcher.figures.svg import Figure
from launcher.report import detection
from launcher.report.published import FINALS
from launcher.report.sweep_data import NO_ATTACK, SEEDS, SweepData, attack_of, grouped
from launcher.sweep.plans import AGGRESSIVE, ATTACKS, CLEAN, MILD
from launcher.sweep.rows import Row
from launcher.traffic import human
from node.config import Role, RunConfig, Schedule

_BASE = "#222222"
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
        found.append(Figure(key + (f"-{control}" if control else "").replace(" ", "-"), title, drawn, _caption(kind)))
    return found


def detections(sweep: SweepData) -> list[Figure]:
    """Attacked contributions until conviction, over all runs of a kind, against the law."""
    found = []
    for (byzantine, every, on_ban), rows in grouped(sweep.rows, ("byzantine", "attack_every", "on_ban")).items():
        rows = [row for row in rows if _plain(row)]
        waited = [count for row in rows for count in _waits(row)]
        if not waited:
            continue
        run = RunConfig(peers=rows[0].options["peers"], validators=rows[0].options["validators"],
                        validate_every=rows[0].options["validate_every"], on_ban=on_ban)  # fmt: skip
        schedule = Schedule(rows[0].options["attack_start"], every)
        roles = {run.peers - 1 - place: Role((), schedule) for place in range(byzantine)}
        law, note = detection.law_of(run, roles)
        title = (
            f"Detection: {byzantine} attacker{'s' * (byzantine > 1)}, every {every} step{'s' * (every > 1)}, {on_ban}"
        )
        drawn = bars.against_law(title, law, waited, "attacked contributions until conviction")
        seen, wanted = statistics.fmean(waited), detection.mean_of(law)
        caption = (
            f"Mean seen {seen:.2f}, by the law {wanted:.2f}. Law: {note}. Attacks on the same seeds meet the same "
            "draws, so runs that share a protocol seed are not independent."
        )
        found.append(Figure(f"detection-{byzantine}-{every}-{on_ban}", title, drawn, caption))
    return found


def matrices(sweep: SweepData) -> list[Figure]:
    """Attack by rule, and number of attackers by rule: worst accuracies, how long attackers lasted, bytes."""
    if "rule" not in sweep.varied:
        return []
    rules = list(dict.fromkeys(row.options["rule"] for row in sweep.rows))
    attacks = list(dict.fromkeys(attack_of(row) for row in sweep.rows))
    found: list[Figure] = []
    if len(attacks) > 1:
        found += _matrices(sweep, "attack", attacks, rules, [attack_of(row) for row in sweep.rows])
    counts = sorted({str(row.byzantine_peers) for row in sweep.rows})
    if len(counts) > 1:
        found += _matrices(sweep, "attackers", counts, rules, [str(row.byzantine_peers) for row in sweep.rows])
    return found


def curves(sweep: SweepData) -> list[Figure]:
    """Test accuracy of every group of runs that differ in their seeds only; for up to eight groups."""
    labelled = all(row.labels.get("label") for row in sweep.rows)
    names = ["label"] if labelled else [name for name in sweep.varied if name not in SEEDS]
    groups = grouped(sweep.rows, names)
    if not 1 <= len(groups) <= len(svg.COLOURS):
        return []
    lines = []
    for (key, rows), colour in zip(groups.items(), svg.COLOURS, strict=False):
        words = ", ".join(f"{value}" for value in key if value not in (None, ())) or "all"
        lines.append(Series(words[:26], _median_accuracy(sweep, rows), colour))
    low = min((y for line in lines for _, y in line.points), default=0.0)
    steps = float(max(row.options["steps"] for row in sweep.rows))
    drawn = chart.draw(
        "test accuracy", Axis("step", 0.0, steps), Axis("test accuracy", 0.1 * int(10 * low), 1.0), lines
    )
    return [Figure("curves", "Test accuracy by group", drawn, "Median over the seeds of each group.")]


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


def _caption(kind: str) -> str:
    if kind == "loss":
        return "Moving average over 15 steps of the honest peers' mini-batch loss."
    return (
        "Rings at the last step: the report's published finals (mean of three). Its curves themselves were published "
        "as pictures only, so they are not redrawn here."
    )


def _last_ban(rows: Sequence[Row], steps: int) -> int:
    if any(row.undetected for row in rows):
        return steps
    return max((row.last_ban for row in rows if row.last_ban is not None), default=steps)


def _plain(row: Row) -> bool:
    """Attackers on one schedule, all convicted by the draw of validators."""
    every_time = row.options["attack_probability"] == 1 and not row.options["role"]
    return bool(row.byzantine_peers and every_time and row.options["validators"] and not row.undetected)


def _waits(row: Row) -> Iterator[int]:
    yield from row.detection_steps


def _matrices(
    sweep: SweepData, what: str, names: Sequence[str], rules: Sequence[str], keys: Sequence[str]
) -> Iterator[Figure]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row, key in zip(sweep.rows, keys, strict=True):
        groups.setdefault((key, row.options["rule"]), []).append(row)
    top = max((row.best_test_accuracy or 0.0 for row in sweep.rows), default=1.0)
    shades = {
        "final": ("worst final test accuracy", matrix.verdict(0.1, top)),
        "best": ("worst best test accuracy", matrix.verdict(0.1, top)),
        "latency": ("attacked steps until a ban, mean", matrix.shade(0, 20, (178, 34, 34))),
        "bytes": ("bytes sent, mean", matrix.shade(0, max(row.bytes_sent for row in sweep.rows))),
    }
    for kind, (title, colour) in shades.items():
        cells = [[_matrix_cell(kind, groups.get((name, rule), [])) for rule in rules] for name in names]
        drawn = matrix.draw(title, names, rules, cells, colour, cell_width=58, row_label=what, column_label="rule")
        yield Figure(f"matrix-{what}-{kind}", f"{what.capitalize()} by rule: {title}", drawn,
                     "Worst over the seeds, and over whatever else the sweep varies, of each cell.")  # fmt: skip


def _matrix_cell(kind: str, rows: Sequence[Row]) -> matrix.Cell:
    finals = [row.final_test_accuracy for row in rows if row.final_test_accuracy is not None]
    if not finals:
        return None, "", ""
    tip = f"{len(rows)} runs; final {min(finals):.4f} to {max(finals):.4f}; {sum(row.undetected for row in rows)} free"
    if kind == "final":
        return min(finals), f"{min(finals):.3f}", tip
    if kind == "best":
        worst = min(row.best_test_accuracy for row in rows if row.best_test_accuracy is not None)
        return worst, f"{worst:.3f}", tip
    if kind == "bytes":
        mean = statistics.fmean(row.bytes_sent for row in rows)
        return mean, human(mean).replace(" ", "\u00a0"), tip
    waited = [count for row in rows for count in row.detection_steps]
    if not waited:
        return None, "" if not any(row.byzantine_peers for row in rows) else "free", tip
    return statistics.fmean(waited), f"{statistics.fmean(waited):.1f}", tip
