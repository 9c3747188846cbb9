"""What counts as signed, and what ends an attempt: the one function that opens a signed message, the one type that says
what is a certificate.

An attempt ends by a certificate: CLOSEs of its whole roster, equal in value and prefix, or OUTCOMEs of more than half
of it, equal in value and removals. (In step 0 a peer passes HELLOs on in the place of one: they end nothing.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, overload

from blake3 import blake3

from btard.node.errors import WireError
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Decode, Verify
from btard.node.protocol.wire.encoding import decode_body, signing_bytes
from btard.node.protocol.wire.messages import (
    Body,
    Close,
    Message,
    Outcome,
    Removal,
    Signed,
    View,
    Void,
    body_bytes,
    view_bytes,
    view_messages,
)

M = TypeVar("M", bound=Message)
Where: TypeAlias = tuple[bytes, bytes, int, int]
"""An attempt: run, digest of the roster, step, number."""

_REMEMBERED = 4096
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64

_SENTENCES = {
    "oversized": "a message{} is larger than one of its phase may be",
    "malformed": "a message{} is not the canonical encoding of one",
    "unexpected": "a message{} is of another kind",
    "foreign_run": "a message is of another slot: of another run",
    "wrong_slot": "a message is of another slot",
    "unknown_sender": "a message{} is of nobody in the run",
    "not_active": "a message{} is of a peer that was not active then",
    "bad_signature": "a signature{} is not valid",
}


# --- one message ----------------------------------------------------------------------------------------------


@overload
def open_signed(
    signed: Signed, keys: tuple[bytes, ...], verify: Verify, *, run: bytes, kind: type[M],
    where: Where | None = None, senders: Container[int] | None = None,
    rule: Callable[[Body], str | None] | None = None, decode: Decode = decode_body,
) -> M | str: ...  # fmt: skip


@overload
def open_signed(
    signed: Signed, keys: tuple[bytes, ...], verify: Verify, *, run: bytes, kind: None = None,
    where: Where | None = None, senders: Container[int] | None = None,
    rule: Callable[[Body], str | None] | None = None, decode: Decode = decode_body,
) -> Body | str: ...  # fmt: skip


def open_signed(
    signed: Signed, keys: tuple[bytes, ...], verify: Verify, *, run: bytes, kind: type[Message] | None = None,
    where: Where | None = None, senders: Container[int] | None = None,
    rule: Callable[[Body], str | None] | None = None, decode: Decode = decode_body,
) -> Message | str:  # fmt: skip
    """What a signed message says, once nothing is wrong with it; the signature, which costs most, comes last.

    Args:
        signed: from anyone.
        keys: Ed25519 keys of the genesis roster, by id.
        verify: the signature check.
        run: that it has to be of.
        kind: of message that it has to be; None: any.
        where: the attempt that it has to be of; None: the caller knows none, or looks for it by `rule`.
        senders: whose it may be; None: of anyone in the genesis roster.
        rule: what else the caller asks before the signature: why it refuses a body, None if it does not.
        decode: reads the body; simulated peers share one that remembers.

    Returns:
        The body, or why it is refused: `oversized`, `malformed`, `unexpected` (another kind), `foreign_run`,
        `unknown_sender`, `not_active`, `wrong_slot`, what `rule` says, or `bad_signature`.
    """
    peers = len(keys)
    if len(signed.body) > view_bytes(peers):
        return "oversized"
    try:
        body = decode(signed.body)
    except WireError:
        return "malformed"
    slot = body.slot
    if len(signed.body) > body_bytes(slot.phase, peers):
        return "oversized"
    if isinstance(body, View) and len(body.messages) > view_messages(peers):
        return "oversized"
    if kind is not None and not isinstance(body, kind):
        return "unexpected"
    if slot.run != run:
        return "foreign_run"
    if not 0 <= slot.sender < peers:
        return "unknown_sender"
    if senders is not None and slot.sender not in senders:
        return "not_active"
    if where is not None and slot.where != where:
        return "wrong_slot"
    refused = rule(body) if rule is not None else None
    if refused is not None:
        return refused
    if not verify(keys[slot.sender], signing_bytes(body, signed.body), signed.signature):
        return "bad_signature"
    return body


def sentence(refused: str, signed: Signed) -> str:
    """The reason why a message was refused, for people.

    Args:
        refused: as `open_signed` returned it.
        signed: the message.
    """
    try:
        whose = f" of peer {decode_body(signed.body).slot.sender}"
    except WireError:
        whose = ""
    return _SENTENCES.get(refused, refused).format(whose)


def remembering(verify: Verify) -> Verify:
    """A signature check that remembers by digest what it found valid: views and replays repeat messages."""
    known: dict[bytes, None] = {}

    def check(public: bytes, message: bytes, signature: bytes) -> bool:
        # Both are of fixed length here, so that no two triples are the same bytes; one call is the fast path's.
        if len(public) != _KEY_BYTES or len(signature) != _SIGNATURE_BYTES:
            return verify(public, message, signature)
        name = blake3(public + signature + message).digest()
        if name in known:
            return True
        if not verify(public, message, signature):
            return False
        while len(known) >= _REMEMBERED:
            del known[next(iter(known))]
        known[name] = None
        return True

    return check


# --- enough of them -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """What ended an attempt.

    Args:
        end: the first of the messages, opened: what all of them say alike.
        messages: the signed CLOSEs or OUTCOMEs, one of each signer.
    """

    end: Close | Outcome
    messages: tuple[Signed, ...]

    @staticmethod
    def of(messages: tuple[Signed, ...]) -> Certificate:
        """What messages claim to be a certificate of; whether they are one, `verify` says.

        Raises:
            WireError: they cannot be one of anything.
        """
        if not messages:
            raise WireError("a certificate is missing")
        end = decode_body(messages[0].body)
        if not isinstance(end, Close | Outcome):
            raise WireError(f"a {type(end).__name__} certifies nothing")
        return Certificate(end, messages)

    @staticmethod
    def among(told: Iterable[tuple[Close | Outcome, Signed]], active: tuple[int, ...]) -> Certificate | None:
        """The first certificate that messages of one attempt hold, whose signatures and slots are checked already.

        Args:
            told: opened and signed; a liar's may be among them, several of each sender.
            active: the roster of the attempt.
        """
        alike: dict[object, tuple[Close | Outcome, dict[int, Signed]]] = {}
        for body, signed in told:
            alike.setdefault(_said(body), (body, {}))[1].setdefault(body.slot.sender, signed)
        for end, by in alike.values():
            if _enough(end, by, active):
                return Certificate(end, tuple(by.values()))
        return None

    @property
    def by_outcome(self) -> bool:
        """A majority's OUTCOMEs: they outrank CLOSEs."""
        return isinstance(self.end, Outcome)

    @property
    def value(self) -> bytes | Void | None:
        """The digest of the state that the attempt led to; VOID, or None after a dispute: it is to be tried again."""
        return self.end.value

    @property
    def removals(self) -> tuple[Removal, ...]:
        """Whom a dispute removes beside what the value says."""
        return self.end.removals if isinstance(self.end, Outcome) else ()

    def verify(
        self, check: Verify, roster: Roster, *, run: bytes, step: int, attempt: int,
        value: bytes | None = None, known: Roster | None = None,
    ) -> str | None:  # fmt: skip
        """What is wrong with it, None if it ended this attempt.

        Args:
            check: of a signature.
            roster: of the attempt; whose word it is that it was this one, the caller knows.
            run, step, attempt: that it has to be of.
            value: the state's digest that it has to cover; None: whatever it says.
            known: for a peer that was away, and derives `roster` from what it is told: the roster that it knows. More
                than f of those have to be among the signers: one of them is honest, and an honest peer signs for its
                own roster only.
        """
        if step < 0:
            return "there is no step before the first"
        if value is not None and self.value != value:
            return "the certificate covers another state"
        where = (run, roster.digest, step, attempt)
        if self.end.slot.where != where:
            return sentence("wrong_slot", self.messages[0])
        # One of each active peer at most: a longer one would cost the check of as many signatures as it likes.
        if len(self.messages) > len(roster.active):
            return "the certificate has more messages than the roster has peers"
        words, signers = _said(self.end), set[int]()
        for signed in self.messages:
            body = open_signed(
                signed, roster.keys, check, run=run, kind=type(self.end), where=where, senders=roster.active
            )
            if isinstance(body, str):
                return sentence(body, signed)
            if _said(body) != words:
                return f"the {type(self.end).__name__.upper()}s of step {step} differ"
            signers.add(body.slot.sender)
        if len(signers) < len(self.messages):
            return "one peer's message is twice in the certificate"
        if not _enough(self.end, signers, roster.active):
            return (
                f"the OUTCOMEs of step {step} are no majority"
                if self.by_outcome
                else f"CLOSEs of step {step} are missing"
            )
        if known is not None and len(signers & set(known.active)) <= known.faults:
            return "too few of those who signed it are known"
        return None


def _said(body: Message) -> object:
    """What messages that certify the same agree in. OUTCOMEs have no prefix: a dispute is no phase of the attempt."""
    if isinstance(body, Outcome):
        return Outcome, body.value, body.removals
    assert isinstance(body, Close)
    return Close, body.value, body.prefix


def _enough(end: Close | Outcome, signers: Collection[int], active: tuple[int, ...]) -> bool:
    """True if as many as it takes say so: the whole roster by CLOSE, more than half of it by OUTCOME."""
    by = len(set(active).intersection(signers))
    return 2 * by > len(active) if isinstance(end, Outcome) else by == len(active)
