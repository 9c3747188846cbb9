"""Curves over steps, with attack windows, bans and single points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Series:
    """One curve, as (x, y) in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: str = ""
    width: float = 1.8


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
    return svg.draw(
        "chart", width=WIDTH, height=HEIGHT, title=title, x_label=x.label, y_label=y.label,
        across=Scale(x.low, x.high, 58, WIDTH - 190, x.log), up=Scale(y.low, y.high, HEIGHT - 42, 14, y.log),
        series=series, bands=bands, windows=dict.fromkeys(band.name for band in bands), marks=marks, dots=dots,
        dots_name=dots_name,
    )  # fmt: skip


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Centred moving average; at the ends over what is there."""
    half = width // 2
    return [
        sum(window) / len(window)
        for window in (values[max(0, place - half) : place + half + 1] for place in range(len(values)))
    ]
