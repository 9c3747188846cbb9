"""How the flat gradient is cut: one contiguous part per active peer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise


@dataclass(frozen=True)
class Split:
    """Cuts a vector of `dimension` entries into `count` contiguous parts whose sizes differ by at most one."""

    dimension: int
    count: int

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each part."""
        cuts = [part * self.dimension // self.count for part in range(self.count + 1)]
        return tuple(pairwise(cuts))

    def size(self, part: int) -> int:
        """Number of entries of a part."""
        start, stop = self.bounds[part]
        return stop - start

    @property
    def largest(self) -> int:
        """Number of entries of the largest part."""
        return -(-self.dimension // self.count)


def part_radius(tau: float, size: int, genesis_peers: int, dimension: int) -> float:
    """Clipping radius of a part: `tau_j = tau sqrt(d_j n_0 / d)`.

    Args:
        tau: radius of a part of the genesis split.
        size: entries of the part (d_j).
        genesis_peers: parts of the genesis split (n_0).
        dimension: entries of the whole vector (d).

    Returns:
        The radius; the total `sum_j tau_j^2 = n_0 tau^2` does not change when bans re-split the vector.
    """
    return tau * math.sqrt(size * genesis_peers / dimension)
