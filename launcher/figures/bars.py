"""Bars: how long phases take, and how often something took how many steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from btard.launcher.figures import svg
from btard.launcher.figures.svg import Scale

WIDTH = 760


@dataclass(frozen=True, slots=True)
class Durations:
    """Median (bar) and 95th percentile (tick) of each row.

    Args:
        title: read out to those who do not see it.
        rows: (name, median, 95th percentile), milliseconds.
    """

    title: str
    rows: Sequence[tuple[str, float, float]]

    @property
    def html(self) -> str:
        """The bars as SVG."""
        across = Scale(0, max((high for _, _, high in self.rows), default=1.0) or 1.0, 130, WIDTH - 110)
        height = 34 + 26 * len(self.rows) + 30
        return svg.draw(
            "durations",
            width=WIDTH,
            height=height,
            title=self.title,
            across=across,
            rows=self.rows,
            colour=svg.COLOURS[0],
        )


@dataclass(frozen=True, slots=True)
class AgainstLaw:
    """A histogram of counts beside the probabilities that a law gives them.

    Args:
        title: read out to those who do not see it.
        law: probability by count.
        seen: the counts observed.
        label: of the horizontal axis.
    """

    title: str
    law: Mapping[int, float]
    seen: Sequence[int]
    label: str

    @property
    def points(self) -> list[tuple[int, float]]:
        """The law's probabilities from 1 to where it fades, or to the largest count observed."""
        most = max([*self.seen, *(count for count, p in self.law.items() if p > 0.004)], default=1)
        return [(count, self.law.get(count, 0.0)) for count in range(1, most + 1)]

    @property
    def observed(self) -> Counter[int]:
        """How often each count was observed."""
        return Counter(self.seen)

    @property
    def html(self) -> str:
        """The histogram as SVG."""
        observed, most = self.observed, len(self.points)
        top = 1.12 * max([*self.law.values(), *(number / len(self.seen) for number in observed.values()), 0.01])
        return svg.draw(
            "law",
            width=WIDTH,
            height=290,
            title=self.title,
            label=self.label,
            colour=svg.COLOURS[0],
            observed=observed,
            seen=len(self.seen),
            most=most,
            across=Scale(0.5, most + 0.5, 58, WIDTH - 190),
            up=Scale(0, top, 250, 14),
            points=self.points,
        )
