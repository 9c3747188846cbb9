"""Curves over steps, with attack windows, bans and single points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import ceil, floor, isnan, log10, nan
from typing import Any

from btard.launcher.figures import svg
from btard.launcher.figures.svg import Scale

WIDTH, HEIGHT = 760, 320
_LOG_FROM = 10.0
_MOST_DRAWN, _MOST_PLOTTED = 500, 1000
Points = Sequence[tuple[float, float]]
"""(x, y) in the order of x; a y that is not a number is a gap."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, and from where to where."""

    label: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, label: str, values: Iterable[float], *, log: bool = False) -> Axis:
        """From the round value below the least to the round one above the greatest.

        Args:
            label: of the axis.
            values: all that it is to hold, at least one.
            log: take a logarithmic axis where the values span more than a factor of `_LOG_FROM`.
        """
        low, high = min(found := tuple(values)), max(found)
        if log and low > 0 and high > _LOG_FROM * low:
            return cls(label, _round(low, floor), _round(high, ceil), log=True)
        step = Scale(low, high, 0, 1).step() if high > low else abs(low) or 1.0
        bottom, top = step * floor(low / step + 1e-9), step * ceil(high / step - 1e-9)
        return cls(label, bottom, top if top > bottom else bottom + step)


def _round(value: float, whole: Callable[[float], int]) -> float:
    """The next 1, 2 or 5 times a power of ten, below by `floor` or above by `ceil`."""
    power = 10.0 ** floor(log10(value))
    if whole is floor:
        return power * max(factor for factor in (1, 2, 5) if factor <= 1.001 * value / power)
    return power * min(factor for factor in (1, 2, 5, 10) if factor >= 0.999 * value / power)


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.

    Args:
        marked: with a dot at each point, where there are few.
        spread: (x, low, high): a band behind the curve, which ends where the curve has a gap.
    """

    name: str
    points: Points
    colour: str
    dash: str = ""
    width: float = 1.8
    marked: bool = False
    spread: Sequence[tuple[float, float, float]] = ()

    @property
    def ribbons(self) -> list[list[tuple[float, float, float]]]:
        """The parts of the band between the curve's gaps."""
        gaps = [x for x, y in self.points if isnan(y)]
        return [list(found) for _, found in groupby(self.spread, lambda each: sum(gap < each[0] for gap in gaps))]


