"""Who takes part: the founders, the newcomers of an open roster, the active ones, and the sizes that follow."""

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
    """Members keep their id for ever; places are positions in `active`.

    Args:
        keys: Ed25519 public key of every peer, by id: of the founders, then of newcomers. Of an id that nobody has it
            is empty, so that sizes of messages follow from the most members there may be, and never change.
        active: ids of the active peers, ascending.
        vacancies: ids at the end that are for newcomers.
        admitted: newcomers that have become members so far.
    """

    keys: tuple[bytes, ...]
    active: tuple[int, ...]
    vacancies: int = 0
    admitted: int = 0

    @staticmethod
    def genesis(keys: Iterable[bytes], members: int = 0) -> Roster:
        """The roster a run starts with: every founder active.

        Args:
            keys: of the founders.
            members: most members there may be, the founders included; 0: no more than them.
        """
        keys = tuple(keys)
        vacancies = max(members - len(keys), 0)
        return Roster((*keys, *(b"",) * vacancies), tuple(range(len(keys))), vacancies)

    @property
    def founders(self) -> int:
        """How many peers the run started with: theirs are the lowest ids."""
        return len(self.keys) - self.vacancies

    @property
    def founding(self) -> Roster:
        """The roster that the run started with."""
        return Roster.genesis(self.keys[: self.founders], len(self.keys))

    @property
    def digest(self) -> bytes:
        """Digest of the founders' keys, the active ids, and the active newcomers' keys: part of every slot."""
        founders = self.founders
        newcomers = [self.keys[peer] for peer in self.active if peer >= founders]
        return digest("roster", *self.keys[:founders], b"active", *map(number, self.active), *newcomers)

    @property
    def genesis_faults(self) -> int:
        """f_0: how many of the members so far, the founders and all that were admitted, may be faulty over the run."""
        return (self.founders + self.admitted + 1) // 2 - 1

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
        joined = tuple(sorted(peer for peer in back if peer >= self.founders))
        return replace(self, active=(*range(self.founders), *joined), admitted=len(joined)).without(out)

    def naming(self, newcomers: Iterable[tuple[int, bytes]], admitted: int) -> Roster:
        """The roster with these newcomers' keys, by id, in the place of those known before.

        Args:
            newcomers: (id, key); an id that is none for newcomers is passed over.
            admitted: how many of them have become members.
        """
        if not self.vacancies:
            return self
        keys = dict(newcomers)
        named = (keys.get(peer, b"") for peer in range(self.founders, len(self.keys)))
        return replace(self, keys=(*self.keys[: self.founders], *named), admitted=admitted)

    def without(self, removed: Iterable[int]) -> Roster:
        """The roster after removals."""
        gone = set(removed)
        return replace(self, active=tuple(peer for peer in self.active if peer not in gone))
