"""Rules under attacks as strong as hurts each most: the strengths that the first phase of a plan chose, and what the
second came to (launcher/sweep/plans.py, `tuned`)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from btard.launcher.figures.matrix import COLUMN, ROW, Cell, Matrix
from btard.launcher.figures.svg import Figure
from btard.launcher.report.sweep_data import NO_ATTACK, SweepData, attack_of, draw_of, final, grouped_by
from btard.launcher.sweep.plans import FINAL, TUNING
from btard.launcher.sweep.rows import Row

HEADER = (
    *("rule", "bans", "split", "attack as chosen", "strengths tried", "held out, at it", "at the others"),
    *("final, mean", "least", "greatest", "to clean, mean", "95 % interval", "runs", "draws"),
)


def _where(row: Row) -> tuple[str, str, str]:
    """Rule, bans and split of a row, as the page has them."""
    return row.options["rule"], "on" if row.options["validators"] else "off", row.options["split"]


def _name(row: Row) -> str:
    return attack_of(row).partition(":")[0]


def _of_phase(sweep: SweepData, phase: str) -> list[Row]:
    return [row for row in sweep.rows if row.labels.get("phase") == phase and final(row) is not None]


def table(sweep: SweepData) -> list[Sequence[object]]:
    """A line for each rule, bans, split and attack of the second phase; clean runs have one each."""
    tried = _of_phase(sweep, TUNING)
    return [
        (*where, attack, *_tried(tried, where, attack), *_came_to(sweep, rows))
        for (where, attack), rows in grouped_by(
            _of_phase(sweep, FINAL), lambda row: (_where(row), attack_of(row))
        ).items()
    ]


def _tried(tried: Sequence[Row], where: tuple[str, str, str], attack: str) -> tuple[object, ...]:
    """How many strengths an attack had, and the accuracies on the held-out images at the chosen and at the others."""
    found = {
        attack_of(row): final(row) for row in tried if _where(row) == where and _name(row) == attack.partition(":")[0]
    }
    if attack not in found:
        return "", "", ""
    others = [value for name, value in found.items() if name != attack and value is not None]
    spread = " to ".join(dict.fromkeys(f"{end(others):.4f}" for end in (min, max))) if others else ""
    return len(found), f"{found[attack]:.4f}", spread


def _came_to(sweep: SweepData, rows: Sequence[Row]) -> tuple[object, ...]:
    draws = [statistics.fmean(map(_accuracy, found)) for found in grouped_by(rows, draw_of).values()]
    apart = sweep.effect(rows, sweep.difference) if rows[0].byzantine_peers else None
    return (
        f"{statistics.fmean(draws):.4f}",
        f"{min(draws):.4f}",
        f"{max(draws):.4f}",
        *(("", "") if apart is None else (f"{apart.mean:+.4f}", apart.bounds())),
        len(rows),
        len(draws),
    )


def _accuracy(row: Row) -> float:
    found = final(row)
    assert found is not None, "_of_phase leaves rows without one out"
    return found


def figures(sweep: SweepData) -> list[Figure]:
    """Attack by rule, a figure for each split with and without bans, all on one scale."""
    rows = _of_phase(sweep, FINAL)
    low, high = min(map(_accuracy, rows), default=0.0), max(map(_accuracy, rows), default=1.0)
    return [
        _matrix(bans, split, found, low, high)
        for (bans, split), found in grouped_by(rows, lambda row: _where(row)[1:]).items()
    ]


def _matrix(bans: str, split: str, rows: Sequence[Row], low: float, high: float) -> Figure:
    rules, attacks = (list(dict.fromkeys(map(key, rows))) for key in (lambda row: row.options["rule"], _name))
    by_cell = grouped_by(rows, lambda row: (_name(row), row.options["rule"]))
    cells = [[_cell(by_cell.get((attack, rule), [])) for rule in rules] for attack in attacks]
    title = f"Tuned attacks by rule: bans {bans}, {split}"
    drawn = Matrix(f"{title}: final test accuracy", attacks, rules, cells, low, high, "attack", "rule", min)
    key = "-".join(["tuned", bans, *split.replace(":", " ").replace("=", " ").replace(".", " ").split()])
    caption = (
        f"Mean over the seeds of each cell, one scale for all of these figures. {ROW} the worst rule of a row, "
        f"{COLUMN} the worst row of a rule; {NO_ATTACK}: nobody attacks."
    )
    return Figure(key, title, drawn, caption)


def _cell(rows: Sequence[Row]) -> Cell:
    if not rows:
        return None, "", ""
    mean = statistics.fmean(map(_accuracy, rows))
    return mean, f"{mean:.3f}", f"{attack_of(rows[0])}, {len(rows)} run{'s' * (len(rows) > 1)}"
