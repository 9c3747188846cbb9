"""What a lying teacher can make of a snapshot: each lie leaves the states as they are, so that it is like those
of honest peers, and changes what only the liar's own snapshot holds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from btard.node.crypto.signing import Signer
from btard.node.protocol.state_sync.messages import Past, Snapshot
from btard.node.protocol.wire.encoding import decode_body, encode_body, signing_bytes
from btard.node.protocol.wire.messages import (
    Body,
    Close,
    Commit,
    Hello,
    Join,
    Outcome,
    Phase,
    Signed,
    Slot,
    Suspect,
    View,
)

Lie = Callable[[Snapshot, Signer, int], Snapshot]
"""(what an honest peer tells, the liar's key, its id) -> what the liar tells."""

DIGEST = bytes(32)


def signed(body: Body, signer: Signer) -> Signed:
    data = encode_body(body)
    return Signed(data, signer.sign(signing_bytes(body, data)))


def _past(snapshot: Snapshot, **changed: object) -> Snapshot:
    past = snapshot.past if snapshot.past is not None else Past(-1, None, (), ())
    return msgspec.structs.replace(snapshot, past=msgspec.structs.replace(past, **changed))


def _messages(snapshot: Snapshot) -> tuple[Signed, ...]:
    return snapshot.past.messages if snapshot.past is not None else ()


def _adding(make: Callable[[Slot], Body], phase: Phase) -> Lie:
    """One more message of the attempt, that the liar signs."""

    def lie(snapshot: Snapshot, signer: Signer, liar: int) -> Snapshot:
        if not _messages(snapshot):
            return snapshot
        slot = decode_body(_messages(snapshot)[0].body).slot
        body = make(msgspec.structs.replace(slot, phase=phase, sender=liar))
        return _past(snapshot, messages=(*_messages(snapshot), signed(body, signer)))

    return lie


def _repeated(snapshot: Snapshot, signer: Signer, liar: int) -> Snapshot:
    return msgspec.structs.replace(
        snapshot, now=msgspec.structs.replace(snapshot.now, certificate=snapshot.now.certificate * 20)
    )


def _unsigned(snapshot: Snapshot, signer: Signer, liar: int) -> Snapshot:
    return _past(snapshot, messages=tuple(Signed(each.body, bytes(64)) for each in _messages(snapshot)))


LIES: dict[str, Lie] = {
    "a SUSPECT": _adding(lambda slot: Suspect(slot, (), Phase.AGG, (slot.sender + 1) % 2), Phase.SUSPECT),
    "a HELLO": _adding(lambda slot: Hello(slot, (), DIGEST, DIGEST), Phase.HELLO),
    "a VIEW": _adding(lambda slot: View(slot, (), ()), Phase.VIEW),
    "an OUTCOME": _adding(lambda slot: Outcome(slot, (), None, ()), Phase.OUTCOME),
    "a JOIN": _adding(lambda slot: Join(slot, (), DIGEST), Phase.JOIN),
    "a CLOSE": _adding(lambda slot: Close(slot, (), DIGEST), Phase.CLOSE),
    "a second COMMIT": _adding(lambda slot: Commit(slot, (), (), DIGEST), Phase.COMMIT),
    "a large COMMIT": _adding(lambda slot: Commit(slot, (), (DIGEST,) * 4096, DIGEST), Phase.COMMIT),
    "no messages": lambda snapshot, signer, liar: _past(snapshot, messages=()),
    "a message left out": lambda snapshot, signer, liar: _past(snapshot, messages=_messages(snapshot)[:-1]),
    "every message twice": lambda snapshot, signer, liar: _past(snapshot, messages=_messages(snapshot) * 2),
    "no message signed": _unsigned,
    "other norms": lambda snapshot, signer, liar: _past(snapshot, norms=((1.0,) * 1000,) * 10),
    "a certificate twenty times": _repeated,
    "no certificate": lambda snapshot, signer, liar: msgspec.structs.replace(
        snapshot, now=msgspec.structs.replace(snapshot.now, certificate=())
    ),
}
