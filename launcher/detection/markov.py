"""A homogeneous Markov chain that ends, as arrays, and how long it lasts: what launcher/detection/law.py computes with.

NumPy and not torch: a page is drawn in a process whose torch has as many threads as the machine has cores, and products
as small as these would spend their time waiting for those threads wherever the cores are busy.

Source: Kemeny and Snell 1960, chapter III (absorbing chains).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import fsum
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from btard.node.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Waiting:
    """The distribution of a waiting time, up to a horizon.

    Args:
        survival: `survival[t]` is the probability of more than t; the last entry is the mass beyond the horizon.
    """

    survival: tuple[float, ...]

    def probability(self, time: int) -> float:
        """Probability of exactly `time`, which must lie within the horizon."""
        return (self.survival[time - 1] - self.survival[time]) if time > 0 else 1.0 - self.survival[0]

    @property
    def mean(self) -> float:
        """Expectation of the waiting time cut off at the horizon: exact but for `survival[-1]`'s tail."""
        return fsum(self.survival[:-1])

    def quantile(self, level: float) -> int:
        """Least t with `P(time <= t) >= level`.

        Raises:
            ConfigError: it lies beyond the horizon.
        """
        for time, more in enumerate(self.survival):
            if 1.0 - more >= level:
                return time
        raise ConfigError(f"the {level} quantile lies beyond the horizon of {len(self.survival) - 1}; raise it")


_K = TypeVar("_K", bound=Hashable)
_Floats: TypeAlias = NDArray[np.float64]
_Indices: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Chain(Generic[_K]):
    """A chain that ends; its probabilities are the same at every step.

    Args:
        places: the S places that can be reached.
        start_S: probabilities of the places at first.
        ends_S: probability that the chain ends after a step in each place.
        from_M: of each of the M moves the place that it leaves, in the order of the places that they reach.
        chance_M: their probabilities.
        to_R: the R places that a move reaches, ascending.
        first_R: the first move to each of them.
    """

    places: tuple[_K, ...]
    start_S: _Floats
    ends_S: _Floats
    from_M: _Indices
    chance_M: _Floats
    to_R: _Indices
    first_R: _Indices

    def moved(self, at_SH: _Floats) -> _Floats:
        """Probabilities `[S, H]` one step later, column by column."""
        after_SH = np.zeros_like(at_SH)
        after_SH[self.to_R] = np.add.reduceat(at_SH[self.from_M] * self.chance_M[:, None], self.first_R, axis=0)
        return after_SH


def chain(law: Mapping[_K, float], moves: Callable[[_K], Iterable[tuple[_K | None, float]]]) -> Chain[_K]:
    """The chain that begins by a law.

    Args:
        law: the probabilities of the places at first.
        moves: where a place leads, with probabilities; None: the chain ends. Something must lead on.
    """
    index = {place: number for number, place in enumerate(law)}
    places = list(index)
    found: list[tuple[int, int, float]] = []
    ends: list[float] = []
    for number, place in enumerate(places):  # grows while it is walked
        ends.append(0.0)
        for after, chance in moves(place):
            if after is None:
                ends[number] += chance
                continue
            if after not in index:
                index[after] = len(places)
                places.append(after)
            found.append((index[after], number, chance))
    to, left, chances = zip(*sorted(found), strict=True)
    to_R, first_R = np.unique(np.array(to, np.intp), return_index=True)
    start = [law.get(place, 0.0) for place in places]
    return Chain(
        tuple(places), np.array(start), np.array(ends), np.array(left, np.intp), np.array(chances), to_R, first_R
    )


def absorbed(among: Chain[_K], counts: Callable[[_K], bool], horizon: int) -> Waiting:
    """Law of the number of counted steps before a chain ends.

    Args:
        among: the chain.
        counts: whether a step in a place is counted.
        horizon: how many steps are looked at; what lasts longer is the tail.
    """
    skipped_S = np.array([not counts(place) for place in among.places])
    # at_SH[i, k]: the chain is in place i, and k steps were not counted.
    at_SH = np.zeros((len(among.places), horizon + 1 if skipped_S.any() else 1))
    at_SH[:, 0] = among.start_S
    ends_H = np.zeros(horizon + 1)
    for done in range(1, horizon + 1):
        width = min(done + 1, at_SH.shape[1])
        now_SH = at_SH[:, :width]
        now_SH[skipped_S, 1:] = now_SH[skipped_S, :-1]
        now_SH[skipped_S, 0] = 0.0
        ends_H[done + 1 - width : done + 1] += np.einsum("s,sh->h", among.ends_S, now_SH)[::-1]
        at_SH[:, :width] = among.moved(now_SH)
    return Waiting(tuple(max(0.0, 1.0 - gone) for gone in accumulate(ends_H.tolist())))
