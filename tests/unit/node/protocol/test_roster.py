"""Members and places."""

from __future__ import annotations

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
