"""Means, medians and intervals of a few runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95 % points of Student's t by degrees of freedom; beyond 30 the normal's is used.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Some values of one quantity.

    Args:
        values: in the order of the runs.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def median(self) -> float:
        """Median: one dead network does not move it."""
        return statistics.median(self.values)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % confidence interval of the mean, by Student's t; None for a single value."""
        count = len(self.values)
        if count < 2:
            return None
        point = _T95[count - 2] if count - 1 <= len(_T95) else 1.96
        return point * statistics.stdev(self.values) / math.sqrt(count)

    def phrase(self, digits: int = 4) -> str:
        """`0.9845 ± 0.0004`, without the interval for a single value."""
        half = self.half_width
        return f"{self.mean:.{digits}f}" + (f" ± {half:.{digits}f}" if half is not None else "")


def sample(values: Sequence[float | None]) -> Sample | None:
    """The known values; None if there is none."""
    known = tuple(value for value in values if value is not None)
    return Sample(known) if known else None


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}"
