"""How large messages may be: whatever honest peers have to pass on must fit into what they are able to send.

Every bound follows from the size of the genesis roster, so all honest peers refuse the same messages. A message above
its bound is dropped like one that was never sent: were it kept, or a trigger, a liar could make the views and reports
that quote it too large for anyone to send.
"""

from __future__ import annotations

import math
from functools import cache

from btard.node.protocol.wire.messages import Phase

_STEP_PHASES = 12
_FIXED_BYTES = 1280
"""Slot, twelve prefix hashes, a HELLO's fingerprint, eight accusations, two waits in each phase."""
_PER_PEER_BYTES = 64
"""A part's digest, a pair of checksums, a removal with its reason."""
_SUSPECT_BYTES = 256
_SIGNED_BYTES = 80
"""A signature and the framing around it, or an endorsement."""
MAX_PROOFS = 4
"""Pieces of evidence that one REPORT carries."""
_JOIN_BYTES = 320
"""A JOIN and its signature."""
_LEAST_DELIVERY_S, _LINK_RATE = 2.0, 12.5e6


def plain_bytes(peers: int) -> int:
    """Largest body of most messages."""
    return _FIXED_BYTES + _PER_PEER_BYTES * peers


def _bits(peers: int) -> int:
    """HELD and HAVE: a bit, one byte each, for every part of this attempt and of the step before."""
    return 2 * peers * peers


def evidence_bytes(peers: int) -> int:
    """Most evidence that one REPORT carries: as much as a few pairs of messages take, one of them full of bits.
    Stubs and SUSPECTs take less."""
    return 2 * MAX_PROOFS * (plain_bytes(peers) + _SIGNED_BYTES) + 2 * _bits(peers)


def join_bytes(peers: int) -> int:
    """Most join requests that one REPORT carries: two of each peer that is not in the roster."""
    return 2 * peers * _JOIN_BYTES


@cache
def view_messages(peers: int) -> int:
    """Most messages that an honest VIEW holds: two in every slot, and of each peer a SUSPECT of every slot but its own;
    those that nobody sends of itself leave room for the one message that may have begun the dispute."""
    return 2 * _STEP_PHASES * peers + _STEP_PHASES * peers * peers


@cache
def view_bytes(peers: int) -> int:
    """Largest body of a VIEW: two messages in every slot and all SUSPECTs."""
    plain = plain_bytes(peers) + _SIGNED_BYTES
    in_slots = 2 * peers * (_STEP_PHASES * plain + 2 * _bits(peers) + evidence_bytes(peers) + join_bytes(peers))
    return _FIXED_BYTES + in_slots + _STEP_PHASES * peers * peers * _SUSPECT_BYTES


@cache
def body_bytes(phase: Phase, peers: int) -> int:
    """Largest body of a message of `phase` among `peers` genesis peers."""
    match phase:
        case Phase.REPORT:
            return plain_bytes(peers) + evidence_bytes(peers) + join_bytes(peers)
        case Phase.HELD | Phase.HAVE:
            return plain_bytes(peers) + _bits(peers)
        case Phase.VIEW:
            return view_bytes(peers)
        case _:
            return plain_bytes(peers)


def control_bytes(peers: int) -> int:
    """Largest control message: a view of the largest size with an endorsement of every peer."""
    return view_bytes(peers) + (peers + 2) * _SIGNED_BYTES


def delivery_s(peers: int, rate: float) -> float:
    """The delivery bound D where nobody states one: two seconds, or as long as a view of the largest size takes to
    everyone over one link, rounded up to tenths.

    Args:
        peers: of the genesis roster.
        rate: minimum rate of the links; they are taken to carry 100 Mbit/s at least.
    """
    views_s = (peers - 1) * control_bytes(peers) / max(_LINK_RATE, rate)
    return max(_LEAST_DELIVERY_S, math.ceil(10 * views_s) / 10)
