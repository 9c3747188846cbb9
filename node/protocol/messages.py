"""The signed messages of a step and their canonical bytes: the one place that encodes them.

A body is a MessagePack array with a type tag; `decode_body` refuses every encoding but the one `encode_body`
makes, so equality of bodies is equality of bytes, and hashes and slots concern bodies without signatures.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec

from node.errors import WireError
from node.protocol.bulk import BulkKey
from node.protocol.digest import digest

MAX_MESSAGE_BYTES = 32 << 20
"""Whatever the roster; node/protocol/bounds.py has the bounds that follow from its size."""


class Phase(Enum):
    """The phases of an attempt, in order.

    RESEND to AGG2 only run when an AGG complains, PUBLISH to JUDGE only when judging needs them. SUSPECT, VIEW and
    OUTCOME are slots of a dispute, outside the order; so is JOIN, of a peer on probation, which is in no roster.
    """

    HELLO = 0
    COMMIT = 1
    AGG = 2
    RESEND = 3
    HELD = 4
    AGG2 = 5
    REVEAL = 6
    CHECKSUMS = 7
    REPORT = 8
    PUBLISH = 9
    HAVE = 10
    JUDGE = 11
    CLOSE = 12
    SUSPECT = 13
    VIEW = 14
    OUTCOME = 15
    JOIN = 16

    # Enum's own hashes the name, in Python: a step looks some hundred messages up by their phase.
    __hash__ = object.__hash__


class Slot(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a message belongs; two different bodies validly signed for one slot prove equivocation."""

    run: bytes
    roster: bytes
    step: int
    attempt: int
    phase: Phase
    sender: int


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What every message carries: its slot and one hash per finished phase of the attempt."""

    slot: Slot
    prefix: tuple[bytes, ...]


class Hello(Message, frozen=True, array_like=True, tag="hello", forbid_unknown_fields=True):
    """Before step 0: the digest of the run's configuration and the sender's environment fingerprint."""

    genesis: bytes
    fingerprint: bytes


class Commit(Message, frozen=True, array_like=True, tag="commit", forbid_unknown_fields=True):
    """A digest per part of the sender's gradient (empty from a validator), and its randomness commitment."""

    parts: tuple[bytes, ...]
    randomness: bytes


class Missing(msgspec.Struct, frozen=True, array_like=True, tag="missing", forbid_unknown_fields=True):
    """A complaint in the place of a digest: the contributors whose part did not arrive or was unusable."""

    owners: tuple[int, ...]


class Agg(Message, frozen=True, array_like=True, tag="agg", forbid_unknown_fields=True):
    """Digest of the sender's aggregate (empty in a step without gradients), or a complaint."""

    aggregate: bytes | Missing


class Resend(Message, frozen=True, array_like=True, tag="resend", forbid_unknown_fields=True):
    """After a complaint: the parts that the sender owes are published as bulk."""


class Held(Message, frozen=True, array_like=True, tag="held", forbid_unknown_fields=True):
    """One bit per part that was complained of, in the transcript's order: the sender holds the committed bytes."""

    have: tuple[bool, ...]


class Agg2(Message, frozen=True, array_like=True, tag="agg2", forbid_unknown_fields=True):
    """The aggregate's digest from a peer that had complained; empty from all others."""

    aggregate: bytes


class Reveal(Message, frozen=True, array_like=True, tag="reveal", forbid_unknown_fields=True):
    """Opens the randomness commitment; `have[j]` is true if the sender holds aggregate j."""

    x: bytes
    salt: bytes
    have: tuple[bool, ...]


class Checksums(Message, frozen=True, array_like=True, tag="checksums", forbid_unknown_fields=True):
    """A contributor's `s_i^j` and `norm_i^j` for every part j (empty from a validator)."""

    s: tuple[float, ...]
    norms: tuple[float, ...]


