"""What each peer did in each step: contributed, validated, attacked, and when it was banned."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from btard.launcher.figures import svg
from btard.launcher.figures.svg import Scale

WIDTH = 760
COLOURS = {"active": "#4477aa", "validates": "#ccbb44", "attacks": svg.RED, "ban": "#aa3377", "out": "#bbbbbb"}
"""What the legend shows, in its order."""


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


@dataclass(frozen=True, slots=True)
class Timeline:
    """One lane per peer, from step 0 to `steps`; the title is read out to those who do not see it."""

    title: str
    steps: int
    lanes: Sequence[Lane]

    @property
    def html(self) -> str:
        """The timeline as SVG."""
        across = Scale(0, max(1, self.steps), 110, WIDTH - 20)
        height = 30 * len(self.lanes) + 66
        return svg.draw(
            "timeline",
            width=WIDTH,
            height=height,
            title=self.title,
            across=across,
            lanes=self.lanes,
            runs=runs,
            colours=COLOURS,
        )


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
