"""Tables of coloured cells: traffic between peers, attack by rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from btard.launcher.figures import svg

Cell = tuple[float | None, str, str]
"""(value, words in the cell, tip); None: no value."""


def draw(
    title: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]],
    colour: Callable[[float], str], *, cell_width: int = 84, row_label: str = "", column_label: str = "",
) -> str:  # fmt: skip
    """The matrix as SVG.

    Args:
        title: read out to those who do not see it.
        rows, columns: names.
        cells: by row, then column.
        colour: of a value.
        cell_width: pixels.
        row_label, column_label: what rows and columns are.
    """
    left = 26 + 7 * max((len(name) for name in rows), default=0) + (18 if row_label else 0)
    turned = any(7 * len(name) > cell_width for name in columns)
    head = (18 if column_label else 0) + (8 + int(5.2 * max(map(len, columns), default=0)) if turned else 22)
    side = 28
    width = left + cell_width * len(columns) + (5 * max(map(len, columns)) if turned else 12)
    return svg.draw(
        "matrix", width=max(width, 320), height=head + side * len(rows) + 10, title=title, rows=rows, columns=columns,
        cells=cells, colour=colour, readable=readable, left=left, head=head, side=side, turned=turned,
        cell_width=cell_width, row_label=row_label, column_label=column_label,
    )  # fmt: skip


def shade(low: float, high: float, dark: tuple[int, int, int] = (33, 102, 172)) -> Callable[[float], str]:
    """From almost white at `low` to `dark` at `high`."""

    def colour(value: float) -> str:
        share = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0
        return _mix((236, 241, 247), dark, share)

    return colour


def verdict(low: float, high: float) -> Callable[[float], str]:
    """From red at `low` over yellow to green at `high`."""

    def colour(value: float) -> str:
        share = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 1.0
        if share < 0.5:
            return _mix((214, 82, 82), (244, 226, 140), share * 2)
        return _mix((244, 226, 140), (86, 166, 96), share * 2 - 1)

    return colour


def readable(fill: str) -> str:
    """Black or white, whichever has the greater contrast with a colour (one of them has more than 4.5).

    Source: WCAG 2.2, relative luminance and contrast ratio.
    """
    shares = (int(fill[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    luminance = sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#000000" if luminance > 0.179 else "#ffffff"


def _mix(start: tuple[int, int, int], stop: tuple[int, int, int], share: float) -> str:
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(start, stop, strict=True))
