"""The model of a network: when the copies of a message arrive. Pure and seeded; the drivers own the clocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct

from blake3 import blake3

from btard.node.errors import ConfigError

_UNIT = 2.0**-53
_NO_DRAWS = (0.0,) * 5
_FIVE = Struct("<5Q")


@dataclass(frozen=True, slots=True)
class Passage:
    """How one copy of a message crosses a link, in seconds.

    Args:
        propagation_s: delay and jitter.
        repeated_s: spent on transmissions that were lost.
        transfer_s: the message's own bytes.
        queued_s: bytes of earlier messages that were in the way.
    """

    propagation_s: float
    repeated_s: float = 0.0
    transfer_s: float = 0.0
    queued_s: float = 0.0

    @property
    def total_s(self) -> float:
        """From sending to arrival."""
        return self.propagation_s + self.repeated_s + self.transfer_s + self.queued_s


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

    @property
    def mean_delay_s(self) -> float:
        """What delay and jitter come to on average."""
        return self.delay_s + self.jitter_s / 2

    @property
    def certain(self) -> bool:
        """True if no draw decides what becomes of a message: every copy takes the same way."""
        return self.jitter_s == self.loss == self.duplicate == 0

    def losses(self, lost: float) -> int:
        """How many transmissions in a row are lost, from a uniform draw in [0, 1): P(at least k) = loss^k."""
        most = self.transmissions
        if self.loss >= 1:
            return most if most is not None else 1
        found = int(math.log(1 - lost) / math.log(self.loss)) if self.loss > 0 else 0
        return found if most is None else min(found, most)

    def passage(self, size_bytes: int, lost: float, late: float) -> Passage | None:
        """How one copy crosses, from two uniform draws in [0, 1); None if it never arrives."""
        losses = self.losses(lost)
        if self.loss >= 1 or (self.transmissions is not None and losses >= self.transmissions):
            return None
        transfer_s = size_bytes / self.bandwidth_bytes_per_s
        return Passage(self.delay_s + self.jitter_s * late, losses * self.retransmit_s, transfer_s)


@dataclass(frozen=True, slots=True)
class Crossing:
    """What becomes of one message: the copies that arrive, and the transmissions that were lost on the way."""

    passages: list[Passage]
    lost: int


@dataclass(frozen=True, slots=True)
class LinkModel(Link):
    """All links of a cluster: one default, and exceptions by (sender, receiver).

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
        crossing = self.cross(self.between(sender, receiver), (sender, receiver, sequence), size_bytes)
        return [passage.total_s for passage in crossing.passages]

    def between(self, sender: int, receiver: int) -> Link:
        """The link of one direction."""
        return self.overrides.get((sender, receiver), self)

    def cross(self, link: Link, message: tuple[int, int, int], size_bytes: int) -> Crossing:
        """What becomes of a message (sender, receiver, sequence) on a link, by the draws that belong to it."""
        draws = _NO_DRAWS if link.certain else self._uniform(*message)
        copies, lost = [link.passage(size_bytes, draws[0], draws[1])], link.losses(draws[0])
        if draws[2] < link.duplicate:
            copies.append(link.passage(size_bytes, draws[3], draws[4]))
            lost += link.losses(draws[3])
        return Crossing([copy for copy in copies if copy is not None], lost)

    def _uniform(self, *message: int) -> Sequence[float]:
        """Five numbers in [0, 1) that belong to one message."""
        name = b"".join(number.to_bytes(16, "little", signed=True) for number in (self.seed, *message))
        stream = blake3(name, derive_key_context="btard 1 links").digest(length=40)
        return [(number >> 11) * _UNIT for number in _FIVE.unpack(stream)]
