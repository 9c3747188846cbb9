"""Silence that a certificate hides: f + 1 SUSPECTs of one slot, carried into the next REPORT.

A peer could keep its CLOSE back until everyone disputes, and then show it in its view: the certificate wins, nobody is
removed, and the next step goes the same way. The suspicions outlast the dispute: at least one of f + 1 is an honest
peer's, which never suspects an honest one.
"""

from __future__ import annotations

import msgspec

from node.errors import WireError
from node.protocol.attempt import Attempt
from node.protocol.encoding import decode_body, decoded, encode, signing_bytes
from node.protocol.messages import Phase, Signed, Suspect
from node.protocol.transcript import Transcript

_decoder = msgspec.msgpack.Decoder(tuple[Signed, ...])


class Silent(msgspec.Struct, frozen=True, array_like=True, tag="silent", forbid_unknown_fields=True):
    """More than f active peers signed that they missed one message of the accused at their deadlines."""

    accused: int
    phase: Phase


def encode_silences(transcript: Transcript, faults: int) -> list[bytes]:
    """Every slot that more than f peers suspect, as it travels in REPORT: their SUSPECTs.

    A few more than f + 1 of them: some of their senders may be removed before the REPORT. No more than a pair of
    messages may take (node/protocol/bounds.py). Nothing where more than f peers were suspected: the network was cut.
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
        bodies = [decode_body(signed.body) for signed in messages]
    except WireError:
        return None
    suspects = {body.slot.sender: body for body in bodies if isinstance(body, Suspect)}
    if len(suspects) != len(messages) or len(suspects) <= attempt.roster.faults:
        return None
    first = next(iter(suspects.values()))
    named = {(body.slot.run, body.slot.roster, body.slot.step, body.slot.attempt, body.named, body.peer)
             for body in suspects.values()}  # fmt: skip
    recent = attempt.step - 1 <= first.slot.step and (first.slot.step, first.slot.attempt) < (
        attempt.step,
        attempt.number,
    )
    active = set(attempt.roster.active)
    if len(named) != 1 or first.slot.run != attempt.settings.run or not recent:
        return None
    if first.peer not in active or first.peer in suspects or not set(suspects) <= active:
        return None
    keys, verify = attempt.roster.keys, attempt.tools.verify
    valid = all(
        verify(keys[body.slot.sender], signing_bytes(body, signed.body), signed.signature)
        for body, signed in zip(bodies, messages, strict=True)
    )
    return Silent(first.peer, first.named) if valid else None
