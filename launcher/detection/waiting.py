"""The distribution of a waiting time in whole steps: what launcher/detection/law.py answers with."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

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
