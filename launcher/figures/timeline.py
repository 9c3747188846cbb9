"""What each peer did in each step: contributed, validated, attacked, and when it was banned."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from btard.launcher.figures import svg
from btard.launcher.figures.svg import Scale

WIDTH = 760
_HONEST, _VALIDATOR, _OUT = "#4477aa", "#ccbb44", "#bbbbbb"


@dataclass(frozen=True, slots=True)
class Lane:
    """One peer: the steps in which it did something, in ascending order.

    Args:
        name: of the peer.
        active: steps with it in the roster.
        validated: steps in which it validated instead of contributing.
        attacked: steps that it attacked.
        bans: step and what to say of it.
    """

    name: str
    active: Sequence[int]
    validated: Collection[int] = ()
    attacked: Collection[int] = ()
    bans: Mapping[int, str] = field(default_factory=dict)


def draw(title: str, steps: int, lanes: Sequence[Lane]) -> str:
    """The timeline as SVG, one lane per peer."""
    left, height = 110, 30 * len(lanes) + 66
    across = Scale(0, max(1, steps), left, WIDTH - 20)
    parts = []
    for place, lane in enumerate(lanes):
        y = 10 + 30 * place
        parts.append(svg.text(left - 10, y + 15, lane.name, anchor="end", kind="ink"))
        parts.append(svg.rectangle(left, y, WIDTH - 20 - left, 20, _OUT, opacity=0.25, tip="not in the roster"))
        for first, last in runs(lane.active):
            parts.append(svg.rectangle(across(first), y, across(last + 1) - across(first), 20, _HONEST, opacity=0.55,
                                       tip=f"{lane.name}: active from {first} to {last}"))  # fmt: skip
        parts += _ticks(across, sorted(lane.validated), y + 12, 8, _VALIDATOR, "validated")
        parts += _ticks(across, sorted(lane.attacked), y, 12, svg.RED, "attacked")
        for step, words in lane.bans.items():
            parts.append(svg.line(across(step), y - 4, across(step), y + 24, colour="#aa3377", width=2.4))
            parts.append(svg.circle(across(step), y - 3, 3.4, "#aa3377", tip=f"step {step}: {words}"))
    base = 10 + 30 * len(lanes)
    for tick in across.ticks(8):
        parts.append(svg.line(across(tick), base - 4, across(tick), base + 3))
        parts.append(svg.text(across(tick), base + 16, svg.number(tick), anchor="middle"))
    legend = (("active", _HONEST), ("validates", _VALIDATOR), ("attacks", svg.RED), ("ban", "#aa3377"), ("out", _OUT))
    for place, (name, colour) in enumerate(legend):
        x = left + 110 * place
        parts.append(svg.rectangle(x, base + 30, 14, 12, colour, opacity=0.8))
        parts.append(svg.text(x + 20, base + 40, name, kind="ink"))
    return svg.figure(WIDTH, height, title, parts)


def runs(steps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and last of each stretch of consecutive numbers."""
    start = last = None
    for step in steps:
        if start is None or last is None:
            start = step
        elif step != last + 1:
            yield start, last
            start = step
        last = step
    if start is not None and last is not None:
        yield start, last


def _ticks(across: Scale, steps: Sequence[int], y: float, height: float, colour: str, what: str) -> Iterator[str]:
    """One mark per stretch: at 900 steps a single step is less than a pixel wide."""
    for first, last in runs(steps):
        width = max(0.8, across(last + 1) - across(first))
        yield svg.rectangle(
            across(first), y, width, height, colour, tip=f"{what} {first}" + f" to {last}" * (last > first)
        )
