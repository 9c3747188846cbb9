"""Silence that a certificate hides: f + 1 SUSPECTs of one slot, carried into the next REPORT.

A peer could keep its CLOSE back until everyone disputes, and then show it in its view: the certificate wins, nobody is
removed, and the next step goes the same way. The suspicions outlast the dispute: at least one of f + 1 is an honest
peer's, which never suspects an honest one.
"""

from __future__ import annotations

import msgspec

from btard.node.errors import WireError
from btard.node.protocol.attempt.attempt import Attempt, Transcript
from btard.node.protocol.wire.certificate import open_signed
from btard.node.protocol.wire.encoding import decoded, encode
from btard.node.protocol.wire.messages import Phase, Signed, Suspect

_decoder = msgspec.msgpack.Decoder(tuple[Signed, ...])


class Silent(msgspec.Struct, frozen=True, array_like=True, tag="silent", forbid_unknown_fields=True):
    """More than f active peers signed that they missed one message of the accused at their deadlines."""

    accused: int
    phase: Phase


def encode_silences(transcript: Transcript, faults: int) -> list[bytes]:
    """Every slot that more than f peers suspect, as it travels in REPORT: their SUSPECTs.

    A few more than f + 1 of them: some of their senders may be removed before the REPORT. No more than a pair of
    messages may take (node/protocol/wire/messages.py). Nothing where more than f peers were suspected: the network
    was cut.
    """
    silent = transcript.silent(faults + 1)
    if len({peer for _, peer in silent}) > faults:
        return []
    most = len(transcript.active) // 2 + 8
    return [encode(tuple(signed for _, signed in sorted(transcript.suspects[slot].items())[:most])) for slot in silent]


def silence(data: bytes, attempt: Attempt) -> Silent | None:
    """The charge that a list of SUSPECTs supports in an attempt, None if they prove nothing.

    They must be of one attempt of this step or the one before, and of more than f distinct active peers.
    """
    try:
        messages = decoded(_decoder, data, "a list of signed messages")
    except WireError:
        return None
    active, suspects = attempt.roster.active, dict[int, Suspect]()
    if not attempt.roster.faults < len(messages) <= len(active):
        return None
    for signed in messages:
        # No `where`: removals since may have changed the roster. One of the senders is honest, and named its own.
        body = open_signed(
            signed, attempt.roster.keys, attempt.tools.verify, run=attempt.settings.run, kind=Suspect, senders=active
        )
        if isinstance(body, str) or body.slot.sender in suspects:
            return None
        suspects[body.slot.sender] = body
        if _told(body) != _told(next(iter(suspects.values()))):
            return None
    first = next(iter(suspects.values()))
    there, here = (first.slot.step, first.slot.attempt), (attempt.step, attempt.number)
    if there[0] < attempt.step - 1 or there >= here or first.peer not in active or first.peer in suspects:
        return None
    return Silent(first.peer, first.named)


def _told(body: Suspect) -> object:
    """Of which attempt it is, and which message did not come."""
    return body.slot.where, body.named, body.peer
