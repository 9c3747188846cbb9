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
    height, left = 34 + 26 * len(rows) + 30, 130
    longest = max((high for _, _, high in rows), default=1.0) or 1.0
    across = Scale(0, longest, left, WIDTH - 110)
    parts = []
    for tick in across.ticks():
        parts.append(svg.line(across(tick), 12, across(tick), height - 44))
        parts.append(svg.text(across(tick), height - 28, svg.number(tick), anchor="middle"))
    for place, (name, median, high) in enumerate(rows):
        y = 18 + 26 * place
        parts.append(svg.text(left - 10, y + 13, name, anchor="end", kind="ink"))
        parts.append(svg.rectangle(left, y, across(median) - left, 17, svg.COLOURS[0], tip=f"median {median:.1f} ms"))
        parts.append(svg.line(across(high), y - 1, across(high), y + 18, colour=svg.RED, width=2))
        parts.append(svg.text(across(high) + 8, y + 13, f"{median:.1f} / {high:.1f}", size=11))
    parts.append(svg.text((left + WIDTH - 110) / 2, height - 8, "milliseconds: median / 95th percentile",
                          anchor="middle", kind="ink"))  # fmt: skip
    return svg.figure(WIDTH, height, title, parts)


def against_law(title: str, law: Mapping[int, float], seen: Sequence[int], label: str) -> str:
    """A histogram of counts beside the probabilities that a law gives them.

    Args:
        title: read out to those who do not see it.
        law: probability by count.
        seen: the counts observed.
        label: of the horizontal axis.
    """
    height, left, bottom = 290, 58, 250
    most = max([*seen, *(count for count, p in law.items() if p > 0.004)], default=1)
    observed = Counter(seen)
    shares = {count: number / len(seen) for count, number in observed.items()} if seen else {}
    top = 1.12 * max([*law.values(), *shares.values(), 0.01])
    across, up = Scale(0.5, most + 0.5, left, WIDTH - 190), Scale(0, top, bottom, 14)
    width = (WIDTH - 190 - left) / most
    parts = []
    for tick in up.ticks(5):
        parts.append(svg.line(left, up(tick), WIDTH - 190, up(tick)))
        parts.append(svg.text(left - 8, up(tick) + 4, svg.number(tick), anchor="end"))
    for count in range(1, most + 1):
        if count in shares:
            tip = f"{observed[count]} of {len(seen)} at {count}"
            parts.append(svg.rectangle(across(count) - 0.4 * width, up(shares[count]), 0.8 * width,
                                       bottom - up(shares[count]), svg.COLOURS[0], opacity=0.75, tip=tip))  # fmt: skip
        if most <= 30 or count % 5 == 0:
            parts.append(svg.text(across(count), bottom + 17, str(count), anchor="middle", size=11))
    points = [(across(count), up(law.get(count, 0.0))) for count in range(1, most + 1)]
    parts.append(svg.path(points, svg.RED, width=1.6))
    parts += [svg.circle(x, y, 2.6, svg.RED, tip=f"law: {law.get(count, 0):.4f} at {count}")
              for count, (x, y) in enumerate(points, 1)]  # fmt: skip
    parts.append(svg.text((left + WIDTH - 190) / 2, height - 4, label, anchor="middle", kind="ink"))
    parts.append(svg.text(14, 130, "probability", anchor="middle", kind="ink", turn=-90))
    parts.append(svg.rectangle(WIDTH - 172, 14, 20, 12, svg.COLOURS[0], opacity=0.75))
    parts.append(svg.text(WIDTH - 145, 25, f"seen ({len(seen)})", kind="ink"))
    parts.append(svg.line(WIDTH - 172, 40, WIDTH - 152, 40, colour=svg.RED, width=2))
    parts.append(svg.text(WIDTH - 145, 44, "the law", kind="ink"))
    return svg.figure(WIDTH, height, title, parts)
