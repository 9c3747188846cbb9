"""Means and medians of a few runs; what they decide: inference.py beside this."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


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


def sample(values: Sequence[float | None]) -> Sample | None:
    """The known values; None if there is none."""
    known = tuple(value for value in values if value is not None)
    return Sample(known) if known else None


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}"
