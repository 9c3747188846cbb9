"""What travels: the signed messages of a step, as structures, the names of tensors, and how large a message may be.

node/protocol/wire/encoding.py makes bytes of them.

Whatever honest peers have to pass on must fit into what they are able to send. Every bound follows from the size of the
genesis roster, so all honest peers refuse the same messages. A message above its bound is dropped like one that was
never sent: were it kept, or a trigger, a liar could make the views and reports that quote it too large for anyone to
send.
"""

from __future__ import annotations

import math
from enum import Enum
from functools import cache
from typing import TypeAlias

import msgspec


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

    @property
    def where(self) -> tuple[bytes, bytes, int, int]:
        """Which attempt it is of: run, roster, step, number."""
        return self.run, self.roster, self.step, self.attempt


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


class Late(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """In a phase of the step before, the sender waited beyond its budget, for `peer` last: for a tensor that it was
    owed (`bulk`), or for the phase's message."""

    phase: Phase
    bulk: bool
    peer: int


class Report(Message, frozen=True, array_like=True, tag="report", forbid_unknown_fields=True):
    """An aggregator's V1 bits (one per contributor, roster order), a validator's verdicts, accusations, evidence of
    older misconduct, join requests (JOINs, and at most one application), in an undo step one bit for each contribution
    that the sender had to recompute (it is true), whom it waited for too long in the step before, and in step 0 the
    delivery and the gradient that it measured, in milliseconds."""

    checks: tuple[bool, ...]
    verdicts: tuple[Verdict, ...]
    accusations: tuple[Accusation, ...]
    evidence: tuple[bytes, ...] = ()
    joins: tuple[bytes, ...] = ()
    holds: tuple[bool, ...] = ()
    late: tuple[Late, ...] = ()
    measured: tuple[int, ...] = ()


class Application(msgspec.Struct, frozen=True, array_like=True, tag="application", forbid_unknown_fields=True):
    """A key that asks to become a member (node/protocol/state_sync/admission.py); it travels in REPORT.

    Args:
        peer: the free id that it asks for.
        number: how often this key has applied before.
        key: Ed25519.
        transport: CURVE, in Z85.
        control, bulk: where the peer is reached.
        sponsor: the founder that vouches for it, None where the roster is open to anybody.
        sponsorship: that founder's signature.
        signature: by the key itself.
    """

    peer: int
    number: int
    key: bytes
    transport: str
    control: str
    bulk: str
    sponsor: int | None
    sponsorship: bytes
    signature: bytes


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
    """Canonical body bytes, and the sender's Ed25519 signature of their place and digest."""

    body: bytes
    signature: bytes


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a signature says of where its body belongs: its slot (a SUSPECT's includes the one it names), its prefix."""

    slot: Slot
    prefix: tuple[bytes, ...]
    named: tuple[Phase, int] | None


class Stub(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A signed message without its body: enough to check the signature, and as short whatever the body holds."""

    place: Place
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


# --- names of tensors -----------------------------------------------------------------------------------------


class BulkKind(Enum):
    """Why a tensor travels: a contributor's part, an aggregate, a publication that judging asked for, or a vector of
    the agreed state, to a peer that comes back."""

    PART = "part"
    AGGREGATE = "aggregate"
    PUBLICATION = "publication"
    STATE = "state"

    # See Phase: keys of tensors are looked up by it.
    __hash__ = object.__hash__


class BulkKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Names one tensor on the wire; unsigned, since a tensor is bound by the digest its owner signed.

    `owner` is the peer that committed to the bytes, `part` their place in the split of `step`. Of the state before
    a step, part 0 are the parameters and part 1 is the optimiser's; it has no owner (0).
    """

    step: int
    attempt: int
    kind: BulkKind
    owner: int
    part: int


# --- how large a message may be -------------------------------------------------------------------------------


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
MAX_ACCUSATIONS = 8
"""Accusations that one REPORT carries."""
_JOIN_BYTES = 320
"""A JOIN and its signature."""
TRIES = 3
"""Applications of one key: each can keep the door shut for others."""
APPLICATION_BYTES = 1000
"""An application. Its carrier and one other peer at least are in the roster, and send no JOINs: what `join_bytes` keeps
for theirs has room for it."""
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
