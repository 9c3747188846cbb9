"""Tables of coloured cells: traffic between peers, attack by rule."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from btard.launcher import templates

Cell = tuple[float | None, str, str]
"""(value, words in the cell, tip); None: no value."""

LEVELS = 10
"""Steps from light to dark; `td.h0` to `td.h9` of launcher/templates/page.html."""
LIGHT, DARK = (236, 241, 247), (33, 102, 172)
ROW, COLUMN = "\u25c2", "\u25be"
"""What marks the worst cell of a row, and that of a column."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Values by row and column, the larger the darker, in one hue.

    Args:
        title: read out to those who do not see it.
        rows, columns: names.
        cells: by row, then column.
        low, high: the values of the lightest and the darkest colour.
        row_label, column_label: what rows and columns are.
        worst: `min` or `max`: that value of each row, and that of each column, is marked; None: none is.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    low: float
    high: float
    row_label: str = ""
    column_label: str = ""
    worst: Callable[[Iterable[float]], float] | None = None

    @property
    def html(self) -> str:
        """The matrix as a table."""
        return templates.write("matrix.html", matrix=self, turned=any(len(name) > 9 for name in self.columns))

    def level(self, value: float) -> int:
        """The step of its colour, from 0 to `LEVELS - 1`."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return min(LEVELS - 1, max(0, int(share * LEVELS)))

    def mark(self, row: int, column: int) -> str:
        """The marks of a cell; empty: it is no worst one, or shares that with more than half of its row or column."""
        marks = ROW if self._is_worst(column, self.cells[row]) else ""
        return marks + (COLUMN if self._is_worst(row, [line[column] for line in self.cells]) else "")

    def _is_worst(self, place: int, cells: Sequence[Cell]) -> bool:
        values, own = self._values(cells), cells[place][0]
        if own is None or self.worst is None:
            return False
        return own == self.worst(values) and 2 * values.count(own) <= len(values)

    @property
    def arranged(self) -> Matrix:
        """The same with the rows whose mean is worst first, and the columns whose worst value is worst last."""
        worst = self.worst
        assert worst is not None, "nothing is worse than anything"
        sign = 1 if worst is min else -1
        lines = [self._values(line) for line in self.cells]
        across = [self._values([line[column] for line in self.cells]) for column in range(len(self.columns))]
        means = [sign * statistics.fmean(values) if values else math.inf for values in lines]
        worsts = [-sign * worst(values) if values else math.inf for values in across]
        rows, columns = (
            sorted(range(len(means)), key=means.__getitem__),
            sorted(range(len(worsts)), key=worsts.__getitem__),
        )
        return replace(
            self,
            rows=[self.rows[row] for row in rows],
            columns=[self.columns[column] for column in columns],
            cells=[[self.cells[row][column] for column in columns] for row in rows],
        )

    @staticmethod
    def _values(cells: Sequence[Cell]) -> list[float]:
        return [value for value, *_ in cells if value is not None]


def colour(level: int) -> str:
    """The fill of a step of the scale."""
    share = level / (LEVELS - 1)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(LIGHT, DARK, strict=True))


def readable(fill: str) -> str:
    """Black or white, whichever has the greater contrast with a colour (one of them has more than 4.5).

    Source: WCAG 2.2, relative luminance and contrast ratio.
    """
    shares = (int(fill[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    luminance = sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#000000" if luminance > 0.179 else "#ffffff"
