"""What paired runs decide: a mean difference over draws of the protocol with an exact interval, nothing without one.

All runs of one protocol seed share keys and coins, and so who is caught when: however many they are, they are one
observation of the law of detection. So differences (attacked less clean, of the same seeds) are averaged within their
draw, and the draws are what an interval counts.

The interval is that of the exact sign-flip test: draws are independent, and each draw's deviation from the effect is as
likely as its opposite. Then the effect lies between any two neighbours among the 2^m - 1 means of the non-empty subsets
of m draws with the same chance 2^-m, and from the k-th least to the k-th largest mean with chance 1 - 2k / 2^m. Fewer
draws than `needed` have no interval at a level at all, whatever they show: 6 at 95 %. Draws chosen at quantiles of the
law instead of at random make it wider than it has to be, since what lies between the quantiles then counts as chance.

Source: Hartigan 1969, "Using subsample values as typical values"; Fisher 1935 (the sign-flip test).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
_MOST_EXACT = 16
"""Draws whose subsets are all looked at; of more, as many subsets at random, which covers exactly as well."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean paired difference over draws.

    Args:
        by_draw: mean difference of each draw's runs.
        runs: how many differences they are made of.
        level: of the interval, 0 to 1.
        interval: least and largest effect that the draws do not exclude at that level; None: too few draws.
    """

    by_draw: Mapping[Hashable, float]
    runs: int
    level: float
    interval: tuple[float, float] | None

    @property
    def mean(self) -> float:
        """Mean over the draws, each with the same weight."""
        return statistics.fmean(self.by_draw.values())

    @property
    def standardised(self) -> float | None:
        """The mean in standard deviations between draws (Cohen's d of pairs); None where they do not differ."""
        values = tuple(self.by_draw.values())
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return self.mean / spread if spread else None

    def bounds(self, digits: int = 4) -> str:
        """The interval in words, or how many draws it would take."""
        if self.interval is None:
            return f"none: {len(self.by_draw)} of {needed(self.level)} draws"
        return " to ".join(f"{end:+.{digits}f}" for end in self.interval)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A part of a claim: an effect, and where it must lie for the claim to be true.

    Args:
        name: what is compared.
        effect: None: there are no runs.
        above: the claim says that the effect is larger than this.
        below: and less than this.
    """

    name: str
    effect: Effect | None
    above: float = -math.inf
    below: float = math.inf

    @property
    def verdict(self) -> str:
        """SUPPORTED where the whole interval lies where the claim says, CONTRADICTED where nothing of it does."""
        if self.effect is None or self.effect.interval is None:
            return UNDECIDED
        low, high = self.effect.interval
        if self.above < low and high < self.below:
            return SUPPORTED
        return CONTRADICTED if high < self.above or low > self.below else UNDECIDED

    @property
    def claimed(self) -> str:
        """Where the effect should lie, in words."""
        ends = [f"above {self.above:g}"] if self.above > -math.inf else []
        return " and ".join([*ends, *([f"below {self.below:g}"] if self.below < math.inf else [])])


def needed(level: float) -> int:
    """The least number of draws that have an interval at this level.

    Args:
        level: of the interval, 0 to 1.
    """
    return math.ceil(math.log2(2.0 / (1.0 - level)) - 1e-9)


def estimate(differences: Iterable[tuple[Hashable, float]], parts: int = 1) -> Effect | None:
    """The effect that paired differences show.

    Args:
        differences: the draw of each, and its value.
        parts: how many effects a claim rests on; their intervals cover all of them at once at `LEVEL` (Bonferroni).

    Returns:
        None without a difference.
    """
    found: dict[Hashable, list[float]] = {}
    for draw, value in differences:
        found.setdefault(draw, []).append(value)
    if not found:
        return None
    means = {draw: statistics.fmean(values) for draw, values in found.items()}
    level = 1.0 - (1.0 - LEVEL) / parts
    return Effect(means, sum(map(len, found.values())), level, _interval(tuple(means.values()), level))


def decide(parts: Sequence[Comparison], complete: bool, refuted: bool = False) -> str:
    """The verdict on a claim.

    Args:
        parts: what it rests on; one that is contradicted is enough, support takes all of them.
        complete: nothing that the claim speaks of is missing.
        refuted: a single run contradicts what is said of all.
    """
    verdicts = {part.verdict for part in parts}
    if refuted or CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if complete and verdicts == {SUPPORTED} else UNDECIDED


def _interval(values: Sequence[float], level: float) -> tuple[float, float] | None:
    if len(values) < needed(level):
        return None
    chosen_SM = _subsets(len(values))
    means_S = np.sort(chosen_SM @ np.array(values) / chosen_SM.sum(axis=1))
    outside = math.floor((1.0 - level) / 2.0 * (len(means_S) + 1) + 1e-9)
    return float(means_S[outside - 1]), float(means_S[-outside])


@lru_cache(maxsize=32)
def _subsets(count: int) -> NDArray[np.int64]:
    """Non-empty subsets of so many draws: all, or as many of them at random, by a fixed seed."""
    if count <= _MOST_EXACT:
        return (np.arange(1, 2**count)[:, None] >> np.arange(count)) & 1
    chosen_SM = np.random.default_rng(0).integers(0, 2, (2**_MOST_EXACT - 1, count))
    chosen_SM[~chosen_SM.any(axis=1), 0] = 1
    return chosen_SM
