"""Who takes part: the genesis members, the active ones among them, and the sizes that follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from btard.node.errors import LocalProtocolError
from btard.node.protocol.wire.encoding import digest, number


class Barred(Protocol):
    """A verdict, as far as it concerns rosters."""

    @property
    def step(self) -> int:
        """In which it was found."""

    @property
    def attempt(self) -> int:
        """At that step."""

    @property
    def peer(self) -> int:
        """Whom it hits."""

    @property
    def removed(self) -> bool:
        """False for a reformed peer."""


@dataclass(frozen=True, slots=True)
class Roster:
    """Peers keep their genesis id for ever; places are positions in `active`.

    Args:
        keys: Ed25519 public key of every genesis peer, by id.
        active: ids of the active peers, ascending.
    """

    keys: tuple[bytes, ...]
    active: tuple[int, ...]

    @staticmethod
    def genesis(keys: Iterable[bytes]) -> Roster:
        """The roster a run starts with: everyone active."""
        keys = tuple(keys)
        return Roster(keys, tuple(range(len(keys))))

    @property
    def digest(self) -> bytes:
        """Digest of keys and active ids, part of every slot."""
        return digest("roster", *self.keys, b"active", *map(number, self.active))

    @property
    def genesis_faults(self) -> int:
        """f_0: how many genesis peers may be faulty over the whole run."""
        return (len(self.keys) + 1) // 2 - 1

    @property
    def faults(self) -> int:
        """f: how many of the active peers a quorum tolerates."""
        return (len(self.active) + 1) // 2 - 1

    def place(self, peer: int) -> int:
        """Position of an active peer, which is the part it aggregates.

        Raises:
            LocalProtocolError: the peer is not active.
        """
        try:
            return self.active.index(peer)
        except ValueError as error:
            raise LocalProtocolError(f"peer {peer} is not active: {self.active}") from error

    def at(self, bans: Iterable[Barred], returned: Iterable[tuple[int, int]], step: int, attempt: int) -> Roster:
        """The roster of an attempt, by the verdicts that took effect before it and the peers let back until then.

        Args:
            bans: verdicts.
            returned: (peer, the first step of which it is in the roster again).
            step, attempt: of the attempt.
        """
        back = {peer: since for peer, since in returned if since <= step}
        out = (
            ban.peer
            for ban in bans
            if ban.removed and (ban.step, ban.attempt) < (step, attempt) and ban.step >= back.get(ban.peer, 0)
        )
        return Roster.genesis(self.keys).without(out)

    def without(self, removed: Iterable[int]) -> Roster:
        """The roster after removals."""
        gone = set(removed)
        return replace(self, active=tuple(peer for peer in self.active if peer not in gone))
