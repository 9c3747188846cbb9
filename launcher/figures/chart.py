"""Curves over steps, with attack windows, bans and single points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from btard.launcher.figures import svg
from btard.launcher.figures.svg import Scale

WIDTH, HEIGHT = 760, 320


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, and from where to where."""

    label: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, label: str, values: Iterable[float]) -> Axis:
        """From the round value below the least to the round one above the greatest."""
        low, high = min(found := tuple(values)), max(found)
        step = Scale(low, high, 0, 1).step() if high > low else abs(low) or 1.0
        bottom, top = step * floor(low / step + 1e-9), step * ceil(high / step - 1e-9)
        return cls(label, bottom, top if top > bottom else bottom + step)


@dataclass(frozen=True, slots=True)
class Series:
    """One curve, as (x, y) in the order of x; `marked`: with a ring at each point, where there are few."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: str = ""
    width: float = 1.8
    marked: bool = False


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


def draw(
    title: str, x: Axis, y: Axis, series: Sequence[Series], *, bands: Sequence[Band] = (), marks: Sequence[Mark] = (),
    dots: Sequence[Dot] = (), dots_name: str = "",
) -> str:  # fmt: skip
    """The chart as SVG.

    Args:
        title: read out to those who do not see it.
        x, y: the axes; what lies outside is drawn at the edge.
        series, bands, marks, dots: what to draw.
        dots_name: what the legend calls the dots.
    """
    across, up = Scale(x.low, x.high, 58, WIDTH - 190, x.log), Scale(y.low, y.high, HEIGHT - 42, 14, y.log)
    shown = [curve for curve in series if curve.points]
    ends = [up(curve.points[-1][1]) for curve in shown]
    return svg.draw(
        "chart", width=WIDTH, height=HEIGHT, title=title, x_label=x.label, y_label=y.label, across=across, up=up,
        series=shown, names=apart(ends, up.stop, up.start - (18 if dots_name else 0)), bands=bands,
        windows={band.name: band for band in reversed(bands)}, marks=marks, dots=dots, dots_name=dots_name,
    )  # fmt: skip


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
