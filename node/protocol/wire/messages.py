"""The signed messages of a step, as structures; node/protocol/wire/encoding.py makes bytes of them."""

from __future__ import annotations

from enum import Enum
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
    """An aggregator's V1 bits (one per contributor, roster order), a validator's verdicts, accusations,
    evidence of older misconduct, join requests, in an undo step one bit for each contribution that the sender had to
    recompute (it is true), whom it waited for too long in the step before, and in step 0 the delivery and the gradient
    that it measured, in milliseconds."""

    checks: tuple[bool, ...]
    verdicts: tuple[Verdict, ...]
    accusations: tuple[Accusation, ...]
    evidence: tuple[bytes, ...] = ()
    joins: tuple[bytes, ...] = ()
    holds: tuple[bool, ...] = ()
    late: tuple[Late, ...] = ()
    measured: tuple[int, ...] = ()


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
