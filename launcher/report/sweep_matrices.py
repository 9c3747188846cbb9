"""Matrices of a sweep's page: attack by rule and number of attackers by rule."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from btard.launcher.figures import matrix
from btard.launcher.figures.svg import Figure
from btard.launcher.network.traffic import human
from btard.launcher.report.sweep_data import SweepData, attack_of
from btard.launcher.sweep.rows import Row

_WORST = "The worst run of each cell, over the seeds and over whatever else the sweep varies."
_CAPTIONS = {
    "final": _WORST,
    "best": _WORST,
    "latency": "Mean over the caught attackers of each cell's runs. With a plus, some were never caught, so the mean "
    "is too low: point at the cell for how many. Free: none was caught.",
    "bytes": "Mean over each cell's runs, all peers together.",
}


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
    finals = [row.final_test_accuracy for row in rows if row.final_test_accuracy is not None]
    tip = f"{len(rows)} runs" + (f"; final {min(finals):.4f} to {max(finals):.4f}" if finals else "")
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
