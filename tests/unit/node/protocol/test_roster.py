"""Members and places."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from btard.node.errors import LocalProtocolError
from btard.node.protocol.roster import Roster

SIX = Roster.genesis(bytes([peer]) * 32 for peer in range(6))


def test_ids_last_and_places_move() -> None:
    left = SIX.without([1, 4])
    assert left.active == (0, 2, 3, 5)
    assert [left.place(peer) for peer in left.active] == [0, 1, 2, 3]
    assert left.keys == SIX.keys
    assert SIX.active == (0, 1, 2, 3, 4, 5), "a roster is frozen"


def test_a_removed_peer_has_no_place() -> None:
    with pytest.raises(LocalProtocolError, match="peer 4 is not active"):
        SIX.without([4]).place(4)


@pytest.mark.parametrize(("peers", "faults"), [(2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3), (256, 127)])
def test_faults(peers: int, faults: int) -> None:
    """f = ceil(n/2) - 1."""
    roster = Roster.genesis(bytes(32) for _ in range(peers))
    assert roster.genesis_faults == roster.faults == faults
    assert roster.without([0]).genesis_faults == faults
    assert roster.without([0]).faults == peers // 2 - 1


def test_the_digest_names_keys_and_active_peers() -> None:
    digests = {SIX.digest, SIX.without([5]).digest, SIX.without([0]).digest,
               Roster.genesis(reversed(SIX.keys)).digest, Roster.genesis(SIX.keys[:5]).digest}  # fmt: skip
    assert len(digests) == 5
    assert SIX.without([]).digest == SIX.digest


# --- newcomers ----------------------------------------------------------------------------------------------------

KEY = bytes([77]) * 32
ROOM = Roster.genesis(SIX.keys, 9)


@dataclass(frozen=True)
class Out:
    """A verdict, as far as it concerns rosters."""

    step: int
    peer: int
    attempt: int = 0
    removed: bool = True


def test_room_for_newcomers_changes_nothing_before_somebody_comes() -> None:
    assert (ROOM.founders, len(ROOM.keys), ROOM.active) == (6, 9, SIX.active)
    assert (ROOM.digest, ROOM.faults, ROOM.genesis_faults) == (SIX.digest, SIX.faults, SIX.genesis_faults)
    assert SIX.naming([(7, KEY)], 1) == SIX, "a closed roster knows no newcomers"


def test_a_newcomers_key_counts_once_it_is_active() -> None:
    known = ROOM.naming([(7, KEY), (3, KEY)], 0)
    assert known.keys == (*SIX.keys, b"", KEY, b""), "a founder's key stays"
    assert known.digest == SIX.digest, "on probation it is no member"
    joined = known.at((), ((7, 4),), 4, 0)
    assert known.at((), ((7, 4),), 3, 0) == known
    assert joined.active == (0, 1, 2, 3, 4, 5, 7) and (joined.faults, joined.genesis_faults) == (3, 3)
    other = ROOM.naming([(7, bytes([78]) * 32)], 0).at((), ((7, 4),), 4, 0)
    assert len({SIX.digest, joined.digest, other.digest}) == 3
    assert joined.founding == ROOM


def test_f_counts_all_that_were_ever_members() -> None:
    known = ROOM.naming([(6, KEY), (7, KEY)], 0)
    back = ((6, 2), (7, 5))
    assert [known.at((), back, step, 0).genesis_faults for step in (1, 2, 5)] == [2, 3, 3]
    banned = known.at((Out(3, 6), Out(4, 1)), back, 5, 0)
    assert banned.active == (0, 2, 3, 4, 5, 7) and (banned.faults, banned.genesis_faults) == (2, 3)
    assert known.at((Out(3, 6),), back, 4, 0).active == SIX.active
