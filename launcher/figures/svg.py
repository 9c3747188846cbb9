"""Elements, scales and ticks of a figure. Colours of ink and grid are the page's, so a figure follows its theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#994f00")
"""Paul Tol's bright scheme: tells apart by the colour-blind too."""
RED, GREY = "#ee6677", "#999999"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a page: `key` names it for tests and links, `svg` is the whole element."""

    key: str
    title: str
    svg: str
    caption: str = ""


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
        """Round values to label: steps of 1, 2 or 5 times a power of ten; powers of ten on a logarithmic scale."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        raw = span / wanted
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's or a cell's value, short."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.6g}"


def figure(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """The whole element, scaling with its column."""
    label = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" aria-label="{label}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def text(
    x: float, y: float, words: str, *, anchor: str = "start", size: float = 12, kind: str = "muted", turn: float = 0
) -> str:
    """Words; `kind` is a class of the page: ink, muted."""
    turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}"'
    return f'<text class="{kind}" {place}{turned}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, colour: str | None = None, width: float = 1,
         dash: str = "") -> str:  # fmt: skip
    """A line; without a colour it is one of the grid."""
    paint = f'stroke="{colour}"' if colour else 'class="grid"'
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {paint} stroke-width="{width:g}"{dashed}/>'


def rectangle(
    x: float,
    y: float,
    width: float,
    height: float,
    colour: str,
    *,
    opacity: float = 1,
    tip: str = "",
    radius: float = 0,
) -> str:
    """A filled rectangle; `tip` shows when pointed at."""
    inner = f"<title>{escape(tip)}</title>" if tip else ""
    rounded = f' rx="{radius:g}"' if radius else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"'
    return f'<rect {place}{rounded} fill="{colour}" fill-opacity="{opacity:g}">{inner}</rect>'


def circle(x: float, y: float, radius: float, colour: str, *, tip: str = "", hollow: bool = False) -> str:
    """A dot, or a ring."""
    paint = f'fill="none" stroke="{colour}" stroke-width="2"' if hollow else f'fill="{colour}"'
    inner = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {paint}>{inner}</circle>'


def path(points: Sequence[tuple[float, float]], colour: str, *, width: float = 1.6, dash: str = "",
         tip: str = "", opacity: float = 1) -> str:  # fmt: skip
    """A line through points."""
    if not points:
        return ""
    place = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    inner = f"<title>{escape(tip)}</title>" if tip else ""
    return (
        f'<path d="{place}" fill="none" stroke="{colour}" stroke-width="{width:g}" stroke-opacity="{opacity:g}" '
        f'stroke-linejoin="round"{dashed}>{inner}</path>'
    )
