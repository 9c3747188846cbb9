"""The model of a network: when the copies of a message arrive. Pure and seeded; the simulator owns the clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from blake3 import blake3

from node.errors import ConfigError

_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two peers.

    Args:
        delay_s: time every message takes.
        jitter_s: further time, uniform from zero to this; messages may overtake each other.
        loss: probability that one transmission is lost.
        retransmit_s: time after which a lost transmission is repeated.
        transmissions: how often it is tried; afterwards the message never arrives. None: until it arrives.
        duplicate: probability that a second copy arrives, with a delay of its own.
        bandwidth_bytes_per_s: rate at which a message's bytes follow its first one.

    Raises:
        ConfigError: a value out of range.
    """

    delay_s: float = 0.001
    jitter_s: float = 0.0
    loss: float = 0.0
    retransmit_s: float = 0.2
    transmissions: int | None = None
    duplicate: float = 0.0
    bandwidth_bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        for name in ("delay_s", "jitter_s", "retransmit_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"link {name} {getattr(self, name)} must be finite and not negative")
        for name in ("loss", "duplicate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"link {name} {getattr(self, name)} is a probability; use 0 to 1")
        if self.transmissions is not None and self.transmissions < 1:
            raise ConfigError(f"link transmissions {self.transmissions} is too small; use at least 1")
        if not self.bandwidth_bytes_per_s > 0:
            raise ConfigError(f"link bandwidth_bytes_per_s {self.bandwidth_bytes_per_s} must be positive")

    def arrival(self, size_bytes: int, lost: float, late: float) -> float | None:
        """Seconds until one copy arrives, from two uniform draws in [0, 1); None if it never does."""
        if self.loss >= 1:
            return None
        # P(at least k losses in a row) = loss^k: the inverse of that law instead of a loop over draws.
        losses = int(math.log(1 - lost) / math.log(self.loss)) if self.loss > 0 else 0
        if self.transmissions is not None and losses >= self.transmissions:
            return None
        transfer_s = size_bytes / self.bandwidth_bytes_per_s
        return self.delay_s + self.jitter_s * late + losses * self.retransmit_s + transfer_s


@dataclass(frozen=True, slots=True)
class LinkModel(Link):
    """All links of a simulated cluster: one default, and exceptions by (sender, receiver).

    Args:
        seed: of all draws; the same seed and message always give the same deliveries.
        overrides: links that differ, by direction; `Link(loss=1)` cuts one.
    """

    seed: int = 0
    overrides: Mapping[tuple[int, int], Link] = field(default_factory=dict)

    def deliveries(self, sender: int, receiver: int, sequence: int, size_bytes: int) -> list[float]:
        """Seconds after sending at which each copy of a message arrives; empty if it is lost for good.

        Args:
            sequence: number of the message on this link, the only thing that tells two messages apart.
            size_bytes: its length.
        """
        link = self.overrides.get((sender, receiver), self)
        draws = self._uniform(sender, receiver, sequence)
        copies = [link.arrival(size_bytes, draws[0], draws[1])]
        if draws[2] < link.duplicate:
            copies.append(link.arrival(size_bytes, draws[3], draws[4]))
        return [delay for delay in copies if delay is not None]

    def _uniform(self, *message: int) -> list[float]:
        """Five numbers in [0, 1) that belong to one message."""
        name = b"".join(number.to_bytes(16, "little", signed=True) for number in (self.seed, *message))
        stream = blake3(name, derive_key_context="btard 1 links").digest(length=40)
        return [(int.from_bytes(stream[i : i + 8], "little") >> 11) * _UNIT for i in range(0, 40, 8)]