@dataclass(frozen=True, slots=True)
class Band:
    """A shaded window from x to x."""

    start: float
    stop: float
    name: str
    colour: str = svg.RED


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at x."""

    at: float
    name: str
    colour: str = svg.RED


@dataclass(frozen=True, slots=True)
class Dot:
    """A single value beside the curves."""

    x: float
    y: float
    name: str
    colour: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves over steps.

    Args:
        title: read out to those who do not see it.
        x, y: the axes; what lies outside is drawn at the edge.
        series, bands, marks, dots: what to draw.
        dots_name: what the legend calls the dots.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    bands: Sequence[Band] = ()
    marks: Sequence[Mark] = ()
    dots: Sequence[Dot] = ()
    dots_name: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """What launcher/report/assets/curves.js plots: all points, but of long curves every other, third, ... one."""
        curves = [dict(line.points) for line in self.series]
        every = 1 + max((len(curve) for curve in curves), default=0) // _MOST_PLOTTED
        known = sorted({x for line in self.series for x, y in line.points if not isnan(y)})[::every]
        apart = {after - before for before, after in pairwise(known)}
        return {
            "label": self.y.label,
            "log": self.y.log,
            "range": [self.y.low, self.y.high],
            "from": self.x.low,
            "to": self.x.high,
            "gaps": [x for line in self.series for x, y in line.points if isnan(y)],
            "x": {"first": known[0], "every": apart.pop(), "count": len(known)} if len(apart) == 1 else known,
            "series": [
                {
                    "name": line.name,
                    "colour": line.colour,
                    "dash": [float(each) for each in line.dash.split()],
                    "marked": line.marked,
                    "y": [_short(curve.get(x)) for x in known],
                    "spread": [
                        [[x, _short(low), _short(high)] for x, low, high in piece[::every]] for piece in line.ribbons
                    ],
                }
                for line, curve in zip(self.series, curves, strict=True)
            ],
            "bands": [[band.start, band.stop, band.name, band.colour] for band in self.bands],
            "dots": [[dot.x, dot.y, dot.name, dot.colour] for dot in self.dots],
            "marks": [[mark.at, mark.name, mark.colour] for mark in sorted(self.marks, key=lambda mark: mark.at)],
        }

    @property
    def cut(self) -> str:
        """What a caption says of points that lie below the axis; empty: there are none."""
        below = [x for line in self.series for x, y in line.points if y < self.y.low]
        if not below:
            return ""
        return f"The axis begins at {svg.number(self.y.low)}: earlier steps, up to {max(below):g}, lie below."

    @property
    def html(self) -> str:
        """The chart as SVG."""
        x, y = self.x, self.y
        across, up = Scale(x.low, x.high, 58, WIDTH - 190, x.log), Scale(y.low, y.high, HEIGHT - 42, 14, y.log)
        shown = [curve for curve in self.series if curve.points]
        ends = [up(curve.points[-1][1]) for curve in shown]
        return svg.draw(
            "chart",
            width=WIDTH,
            height=HEIGHT,
            title=self.title,
            x_label=x.label,
            y_label=y.label,
            across=across,
            up=up,
            series=shown,
            pieces=[list(pieces(_thinned(curve.points), y)) for curve in shown],
            names=apart(ends, up.stop, up.start - (18 if self.dots_name else 0)),
            bands=self.bands,
            windows={band.name: band for band in reversed(self.bands)},
            marks=self.marks,
            dots=self.dots,
            dots_name=self.dots_name,
        )


def _short(value: float | None) -> float | None:
    """Five digits of a value; None where there is none."""
    return None if value is None or isnan(value) else float(f"{value:.5g}")


def _thinned(points: Points) -> Points:
    """Some of the points, evenly, and the last one: more than a figure has pixels, and those amid a level stretch, are
    left out."""
    some = [*points[: -1 : 1 + len(points) // _MOST_DRAWN], *points[-1:]]
    level = [before[1] == now[1] == after[1] for before, now, after in zip(some, some[1:], some[2:], strict=False)]
    return [point for point, left_out in zip(some, [False, *level, False], strict=False) if not left_out]


def pieces(points: Points, axis: Axis) -> Iterator[list[tuple[float, float]]]:
    """The parts of a curve that lie on an axis: it ends at gaps, and where it leaves the axis."""
    all_points: list[tuple[float, float]] = [*points[:1]]
    for before, after in pairwise(points):
        all_points += [*sorted(_crossings(before, after, axis)), after]
    for inside, found in groupby(all_points, lambda point: axis.low <= point[1] <= axis.high):
        if inside:
            yield list(found)


def _crossings(a: tuple[float, float], b: tuple[float, float], axis: Axis) -> Iterator[tuple[float, float]]:
    for edge in (axis.low, axis.high):
        if (a[1] - edge) * (b[1] - edge) < 0:
            yield a[0] + (b[0] - a[0]) * (edge - a[1]) / (b[1] - a[1]), edge


def around(label: str, curves: Iterable[Points], since: float = 0.0, *, log: bool = False) -> Axis:
    """The axis for curves: for all that they show from x = `since` on, so that what comes before, as the climb from
    chance, does not flatten the rest; for all of it where there is nothing later.

    Args:
        label: of the axis.
        curves: at least one point.
        since: from where on all is to be seen.
        log: as in `Axis.around`.
    """
    known = [(x, y) for points in curves for x, y in points if not isnan(y)]
    return Axis.around(label, [y for x, y in known if x >= since] or [y for _, y in known], log=log)


def gapped(points: Points, starts: Iterable[float]) -> Points:
    """The points with a gap before the first that something may show in which began at a step: no line leads to its
    effect from before it."""
    gaps = [
        (start - 0.5, nan) for start in set(starts) if points and points[0][0] < start - 1 and start <= points[-1][0]
    ]
    return sorted([*points, *gaps], key=lambda point: point[0])


def apart(wanted: Sequence[float], top: float, bottom: float, gap: float = 15.0) -> list[float]:
    """Where to write the names of curves that end at `wanted` pixels: as near as `gap` between them allows."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed, limit = list(wanted), top
    for each in order:
        placed[each] = max(placed[each], limit)
        limit = placed[each] + gap
    limit = bottom
    for each in reversed(order):
        placed[each] = min(placed[each], limit)
        limit = placed[each] - gap
    return placed


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Trailing moving average: nothing shows before it happened; at the start over what is there."""
    windows = (values[max(0, place - width + 1) : place + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]
