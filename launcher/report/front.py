"""What validators cost against what they spare: the Pareto front of the groups (m, k, n) of a sweep.

m pairs validate in every k-th step of n peers. A group is dominated where another one of as many peers and attackers
costs no more and loses no more, and one of the two is less: with more peers it is another cluster, not another choice.

Source: Pareto dominance, as in any text on multi-objective optimisation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from btard.launcher.figures import svg
from btard.launcher.figures.chart import Axis, Chart, Series
from btard.launcher.figures.svg import Figure
from btard.launcher.network.traffic import human
from btard.launcher.report import detection
from btard.launcher.report.statistics import signed
from btard.launcher.report.sweep_data import SEEDS, SweepData, attack_of, draw_of, grouped_by
from btard.launcher.sweep.rows import Row

HEADER = (
    *("peers", "attackers", "m", "k", "runs", "draws", "accuracy lost", "under", "T by the law", "CPU s", "bytes"),
    *("lost by CPU", "lost by bytes", "T by CPU", "T by bytes"),
)
_GROUP = ("peers", "byzantine", "validators", "validate_every")
_FRONT = "front"


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one (m, k, n).

    Args:
        peers, attackers, pairs, every: n, of them Byzantine, m and k.
        runs, draws: attacked runs that have a clean run of the same seeds beside them, and their draws of validators.
        lost: final accuracy of the clean runs less theirs, a mean over draws, under the attack that costs most.
        attack: that attack.
        last: mean steps to the last ban by the law of detection; None: there is none.
        cpu_s, sent: CPU seconds and bytes of a clean run, all peers together, mean.
    """

    peers: int
    attackers: int
    pairs: int
    every: int
    runs: int
    draws: int
    lost: float
    attack: str
    last: float | None
    cpu_s: float
    sent: float

    @property
    def name(self) -> str:
        """m and k in words."""
        return f"m={self.pairs}, k={self.every}"


Measure = Callable[[Group], float | None]
_COSTS: tuple[tuple[str, str, Measure], ...] = (
    ("CPU", "CPU seconds of a clean run", lambda group: group.cpu_s),
    ("bytes", "megabytes of a clean run", lambda group: group.sent / 1e6),
)
_HARMS: tuple[Measure, ...] = (lambda group: group.lost, lambda group: group.last)


def groups(sweep: SweepData) -> list[Group]:
    """The groups of a sweep over validators that have runs to compare; none where it varies anything else, or has no
    clean runs."""
    others = set(sweep.varied) - {*_GROUP, *SEEDS, "attack"}
    if others or not {"validators", "validate_every"} & set(sweep.varied) or any(row.labels for row in sweep.rows):
        return []
    attacked = [row for row in sweep.rows if row.byzantine_peers and sweep.difference(row) is not None]
    by_group = grouped_by(attacked, lambda row: tuple(row.options[name] for name in _GROUP))
    return sorted((_group(sweep, rows) for rows in by_group.values()), key=lambda each: (each.peers, each.cpu_s))


def _group(sweep: SweepData, rows: Sequence[Row]) -> Group:
    lost = {}
    for attack, found in grouped_by(rows, attack_of).items():
        effect = sweep.effect(found, sweep.difference)
        assert effect is not None, "each of its rows has a difference"
        lost[attack] = -effect.mean
    worst = max(lost, key=lost.__getitem__)
    clean = {beside.cell: beside for row in rows if (beside := sweep.clean_of(row)) is not None}.values()
    law = detection.last_ban_of(*detection.setting_of(rows[0].options))
    n, b, m, k = (rows[0].options[name] for name in _GROUP)
    return Group(
        n,
        b,
        m,
        k,
        len(rows),
        len(set(map(draw_of, rows))),
        lost[worst],
        worst,
        law and law[0],
        statistics.fmean(row.cpu_seconds for row in clean),
        statistics.fmean(row.bytes_sent for row in clean),
    )


def dominator(group: Group, found: Sequence[Group], cost: Measure, harm: Measure) -> Group | None:
    """The cheapest group of as many peers and attackers that dominates one; None: it is on the front. One without the
    harm, as T where nobody validates, is worse than any."""

    def place(each: Group) -> tuple[float, float]:
        at, harmed = cost(each), harm(each)
        return math.inf if at is None else at, math.inf if harmed is None else harmed

    own = place(group)
    better = [
        each
        for each in found
        if (each.peers, each.attackers) == (group.peers, group.attackers)
        and place(each) != own
        and all(a <= b for a, b in zip(place(each), own, strict=True))
    ]
    return min(better, key=place, default=None)


def table(sweep: SweepData) -> list[Sequence[object]]:
    """A line for each group: what it loses and costs, and whether it is on each front or what dominates it."""
    found = groups(sweep)
    return [
        (
            each.peers,
            each.attackers,
            each.pairs,
            each.every,
            each.runs,
            each.draws,
            signed(each.lost),
            each.attack,
            "never" if each.last is None else f"{each.last:.1f}",
            f"{each.cpu_s:.1f}",
            human(each.sent),
            *(_verdict(dominator(each, found, cost, harm)) for harm in _HARMS for _, _, cost in _COSTS),
        )
        for each in found
    ]


def _verdict(better: Group | None) -> str:
    return _FRONT if better is None else f"dominated by {better.name}"


def figures(sweep: SweepData) -> list[Figure]:
    """Accuracy lost against CPU time and against bytes, a figure for each size of cluster with several groups."""
    known = groups(sweep)
    sizes = dict.fromkeys((each.peers, each.attackers) for each in known)
    by_size = {size: [each for each in known if (each.peers, each.attackers) == size] for size in sizes}
    return [figure for size, found in by_size.items() if len(found) > 1 for figure in _drawn(*size, found)]


def _drawn(peers: int, attackers: int, found: Sequence[Group]) -> Iterator[Figure]:
    for kind, label, cost in _COSTS:
        lines = []
        for each in found:
            better = dominator(each, found, cost, _HARMS[0])
            colour, name = (svg.GREY, f"{each.name} dominated") if better else (svg.COLOURS[0], each.name)
            lines.append(Series(name, [(cost(each) or 0.0, each.lost)], colour, marked=True))
        points = [point for line in lines for point in line.points]
        across = Axis.around(label, [x for x, _ in points])
        up = Axis.around("accuracy lost", [y for _, y in points])
        title = f"Accuracy lost against {kind}: {peers} peers, {attackers} attackers"
        runs, draws = sum(each.runs for each in found), max(each.draws for each in found)
        caption = (
            f"Each point one group, under the attack that costs it most. {runs} attacked runs, {draws} "
            f"draw{'s' * (draws > 1)} of validators. Grey: another group costs no more and loses no more."
        )
        yield Figure(f"front-{kind.lower()}-{peers}-{attackers}", title, Chart(title, across, up, lines), caption)
