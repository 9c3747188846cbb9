"""Scales, ticks and colours of a figure. Those of ink and grid are the page's, so a figure follows its theme."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from btard.launcher import templates

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#994f00")
"""Paul Tol's bright scheme: tells apart by the colour-blind too."""
RED, GREY = "#ee6677", "#999999"


class Drawing(Protocol):
    """What a figure shows, as data: pages draw it here, launcher/figures/printed.py for print."""

    @property
    def html(self) -> str:
        """The element of a page that shows it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a page: `key` names it for tests, links and files."""

    key: str
    title: str
    drawing: Drawing
    caption: str = ""

    @property
    def html(self) -> str:
        """The element of a page that shows it."""
        return self.drawing.html


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values between `low` and `high` to pixels between `start` and `stop`, linearly or by logarithm."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside are drawn at the edge."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        at = math.log10(max(value, self.low)) if self.log else value
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.stop - self.start)

    def ticks(self, wanted: int = 6) -> list[float]:
        """Round values to label: steps of 1, 2 or 5 times a power of ten; on a logarithmic scale powers of ten, with
        their double and fivefold where there would be fewer than three."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high) + 1e-9) + 1)
            found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
            inside = [value for value in found if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
            tens = [value for value in inside if f"{value:e}".startswith("1.000000e")]
            return tens if len(tens) > 2 else inside
        if self.high <= self.low:
            return [self.low]
        step = self.step(wanted)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def step(self, wanted: int = 6) -> float:
        """From one tick of a linear scale to the next."""
        raw = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(raw))
        return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def number(value: float) -> str:
    """A tick's or a cell's value, short."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.6g}"


def draw(kind: str, **values: object) -> str:
    """The SVG of a figure, from its template in launcher/templates.

    Args:
        kind: of the figure: the template's name.
        values: what the template asks for, `width`, `height` and `title` always; the title is read out to those who do
            not see it.
    """
    return templates.write(f"{kind}.svg", number=number, red=RED, grey=GREY, **values)
