"""What attackers get out of choosing when, with what and how strongly: accuracy lost against steps attacked.

A strategy is an attack with its parameters on a schedule. It is on the frontier of its defence where no other one does
more damage, on average, in as few attacked steps, or as much in fewer. The worst of many looks worse than it is: the
intervals cover all strategies of a sweep at once, and one that does not exclude zero says nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from btard.launcher.figures import chart, svg
from btard.launcher.figures.chart import Axis, Chart, Dot, Series
from btard.launcher.figures.svg import Figure
from btard.launcher.report.inference import Comparison, Effect
from btard.launcher.report.statistics import signed
from btard.launcher.report.sweep_data import SEEDS, SweepData, attack_of, draw_of, grouped_by
from btard.launcher.sweep.rows import Row
from btard.node.adversary.timing import ALWAYS

HEADER = (
    *("defence", "attack", "schedule", "runs", "draws", "attacked steps", "banned", "to clean, mean"),
    *("interval, all at once", "does harm", "frontier"),
)
_CHOSEN = ("attack_when", "attack_last")
_SCHEDULE = ("attack_every", "attack_start", "attack_stop", "attack_probability", *_CHOSEN)
_ATTACKERS = ("attack", "byzantine", "role", *_SCHEDULE)


@dataclass(frozen=True, slots=True)
class Strategy:
    """One strategy of the attackers against one defence.

    Args:
        defence, attack, schedule: in words.
        rows: its runs.
        effect: final accuracy less that of the clean run of the same seeds.
        attacked: steps attacked by any of them, mean over the runs.
        frontier: no other one against the same defence has as much damage in as few attacked steps.
    """

    defence: str
    attack: str
    schedule: str
    rows: Sequence[Row]
    effect: Effect
    attacked: float
    frontier: bool = False

    @property
    def comparison(self) -> Comparison:
        """That it does harm."""
        return Comparison(f"{self.attack}, {self.schedule}", self.effect, below=0.0)


def strategies(sweep: SweepData) -> list[Strategy]:
    """All strategies of a sweep that varies when attackers attack, the most damage first; of any other one, none."""
    if not set(_CHOSEN) & set(sweep.varied):
        return []
    known = [
        row
        for row in sweep.rows
        if row.byzantine_peers and row.attacked_steps is not None and sweep.difference(row) is not None
    ]
    against = [name for name in sweep.varied if name not in (*SEEDS, *_ATTACKERS)]
    groups = grouped_by(
        known, lambda row: (_words(row, against) or "as given", attack_of(row), _words(row, _varied(sweep)) or ALWAYS)
    )
    found = []
    for (defence, attack, schedule), rows in groups.items():
        effect = sweep.effect(rows, sweep.difference, len(groups))
        assert effect is not None, "each row has a clean one beside it"
        attacked = statistics.fmean(row.attacked_steps or 0 for row in rows)
        found.append(Strategy(defence, attack, schedule, rows, effect, attacked))
    marked = [replace(each, frontier=not any(_beats(other, each) for other in found)) for each in found]
    return sorted(marked, key=lambda each: each.effect.mean)


def _varied(sweep: SweepData) -> list[str]:
    return [name for name in sweep.varied if name in _SCHEDULE]


def _words(row: Row, names: Sequence[str]) -> str:
    """The values of some options, but for those that leave a schedule as it is."""
    values = {name: row.options.get(name) for name in names}
    told = [(name, value) for name, value in values.items() if name not in _SCHEDULE or value not in (None, ALWAYS)]
    plain = [f"{name.removeprefix('attack_')} {'auto' if value is None else value}" for name, value in told]
    return ", ".join(plain).replace("_", " ")


def _beats(one: Strategy, other: Strategy) -> bool:
    if one.defence != other.defence:
        return False
    no_worse = one.effect.mean <= other.effect.mean and one.attacked <= other.attacked
    return no_worse and (one.effect.mean < other.effect.mean or one.attacked < other.attacked)


def table(found: Sequence[Strategy]) -> list[Sequence[object]]:
    """A line for each strategy."""
    return [
        (
            each.defence,
            each.attack,
            each.schedule,
            len(each.rows),
            len(set(map(draw_of, each.rows))),
            f"{each.attacked:.1f}",
            f"{sum(row.byzantine_peers - row.undetected for row in each.rows)} of "
            f"{sum(row.byzantine_peers for row in each.rows)}",
            signed(each.effect.mean),
            each.effect.bounds(),
            each.comparison.verdict,
            "yes" if each.frontier else "",
        )
        for each in found
    ]


def figures(found: Sequence[Strategy]) -> list[Figure]:
    """Accuracy lost against steps attacked: a dot for each strategy, the frontier of each defence as a line."""
    if not found:
        return []
    lines, dots = [], []
    for defence, colour in zip(dict.fromkeys(each.defence for each in found), svg.COLOURS, strict=False):
        own = [each for each in found if each.defence == defence]
        edge = sorted((each.attacked, each.effect.mean) for each in own if each.frontier)
        lines.append(Series(f"frontier, {defence}", edge, colour, marked=True))
        dots += [Dot(each.attacked, each.effect.mean, each.comparison.name, colour) for each in own]
    shown = [*(line.points for line in lines), [(dot.x, dot.y) for dot in dots], [(0.0, 0.0)]]
    most = max(dot.x for dot in dots)
    drawn = Chart(
        "accuracy lost by steps attacked",
        Axis("steps attacked, mean", 0.0, most or 1.0),
        chart.around("less clean, mean", shown),
        lines,
        dots=dots,
        dots_name="a strategy",
    )
    runs = [row for each in found for row in each.rows]
    caption = (
        "Each ring a strategy, by its mean over draws; the lines join those that no other one beats. "
        f"Runs: {len(runs)}, draws: {len(set(map(draw_of, runs)))}. Intervals: in the table."
    )
    return [Figure("strategies", "What attackers get out of choosing when", drawn, caption)]
