"""Bars: how long phases take, and how often something took how many steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from btard.launcher.figures import svg
from btard.launcher.figures.svg import Scale

WIDTH = 760


def durations(title: str, rows: Sequence[tuple[str, float, float]]) -> str:
    """Median (bar) and 95th percentile (tick) of each row.

    Args:
        title: read out to those who do not see it.
        rows: (name, median, 95th percentile), milliseconds.
    """
    longest = max((high for _, _, high in rows), default=1.0) or 1.0
    across = Scale(0, longest, 130, WIDTH - 110)
    height = 34 + 26 * len(rows) + 30
    return svg.draw(
        "durations", width=WIDTH, height=height, title=title, across=across, rows=rows, colour=svg.COLOURS[0]
    )


def against_law(title: str, law: Mapping[int, float], seen: Sequence[int], label: str) -> str:
    """A histogram of counts beside the probabilities that a law gives them.

    Args:
        title: read out to those who do not see it.
        law: probability by count.
        seen: the counts observed.
        label: of the horizontal axis.
    """
    most = max([*seen, *(count for count, p in law.items() if p > 0.004)], default=1)
    observed = Counter(seen)
    top = 1.12 * max([*law.values(), *(number / len(seen) for number in observed.values()), 0.01])
    return svg.draw(
        "law", width=WIDTH, height=290, title=title, label=label, colour=svg.COLOURS[0], observed=observed,
        seen=len(seen), most=most, across=Scale(0.5, most + 0.5, 58, WIDTH - 190), up=Scale(0, top, 250, 14),
        points=[(count, law.get(count, 0.0)) for count in range(1, most + 1)],
    )  # fmt: skip
