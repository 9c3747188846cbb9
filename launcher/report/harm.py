"""Harm against how long attackers last, and what the law of detection makes of it.

How long two attackers last is the draw's doing; what they do meanwhile is the attack's and tau's. So runs are set by T,
the steps from the first attacked one to the last ban, and a mean over the law gives each length of the law to the runs
whose T is nearest to it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from btard.launcher.detection import Waiting
from btard.launcher.figures import chart, svg
from btard.launcher.figures.chart import Axis, Chart, Series
from btard.launcher.figures.svg import Figure
from btard.launcher.report import detection
from btard.launcher.report.statistics import signed
from btard.launcher.report.sweep_data import SweepData, attack_of, draw_of, grouped_by
from btard.launcher.report.sweep_figures import COLOURS
from btard.launcher.sweep.plans import AGGRESSIVE
from btard.launcher.sweep.rows import Row

DEAD = 0.2
"""Final accuracy below which a network counts as dead: one class of ten for everything is right a tenth of the time."""
HEADER = (
    "setting",
    "attack",
    "runs",
    "draws",
    "dead",
    "dead at T",
    "alive at T",
    "P(dead) by the law",
    "to clean by the law",
    "law, longer than any T here",
)


def weights(lengths: Iterable[int], waiting: Waiting) -> dict[int, float]:
    """The probability of each T that was seen: of all lengths to which it is the nearest; ties are shared.

    Args:
        lengths: T of runs, steps.
        waiting: the law of T.

    Returns:
        T to probability, 1 together.
    """
    found = dict.fromkeys(sorted(lengths), 0.0)
    for steps in range(1, len(waiting.survival)):
        least = min(abs(steps - each) for each in found)
        near = [each for each in found if abs(steps - each) == least]
        for each in near:
            found[each] += waiting.probability(steps) / len(near)
    found[max(found)] += waiting.survival[-1]
    return found


def table(sweep: SweepData) -> list[Sequence[object]]:
    """A line for each attack in each setting whose runs have several T."""
    return [
        _line(sweep, setting, attack, by_length)
        for (setting, attack), by_length in _by_length(sweep).items()
        if len(by_length) > 1
    ]


def figures(sweep: SweepData) -> list[Figure]:
    """Final accuracy less that of the clean run against T: a figure for each setting, a curve for each attack."""
    found = []
    curves = {key: by_length for key, by_length in _by_length(sweep).items() if len(by_length) > 1}
    for setting in dict.fromkeys(setting for setting, _ in curves):
        lines = [
            Series(
                attack.replace("_", " "),
                [(float(steps), _apart(sweep, rows)) for steps, rows in by_length.items()],
                COLOURS.get(attack, svg.GREY),
                marked=True,
            )
            for (where, attack), by_length in curves.items()
            if where == setting
        ]
        rows = [
            row for (where, _), kept in curves.items() if where == setting for each in kept.values() for row in each
        ]
        most = max(x for line in lines for x, _ in line.points)
        axis = chart.around("less clean", [[*line.points, (0.0, 0.0)] for line in lines])
        drawn = Chart("final accuracy less clean, by T", Axis("T, steps to the last ban", 0.0, most), axis, lines)
        caption = f"Each point: the mean of the runs of one T. {len(rows)} runs, {len(set(map(draw_of, rows)))} draws."
        found.append(Figure(_key(setting), f"Harm against T{f', {setting}' if setting else ''}", drawn, caption))
    return found


def _key(setting: str) -> str:
    return "-".join(["harm", *setting.split()])


def _by_length(sweep: SweepData) -> Mapping[tuple[str, str], Mapping[int, Sequence[Row]]]:
    """(control, attack) to T to runs that have a clean run beside them; attackers strike in every step."""
    known = [
        row
        for row in sweep.rows
        if row.labels.get("scheme") == AGGRESSIVE
        and detection.place_of(row) is not None
        and sweep.difference(row) is not None
    ]
    groups = grouped_by(known, lambda row: (row.labels.get("control", ""), attack_of(row)))
    return {key: dict(sorted(grouped_by(rows, _length).items())) for key, rows in groups.items()}


def _length(row: Row) -> int:
    steps = detection.lasted(row)
    assert steps is not None, "it has a place in the law"
    return steps


def _apart(sweep: SweepData, rows: Sequence[Row]) -> float:
    return statistics.fmean(found for row in rows if (found := sweep.difference(row)) is not None)


def _dead(row: Row) -> bool:
    return row.final_test_accuracy is not None and row.final_test_accuracy < DEAD


def _line(sweep: SweepData, setting: str, attack: str, by_length: Mapping[int, Sequence[Row]]) -> Sequence[object]:
    rows = [row for found in by_length.values() for row in found]
    waiting = detection.waiting_of(*detection.setting_of(rows[0].options))
    assert waiting is not None, "its runs have a place in the law"
    weight = weights(by_length, waiting)
    dead = {steps: statistics.fmean(map(_dead, found)) for steps, found in by_length.items()}
    return (
        setting or "the report's",
        attack,
        len(rows),
        len(set(map(draw_of, rows))),
        sum(map(_dead, rows)),
        _listed(steps for steps, share in dead.items() if share),
        _listed(t for t, share in dead.items() if share < 1),
        f"{sum(share * weight[steps] for steps, share in dead.items()):.0%}",
        signed(sum(weight[steps] * _apart(sweep, found) for steps, found in by_length.items())),
        f"{waiting.survival[min(max(by_length), len(waiting.survival) - 1)]:.0%}",
    )


def _listed(lengths: Iterable[int]) -> str:
    return ", ".join(map(str, lengths)) or "none"