class Verdict(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A validator's finding on its target's gradient and checksums of the step before."""

    target: int
    correct: bool


class AccusationKind(Enum):
    """What an accusation says is false; judged by everyone, the loser is banned."""

    GRADIENT = "gradient"
    CHECKSUM = "checksum"
    AGGREGATE = "aggregate"


class Accusation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`kind` was false of `accused` for part `part` in the step and attempt named."""

    kind: AccusationKind
    accused: int
    step: int
    attempt: int
    part: int


class Report(Message, frozen=True, array_like=True, tag="report", forbid_unknown_fields=True):
    """An aggregator's V1 bits (one per contributor, roster order), a validator's verdicts, accusations,
    evidence of older misconduct, join requests, and in an undo step one bit for each contribution that the sender had
    to recompute: it is true."""

    checks: tuple[bool, ...]
    verdicts: tuple[Verdict, ...]
    accusations: tuple[Accusation, ...]
    evidence: tuple[bytes, ...] = ()
    joins: tuple[bytes, ...] = ()
    holds: tuple[bool, ...] = ()


class Publish(Message, frozen=True, array_like=True, tag="publish", forbid_unknown_fields=True):
    """The sender's publications of this attempt follow as bulk; which ones is a function of the transcript."""


class Have(Message, frozen=True, array_like=True, tag="have", forbid_unknown_fields=True):
    """One bit per publication, in the transcript's order: the sender holds bytes that match the digest."""

    have: tuple[bool, ...]


class Judge(Message, frozen=True, array_like=True, tag="judge", forbid_unknown_fields=True):
    """With mixed environments: for each gradient accusation, true if the sender finds the accused guilty."""

    guilty: tuple[bool, ...]


class Removal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A verdict of the whole roster: who, for what, and on whose word (None: a predicate of the transcript)."""

    peer: int
    reason: str
    accuser: int | None


class Void(msgspec.Struct, frozen=True, array_like=True, tag="void", forbid_unknown_fields=True):
    """The attempt has no effect but the removals."""

    removals: tuple[Removal, ...]


class Close(Message, frozen=True, array_like=True, tag="close", forbid_unknown_fields=True):
    """The digest of the whole state after the step, or VOID with the removals."""

    value: bytes | Void


class Suspect(Message, frozen=True, array_like=True, tag="suspect", forbid_unknown_fields=True):
    """The sender's deadline passed without the message of slot (`named`, `peer`) of this attempt.

    Its own slot includes the slot it names: one peer may suspect several.
    """

    named: Phase
    peer: int


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Canonical body bytes and the sender's Ed25519 signature of them."""

    body: bytes
    signature: bytes


class View(Message, frozen=True, array_like=True, tag="view", forbid_unknown_fields=True):
    """In a dispute: every signed message of the attempt that the sender holds, at most two per slot."""

    messages: tuple[Signed, ...]


class Outcome(Message, frozen=True, array_like=True, tag="outcome", forbid_unknown_fields=True):
    """How a dispute ended: the value that stands (None: the attempt is void and starts again) and the removals."""

    value: bytes | Void | None
    removals: tuple[Removal, ...]


class Join(Message, frozen=True, array_like=True, tag="join", forbid_unknown_fields=True):
    """From a peer on probation: the digest of its gradient of the slot's step. The slot names the genesis roster."""

    gradient: bytes


Body: TypeAlias = (
    Hello
    | Commit
    | Agg
    | Resend
    | Held
    | Agg2
    | Reveal
    | Checksums
    | Report
    | Publish
    | Have
    | Judge
    | Close
    | Suspect
    | View
    | Outcome
    | Join
)

PHASE_OF: dict[type[Message], Phase] = {
    Hello: Phase.HELLO,
    Commit: Phase.COMMIT,
    Agg: Phase.AGG,
    Resend: Phase.RESEND,
    Held: Phase.HELD,
    Agg2: Phase.AGG2,
    Reveal: Phase.REVEAL,
    Checksums: Phase.CHECKSUMS,
    Report: Phase.REPORT,
    Publish: Phase.PUBLISH,
    Have: Phase.HAVE,
    Judge: Phase.JUDGE,
    Close: Phase.CLOSE,
    Suspect: Phase.SUSPECT,
    View: Phase.VIEW,
    Outcome: Phase.OUTCOME,
    Join: Phase.JOIN,
}


class Endorsed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A VIEW on its way through a dispute, with the signatures of those who relayed it, in order.

    An endorsement signs the view's digest together with the endorsers before, so that a chain cannot be re-ordered.
    """

    view: Signed
    endorsements: tuple[tuple[int, bytes], ...]


_encoder = msgspec.msgpack.Encoder()
_body_decoder: msgspec.msgpack.Decoder[Body] = msgspec.msgpack.Decoder(Body)
_signed_decoder = msgspec.msgpack.Decoder(Signed)
_key_decoder = msgspec.msgpack.Decoder(BulkKey)
_endorsed_decoder = msgspec.msgpack.Decoder(Endorsed)


def encode(value: msgspec.Struct | tuple[object, ...] | list[object]) -> bytes:
    """Canonical bytes of any structure of the protocol."""
    return _encoder.encode(value)


def encode_body(body: Body) -> bytes:
    """Canonical bytes of a message body: what is signed, hashed and compared."""
    return _encoder.encode(body)


def decode_body(data: bytes) -> Body:
    """The body that `data` is the canonical encoding of.

    Raises:
        WireError: too large, not a body, not canonical, or the type does not match the slot's phase.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"a message body of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    try:
        body = _body_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message body: {error}") from error
    if _encoder.encode(body) != data:
        raise WireError("a message body is not in its canonical encoding")
    if PHASE_OF[type(body)] is not body.slot.phase:
        raise WireError(f"a {type(body).__name__} in a slot of phase {body.slot.phase.name}")
    return body


def encode_signed(signed: Signed) -> bytes:
    """Wire bytes of a signed message."""
    return _encoder.encode(signed)


def decode_signed(data: bytes) -> Signed:
    """The signed message in `data`; the body inside stays opaque until `decode_body`.

    Raises:
        WireError: too large or not a signed message.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"a signed message of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    try:
        return _signed_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a signed message: {error}") from error


def encode_endorsed(endorsed: Endorsed) -> bytes:
    """Wire bytes of a relayed view."""
    return _encoder.encode(endorsed)


def decode_endorsed(data: bytes) -> Endorsed:
    """The relayed view in `data`.

    Raises:
        WireError: too large or not a relayed view.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"a relayed view of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    try:
        return _endorsed_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a relayed view: {error}") from error


def decode_key(data: bytes) -> BulkKey:
    """The name of a tensor that a neighbour asks for.

    Raises:
        WireError: not a tensor's name.
    """
    try:
        return _key_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a tensor's name: {error}") from error


def endorsement_bytes(view: bytes, owner: int, before: tuple[int, ...]) -> bytes:
    """What an endorser signs: the view's body digest, its owner and the endorsers before it."""
    return b"btard/1/endorse\x00" + digest("endorse", view, _encoder.encode((owner, before)))


def body_digest(body: bytes) -> bytes:
    """Digest of canonical body bytes, as it enters the prefix hash of its phase."""
    return digest("body", body)


def signing_bytes(body: bytes) -> bytes:
    """What the signature covers: the body under the protocol's own domain."""
    return b"btard/1/message\x00" + body
