"""What a peer may be charged with, how a charge is reported, and the charges that signatures alone prove.

Equivocation: two signatures of which no honest peer makes both. Silence that a certificate hides: a peer could keep its
CLOSE back until everyone disputes, and then show it in its view: the certificate wins, nobody is removed, and the next
step goes the same way. The suspicions outlast the dispute, and are carried into the next REPORT: at least one of f + 1
SUSPECTs of one slot is an honest peer's, which never suspects an honest one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from btard.node.errors import WireError
from btard.node.protocol.api import Accused
from btard.node.protocol.attempt.attempt import Attempt, Transcript
from btard.node.protocol.settings import Verify
from btard.node.protocol.wire.certificate import open_signed
from btard.node.protocol.wire.encoding import decoded, encode, stub, stub_bytes
from btard.node.protocol.wire.messages import Phase, Removal, Signed, Stub, Suspect

_pair_decoder = msgspec.msgpack.Decoder(tuple[Stub, Stub])
_suspects_decoder = msgspec.msgpack.Decoder(tuple[Signed, ...])


class OutOfBounds(msgspec.Struct, frozen=True, array_like=True, tag="bounds", forbid_unknown_fields=True):
    """V0: a claimed checksum that no honest peer can have; guilty as it stands."""

    accused: int
    part: int


class Averaging(msgspec.Struct, frozen=True, array_like=True, tag="averaging", forbid_unknown_fields=True):
    """CheckAveraging(part): everyone publishes the part, everyone recomputes.

    `cause` is V0, V2, V3, audit or accusation; only the last has an accuser.
    """

    part: int
    cause: str
    accuser: int | None = None


class FalseChecksum(msgspec.Struct, frozen=True, array_like=True, tag="checksum", forbid_unknown_fields=True):
    """Somebody (by V1 the part's aggregator) says that a contributor's claim for one part is false."""

    accused: int
    part: int
    accuser: int


class FalseGradient(msgspec.Struct, frozen=True, array_like=True, tag="gradient", forbid_unknown_fields=True):
    """The drawn validator says that its target's gradient or checksums of the step before are false."""

    accused: int
    accuser: int


class FalseHistory(msgspec.Struct, frozen=True, array_like=True, tag="history", forbid_unknown_fields=True):
    """In an undo step somebody disowns what the accused contributed to an earlier step; everyone recomputes it."""

    accused: int
    step: int
    attempt: int


class Withheld(msgspec.Struct, frozen=True, array_like=True, tag="withheld", forbid_unknown_fields=True):
    """Fewer than f + 1 peers say that they hold bytes which the accused owed to all: a part, its aggregate, or a
    publication (`stage`) of part `part` in `step`."""

    accused: int
    stage: str
    step: int
    part: int


class Unusable(msgspec.Struct, frozen=True, array_like=True, tag="unusable", forbid_unknown_fields=True):
    """The accused committed to entries that are not finite or beyond 2^40; the published part proves it."""

    accused: int
    part: int


class Broken(msgspec.Struct, frozen=True, array_like=True, tag="broken", forbid_unknown_fields=True):
    """Edges broke the accused off: to more than f_0 peers, or the fourth of one pair; or late edges, as often."""

    accused: int
    other: int | None


class Equivocation(msgspec.Struct, frozen=True, array_like=True, tag="equivocation", forbid_unknown_fields=True):
    """Two signatures of the accused of which no honest peer makes both (see `contradict`)."""

    accused: int
    first: Stub
    second: Stub


class Silent(msgspec.Struct, frozen=True, array_like=True, tag="silent", forbid_unknown_fields=True):
    """More than f active peers signed that they missed one message of the accused at their deadlines."""

    accused: int
    phase: Phase


class FalseProbation(msgspec.Struct, frozen=True, array_like=True, tag="probation", forbid_unknown_fields=True):
    """On probation the accused signed another digest than its gradient of the step before has (the JOIN, encoded)."""

    accused: int
    join: bytes


class Ruled(msgspec.Struct, frozen=True, array_like=True, tag="ruled", forbid_unknown_fields=True):
    """The union of views of a dispute convicts the accused; the majority's OUTCOMEs carry it."""

    accused: int
    rule: str


Charge: TypeAlias = (
    OutOfBounds
    | Averaging
    | FalseChecksum
    | FalseGradient
    | FalseHistory
    | Withheld
    | Unusable
    | Broken
    | Equivocation
    | Ruled
    | Silent
    | FalseProbation
)


@dataclass(frozen=True, slots=True)
class Guilt:
    """One peer's guilt under one charge."""

    peer: int
    reason: str
    accuser: int | None
    charge: Charge

    @property
    def removal(self) -> Removal:
        """What CLOSE and OUTCOME say of it."""
        return Removal(self.peer, self.reason, self.accuser)

    @staticmethod
    def ruled(removal: Removal) -> Guilt:
        """Guilt that the roster's majority signed and we have no proof of our own for."""
        return Guilt(removal.peer, removal.reason, removal.accuser, Ruled(removal.peer, removal.reason))


KINDS = ("bounds", "averaging", "checksum", "gradient", "history", "withheld", "unusable", "silence", "edges",
         "equivocation", "probation")  # fmt: skip
"""What an accusation is for, as it is reported (see `accusation_of`): before the colon, if there is one."""


class Publication(msgspec.Struct, frozen=True):
    """A part that its owner has to publish: of this attempt, or of the committed one before it."""

    step: int
    attempt: int
    owner: int
    part: int


def accusation_of(attempt: Attempt, charge: Charge) -> Accused:
    """A charge as it is reported to the outside."""
    step, number = attempt.step, attempt.number
    match charge:
        case OutOfBounds(accused=accused, part=part):
            return Accused(step, number, "bounds", accused, part, None)
        case Averaging(part=part, cause=cause, accuser=accuser):
            return Accused(step, number, f"averaging:{cause}", attempt.roster.active[part], part, accuser)
        case FalseChecksum(accused=accused, part=part, accuser=accuser):
            return Accused(step, number, "checksum", accused, part, accuser)
        case FalseGradient(accused=accused, accuser=accuser):
            return Accused(step, number, "gradient", accused, None, accuser)
        case FalseHistory(accused=accused):
            return Accused(step, number, "history", accused, None, None)
        case Withheld(accused=accused, stage=stage, part=part):
            return Accused(step, number, f"withheld:{stage}", accused, part, None)
        case Unusable(accused=accused, part=part):
            return Accused(step, number, "unusable", accused, part, None)
        case Silent(accused=accused, phase=phase):
            return Accused(step, number, f"silence:{phase.name}", accused, None, None)
        case Broken(accused=accused):
            return Accused(step, number, "edges", accused, None, None)
        case Equivocation(accused=accused):
            return Accused(step, number, "equivocation", accused, None, None)
        case FalseProbation(accused=accused):
            return Accused(step, number, "probation", accused, None, None)
        case Ruled(accused=accused, rule=rule):
            return Accused(step, number, rule, accused, None, None)


def encode_equivocation(first: Stub, second: Stub) -> bytes:
    """Two messages that contradict each other as they travel in REPORT: their signatures, places and digests."""
    return encode((first, second))


def encode_equivocations(transcript: Transcript) -> list[bytes]:
    """Every contradiction in a transcript, as it travels in REPORT: two messages for one slot; a message whose prefix
    is not one of its sender's CLOSE."""
    pairs = [(stub(first), stub(second)) for first, second in transcript.conflicts.values()]
    closes = transcript.signed(Phase.CLOSE)
    for odd in map(stub, transcript.split or ()):
        close = closes.get(odd.place.slot.sender)
        if close is not None and contradict(stub(close), odd):
            pairs.append((stub(close), odd))
    return [encode_equivocation(*pair) for pair in pairs]


def contradict(first: Stub, second: Stub) -> bool:
    """True if no honest peer signs both: two bodies for one slot, or two histories of one attempt. What an honest peer
    has seen of an attempt only grows, and its CLOSE comes last."""
    one, other = first.place, second.place
    if (one.slot, one.named) == (other.slot, other.named):
        return first.body != second.body
    if (one.slot.where, one.slot.sender) != (other.slot.where, other.slot.sender):
        return False
    short, long = sorted((one, other), key=lambda place: len(place.prefix))
    count = len(short.prefix)
    return long.prefix[:count] != short.prefix or (len(long.prefix) > count and short.slot.phase is Phase.CLOSE)


def equivocation(data: bytes, run: bytes, keys: tuple[bytes, ...], verify: Verify) -> Equivocation | None:
    """The charge that a pair of signatures proves, None if they prove nothing."""
    try:
        first, second = decoded(_pair_decoder, data, "a pair of stubs")
    except WireError:
        return None
    slot = first.place.slot
    if not contradict(first, second) or slot.run != run or not 0 <= slot.sender < len(keys):
        return None
    key = keys[slot.sender]
    valid = all(verify(key, stub_bytes(each.place, each.body), each.signature) for each in (first, second))
    return Equivocation(slot.sender, first, second) if valid else None


# --- silence --------------------------------------------------------------------------------------------------


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
        messages = decoded(_suspects_decoder, data, "a list of signed messages")
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
