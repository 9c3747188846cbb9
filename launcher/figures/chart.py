"""Curves over steps, with attack windows, bans and single points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from btard.launcher.figures import svg
from btard.launcher.figures.svg import Scale

WIDTH, HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 190, 14, 42


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
    across = Scale(x.low, x.high, _LEFT, WIDTH - _RIGHT, x.log)
    up = Scale(y.low, y.high, HEIGHT - _BOTTOM, _TOP, y.log)
    parts = _frame(across, up, x.label, y.label)
    for band in bands:
        left = across(band.start)
        parts.append(svg.rectangle(left, _TOP, across(band.stop) - left, HEIGHT - _BOTTOM - _TOP, band.colour,
                                   opacity=0.10, tip=band.name))  # fmt: skip
    for curve in series:
        placed = [(across(at), up(value)) for at, value in curve.points]
        parts.append(svg.path(placed, curve.colour, width=curve.width, dash=curve.dash, tip=curve.name))
    parts += _marks(marks, across)
    for dot in dots:
        tip = f"{dot.name}: {svg.number(dot.y)}"
        parts.append(svg.circle(across(dot.x), up(dot.y), 4, dot.colour, hollow=True, tip=tip))
    parts += _legend(series, bands, marks, dots_name)
    return svg.figure(WIDTH, HEIGHT, title, parts)


def _frame(across: Scale, up: Scale, x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in up.ticks():
        parts.append(svg.line(across.start, up(tick), across.stop, up(tick)))
        parts.append(svg.text(across.start - 8, up(tick) + 4, svg.number(tick), anchor="end"))
    for tick in across.ticks(8):
        parts.append(svg.line(across(tick), up.start, across(tick), up.start + 5))
        parts.append(svg.text(across(tick), up.start + 19, svg.number(tick), anchor="middle"))
    parts.append(svg.text((across.start + across.stop) / 2, HEIGHT - 6, x_label, anchor="middle", kind="ink"))
    middle = (up.start + up.stop) / 2
    parts.append(svg.text(14, middle, y_label, anchor="middle", kind="ink", turn=-90))
    return parts


def _marks(marks: Sequence[Mark], across: Scale) -> list[str]:
    parts = []
    for place, mark in enumerate(sorted(marks, key=lambda mark: mark.at)):
        x = across(mark.at)
        parts.append(svg.line(x, _TOP, x, HEIGHT - _BOTTOM, colour=mark.colour, width=1.2, dash="3 3"))
        # Marks that lie close together get their words on lines of their own.
        parts.append(svg.text(x + 4, _TOP + 12 + 14 * (place % 6), mark.name, size=11, kind="ink"))
    return parts


def _legend(series: Sequence[Series], bands: Sequence[Band], marks: Sequence[Mark], dots_name: str) -> list[str]:
    x, y = WIDTH - _RIGHT + 16, _TOP + 10
    parts = []
    for curve in series:
        parts.append(svg.line(x, y - 4, x + 20, y - 4, colour=curve.colour, width=curve.width + 0.6, dash=curve.dash))
        parts.append(svg.text(x + 27, y, curve.name, kind="ink"))
        y += 19
    for name in dict.fromkeys(band.name for band in bands):
        parts.append(svg.rectangle(x, y - 10, 20, 12, svg.RED, opacity=0.18))
        parts.append(svg.text(x + 27, y, name, kind="ink"))
        y += 19
    if marks:
        parts.append(svg.line(x + 10, y - 11, x + 10, y + 3, colour=svg.RED, width=1.2, dash="3 3"))
        parts.append(svg.text(x + 27, y, "ban", kind="ink"))
        y += 19
    if dots_name:
        parts.append(svg.circle(x + 10, y - 4, 4, svg.GREY, hollow=True))
        parts.append(svg.text(x + 27, y, dots_name, kind="ink"))
    return parts


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Centred moving average; at the ends over what is there."""
    half = width // 2
    return [
        sum(window) / len(window)
        for window in (values[max(0, place - half) : place + half + 1] for place in range(len(values)))
    ]
