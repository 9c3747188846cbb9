"""Which signed messages are opened, why others are not, and what ends an attempt: every way to be wrong, by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest

from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer, verify
from btard.node.errors import WireError
from btard.node.protocol.roster import Roster
from btard.node.protocol.wire.certificate import Certificate, open_signed, remembering, sentence
from btard.node.protocol.wire.encoding import encode_body, signing_bytes
from btard.node.protocol.wire.messages import (
    PHASE_OF,
    Body,
    Close,
    Commit,
    Join,
    Message,
    Outcome,
    Phase,
    Removal,
    Signed,
    Slot,
    Suspect,
    View,
    Void,
    body_bytes,
    plain_bytes,
    view_bytes,
    view_messages,
)

PEERS, REMOVED = 6, 5
MEMBERS, SECRETS = generate(0, PEERS)
SIGNERS = [Signer(bytes.fromhex(secret.signing_seed)) for secret in SECRETS]
GENESIS = Roster.genesis(bytes.fromhex(member.signing_key) for member in MEMBERS)
ROSTER = GENESIS.without([REMOVED])
KEYS, ACTIVE = ROSTER.keys, ROSTER.active
RUN, OTHER = b"r" * 32, b"o" * 32
STEP, ATTEMPT = 3, 1
WHERE = (RUN, ROSTER.digest, STEP, ATTEMPT)
STATE = b"s" * 32
PREFIX = (b"1" * 32, b"2" * 32)
REMOVALS = (Removal(4, "silent", None),)


def signed(body: Body, by: int | None = None) -> Signed:
    data = encode_body(body)
    return Signed(data, SIGNERS[body.slot.sender if by is None else by].sign(signing_bytes(body, data)))


def slot(kind: type[Message], sender: int, **fields: object) -> Slot:
    return msgspec.structs.replace(Slot(*WHERE, PHASE_OF[kind], sender), **fields)


def close(sender: int, value: bytes | Void = STATE, prefix: tuple[bytes, ...] = PREFIX, **fields: object) -> Close:
    return Close(slot(Close, sender, **fields), prefix, value)


def outcome(
    sender: int, value: bytes | Void | None = STATE, removals: tuple[Removal, ...] = REMOVALS,
    prefix: tuple[bytes, ...] = (), **fields: object,
) -> Outcome:  # fmt: skip
    return Outcome(slot(Outcome, sender, **fields), prefix, value, removals)


def commit(sender: int = 0, size: int = 32, **fields: object) -> Commit:
    return Commit(slot(Commit, sender, **fields), (), (), bytes(size))


def padded(message: Signed) -> Signed:
    """The same message in another encoding, signed by its sender as if it were the one."""
    body = msgspec.msgpack.decode(message.body)
    phase, sender = body[1][4:]
    longer = message.body.replace(bytes([phase, sender]), bytes([phase, 0xCC, sender]), 1)
    assert msgspec.msgpack.decode(longer) == body and longer != message.body
    read = msgspec.msgpack.decode(message.body, type=Close | Outcome | Commit)
    return Signed(longer, SIGNERS[sender].sign(signing_bytes(read, longer)))


# --- one message ----------------------------------------------------------------------------------------------


def crowded() -> View:
    """A VIEW of few bytes with more messages than an honest one can hold."""
    return View(slot(View, 0), (), (Signed(b"", b""),) * (view_messages(PEERS) + 1))


ODD: dict[str, tuple[Callable[[], Signed], dict[str, object], str]] = {
    "no message of a run is as large": (lambda: Signed(bytes(view_bytes(PEERS) + 1), b""), {}, "oversized"),
    "larger than its phase allows": (lambda: signed(commit(size=body_bytes(Phase.COMMIT, PEERS))), {}, "oversized"),
    "a VIEW of too many": (lambda: signed(crowded()), {}, "oversized"),
    "no message": (lambda: Signed(b"\xc1", bytes(64)), {}, "malformed"),
    "another encoding": (lambda: padded(signed(commit())), {}, "malformed"),
    "another phase than its type": (lambda: signed(commit(phase=Phase.CLOSE)), {}, "malformed"),
    "another kind": (lambda: signed(commit()), {"kind": Close}, "unexpected"),
    "another run": (lambda: signed(commit(run=OTHER)), {"where": None}, "foreign_run"),
    "nobody": (lambda: signed(commit(PEERS), by=0), {"senders": None}, "unknown_sender"),
    "nobody, counted from the end": (lambda: signed(commit(-1), by=PEERS - 1), {"senders": None}, "unknown_sender"),
    "a removed peer": (lambda: signed(commit(REMOVED)), {}, "not_active"),
    "another roster": (lambda: signed(commit(roster=OTHER)), {}, "wrong_slot"),
    "another step": (lambda: signed(commit(step=STEP + 1)), {}, "wrong_slot"),
    "another attempt": (lambda: signed(commit(attempt=ATTEMPT + 1)), {}, "wrong_slot"),
    "the caller's rule": (lambda: signed(commit()), {"rule": lambda _: "late"}, "late"),
    "in another's name": (lambda: signed(commit(0), by=1), {}, "bad_signature"),
    "no signature": (lambda: Signed(encode_body(commit()), b""), {}, "bad_signature"),
    "another message's signature": (
        lambda: Signed(encode_body(commit()), signed(commit(size=31)).signature), {}, "bad_signature",
    ),
}  # fmt: skip
"""A message, what is asked beyond the attempt and its roster, and why it is refused."""


def opened(message: Signed, **asked: object) -> Body | str:
    asked = {"where": WHERE, "senders": ACTIVE, **asked}
    return open_signed(message, KEYS, verify, run=RUN, **asked)  # type: ignore[no-any-return, call-overload]


@pytest.mark.parametrize("name", ODD)
def test_why_a_message_is_refused(name: str) -> None:
    make, asked, reason = ODD[name]
    assert opened(make(), **asked) == reason


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (commit(), {}),
        (commit(), {"kind": Commit, "rule": lambda _: None}),
        (commit(REMOVED, roster=GENESIS.digest), {"where": None, "senders": None}),
        (commit(REMOVED), {"senders": (REMOVED,)}),
        (Suspect(slot(Suspect, 1), (), Phase.AGG, 2), {"kind": Suspect}),
        (View(slot(View, 1), (), ()), {"kind": View}),
        (View(slot(View, 1), (), (Signed(b"", b""),) * view_messages(PEERS)), {"kind": View}),
        (commit(size=body_bytes(Phase.COMMIT, PEERS) - 120), {}),
    ],
    ids=[
        "of the attempt",
        "of a kind",
        "anyone, anywhere",
        "one peer's",
        "a SUSPECT",
        "a VIEW",
        "a full VIEW",
        "a large one",
    ],
)
def test_what_is_opened(body: Body, asked: dict[str, object]) -> None:
    assert opened(signed(body), **asked) == body


def test_a_signature_is_checked_last_and_once() -> None:
    """It costs more than all else: nobody may have us check it for a message that does not count anyway."""
    asked: list[bytes] = []

    def check(public: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(public)
        return verify(public, message, signature)

    for make, more, reason in ODD.values():
        if reason != "bad_signature":
            terms = {"where": WHERE, "senders": ACTIVE, **more}
            assert open_signed(make(), KEYS, check, run=RUN, **terms) == reason  # type: ignore[call-overload]
    assert not asked
    assert open_signed(signed(commit(2)), KEYS, check, run=RUN) == commit(2)
    assert asked == [KEYS[2]]


def test_a_refusal_names_the_sender_where_there_is_one() -> None:
    assert sentence("bad_signature", signed(commit(3))) == "a signature of peer 3 is not valid"
    assert sentence("malformed", Signed(b"\xc1", b"")) == "a message is not the canonical encoding of one"
    assert sentence("wrong_slot", signed(commit())) == "a message is of another slot"
    assert sentence("late", signed(commit())) == "late"
    for _, _, reason in ODD.values():
        assert reason == "late" or sentence(reason, signed(commit())) != reason, reason


# --- certificates ---------------------------------------------------------------------------------------------


def closes(senders: Sequence[int] = ACTIVE, **fields: object) -> tuple[Signed, ...]:
    return tuple(signed(close(sender, **fields)) for sender in senders)  # type: ignore[arg-type]


def outcomes(senders: Sequence[int] = (0, 2, 4), **fields: object) -> tuple[Signed, ...]:
    return tuple(signed(outcome(sender, **fields)) for sender in senders)  # type: ignore[arg-type]


def problem(messages: tuple[Signed, ...], **asked: object) -> str | None:
    """What is wrong with messages as the certificate of the attempt."""
    terms = {"run": RUN, "step": STEP, "attempt": ATTEMPT, "value": STATE, **asked}
    try:
        return Certificate.of(messages).verify(verify, ROSTER, **terms)  # type: ignore[arg-type]
    except WireError as error:
        return str(error)


VOID = Void(REMOVALS)
HOLD: dict[str, tuple[tuple[Signed, ...], bytes | None]] = {
    "n CLOSEs": (closes(), STATE),
    "n CLOSEs in any order": (closes(ACTIVE[::-1]), STATE),
    "n CLOSEs of VOID": (closes(value=VOID), None),
    "OUTCOMEs of just more than half": (outcomes(), STATE),
    "OUTCOMEs of all": (outcomes(ACTIVE), STATE),
    "OUTCOMEs of VOID": (outcomes(value=VOID), None),
    "OUTCOMEs to try again": (outcomes(value=None), None),
    "OUTCOMEs whose prefixes differ": ((*outcomes((0, 1)), *outcomes((2,), prefix=PREFIX)), STATE),
}


@pytest.mark.parametrize("name", HOLD)
def test_what_ends_an_attempt(name: str) -> None:
    messages, value = HOLD[name]
    assert problem(messages, value=value) is None
    told = Certificate.of(messages)
    assert told.by_outcome == name.startswith("OUTCOME")
    assert told.removals == (REMOVALS if told.by_outcome else ())
    assert told.value == (STATE if value else None if "again" in name else VOID)
    assert told.messages == messages


def swapped(messages: tuple[Signed, ...], *others: Signed) -> tuple[Signed, ...]:
    """With others in the place of the last ones."""
    return (*messages[: len(messages) - len(others)], *others)


BROKEN: dict[str, tuple[tuple[Signed, ...], str]] = {
    "nothing": ((), "a certificate is missing"),
    "no message": ((Signed(b"\xc1", bytes(64)),), "not a message body"),
    "of a kind that ends nothing": (tuple(signed(commit(sender)) for sender in ACTIVE), "a Commit certifies nothing"),
    "a missing member": (closes(ACTIVE[:-1]), "CLOSEs of step 3 are missing"),
    "two of one member for another": (swapped(closes(), signed(close(0))), "twice"),
    "two of one member besides": ((*closes(), signed(close(0))), "more messages than the roster has peers"),
    "another prefix": (swapped(closes(), signed(close(4, prefix=PREFIX[:1]))), "the CLOSEs of step 3 differ"),
    "another value": (swapped(closes(), signed(close(4, OTHER))), "the CLOSEs of step 3 differ"),
    "VOID of others": (swapped(closes(), signed(close(4, VOID))), "the CLOSEs of step 3 differ"),
    "another state": (closes(value=OTHER), "covers another state"),
    "VOID instead of a state": (closes(value=VOID), "covers another state"),
    "another run": (swapped(closes(), signed(close(4, run=OTHER))), "another slot"),
    "another run in all": (closes(run=OTHER), "another slot"),
    "another roster": (swapped(closes(), signed(close(4, roster=GENESIS.digest))), "another slot"),
    "another roster in all": (closes(roster=GENESIS.digest), "another slot"),
    "another step": (swapped(closes(), signed(close(4, step=STEP + 1))), "another slot"),
    "another step in all": (closes(step=STEP + 1), "another slot"),
    "another attempt": (swapped(closes(), signed(close(4, attempt=0))), "another slot"),
    "another attempt in all": (closes(attempt=0), "another slot"),
    "a bad signature": (swapped(closes(), signed(close(4), by=3)), "a signature of peer 4 is not valid"),
    "another's signature, the first": ((signed(close(0), by=1), *closes()[1:]), "a signature of peer 0 is not valid"),
    "another encoding": (swapped(closes(), padded(signed(close(4)))), "not the canonical encoding"),
    "larger than a CLOSE may be": (
        closes(prefix=(bytes(plain_bytes(PEERS)),)), "larger than one of its phase may be",
    ),
    "a removed peer for an active one": (
        swapped(closes(), signed(close(REMOVED))), "a message of peer 5 is of a peer that was not active",
    ),
    "an OUTCOME among CLOSEs": (swapped(closes(), signed(outcome(4))), "a message of peer 4 is of another kind"),
    "a CLOSE among OUTCOMEs": (swapped(outcomes(), signed(close(4))), "a message of peer 4 is of another kind"),
    "OUTCOMEs, one short": (outcomes((0, 1)), "the OUTCOMEs of step 3 are no majority"),
    "OUTCOMEs of half": (outcomes((0,)), "the OUTCOMEs of step 3 are no majority"),
    "OUTCOMEs, one of them twice": (outcomes((0, 1, 1)), "twice"),
    "OUTCOMEs, one of them under two prefixes": (
        (*outcomes((0, 1)), *outcomes((1,), prefix=PREFIX)), "twice",
    ),
    "OUTCOMEs, one of a removed peer": (outcomes((0, 1, REMOVED)), "not active"),
    "OUTCOMEs of other values": (swapped(outcomes(), signed(outcome(4, OTHER))), "the OUTCOMEs of step 3 differ"),
    "OUTCOMEs of other removals": (
        swapped(outcomes(), signed(outcome(4, removals=()))), "the OUTCOMEs of step 3 differ",
    ),
    "OUTCOMEs, one badly signed": (swapped(outcomes(), signed(outcome(4), by=0)), "a signature of peer 4"),
    "OUTCOMEs of another attempt": (outcomes(attempt=0), "another slot"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_end_it(name: str) -> None:
    messages, why = BROKEN[name]
    found = problem(messages)
    assert found is not None and why in found, found


def test_half_of_an_even_roster_is_no_majority() -> None:
    six = tuple(signed(outcome(sender, roster=GENESIS.digest)) for sender in range(PEERS))
    for count, holds in ((3, False), (4, True)):
        certificate = Certificate.of(six[:count])
        found = certificate.verify(verify, GENESIS, run=RUN, step=STEP, attempt=ATTEMPT, value=STATE)
        assert (found is None) is holds


def test_there_is_no_step_before_the_first() -> None:
    """All of a roster that signs for it is a roster of liars, and a peer that comes back is told of none."""
    assert problem(closes(step=-1), step=-1) == "there is no step before the first"
    assert problem(closes(step=0), step=0) is None


@pytest.mark.parametrize(
    ("active", "holds"),
    [
        ((0, 1, 2, 3, 4), True),
        ((0, 2, 5), True),
        ((0, 1, 3), False),
        ((0, 1, 2, 3, 5), False),
        ((0, 5), True),
        ((5,), False),
    ],
    ids=["all", "two of three", "one of three", "two of five", "one of two", "none"],
)
def test_a_peer_that_was_away_believes_more_than_f_of_those_it_knows(active: tuple[int, ...], holds: bool) -> None:
    """It derives the roster from what it is told: that peers 0, 2 and 4 are most of it says nothing by itself."""
    found = problem(outcomes(), known=replace(GENESIS, active=active))
    assert found == (None if holds else "too few of those who signed it are known")


def test_a_long_certificate_costs_no_more_signatures_than_the_roster_has_peers() -> None:
    asked: list[bytes] = []

    def check(public: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return True

    many = Certificate.of(outcomes((0,)) * 100)
    assert many.verify(check, ROSTER, run=RUN, step=STEP, attempt=ATTEMPT, value=STATE) is not None
    assert not asked


# --- among what a peer holds ----------------------------------------------------------------------------------


def pairs(*bodies: Close | Outcome) -> list[tuple[Close | Outcome, Signed]]:
    return [(body, signed(body)) for body in bodies]


EQUAL = [close(peer) for peer in ACTIVE]
RULED = [outcome(peer) for peer in (0, 2, 4)]
AMONG: dict[str, tuple[list[Close | Outcome], Close | Outcome | None]] = {
    "none": ([], None),
    "n CLOSEs": ([*EQUAL], EQUAL[0]),
    "one missing": ([*EQUAL[1:]], None),
    "one of them says something else": ([*EQUAL[:-1], close(4, OTHER)], None),
    "one of them has seen something else": ([*EQUAL[:-1], close(4, prefix=PREFIX[:1])], None),
    "an equivocator's second": ([close(4, OTHER), close(4, VOID), *EQUAL], EQUAL[0]),
    "a removed peer's for one": ([*EQUAL[:-1], close(REMOVED)], None),
    "OUTCOMEs": ([*RULED], RULED[0]),
    "one short": ([*RULED[:-1]], None),
    "one short, one of them twice": ([*RULED[:-1], outcome(2, prefix=PREFIX), outcome(2, prefix=PREFIX[:1])], None),
    "one short, with a removed peer's": ([*RULED[:-1], outcome(REMOVED)], None),
    "one short, with other removals": ([*RULED[:-1], outcome(4, removals=())], None),
    "one short, with another value": ([*RULED[:-1], outcome(4, None)], None),
    "CLOSEs and OUTCOMEs, neither enough": ([*RULED[:-1], *EQUAL[1:]], None),
}


@pytest.mark.parametrize("name", AMONG)
def test_what_held_messages_certify(name: str) -> None:
    bodies, end = AMONG[name]
    found = Certificate.among(pairs(*bodies), ACTIVE)
    if end is None:
        assert found is None
        return
    assert found is not None and found.end == end
    assert found == Certificate.of(found.messages)
    assert problem(found.messages) is None


def test_a_join_ends_nothing() -> None:
    body = Join(slot(Join, 0), (), bytes(32))
    with pytest.raises(WireError, match="a Join certifies nothing"):
        Certificate.of((signed(body),))


# --- signatures seen before -----------------------------------------------------------------------------------


def test_a_valid_signature_is_checked_once_and_an_invalid_one_every_time() -> None:
    asked: list[bytes] = []
    key, good, bad = bytes(32), b"g" * 64, b"b" * 64

    def verify(public: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return signature == good

    check = remembering(verify)
    assert [check(key, b"one", good) for _ in range(3)] == [True] * 3
    assert [check(key, b"one", bad) for _ in range(2)] == [False] * 2
    for number in range(10_000):
        check(key, number.to_bytes(4, "big"), good)
    assert len(asked) == 1 + 2 + 10_000


def test_nothing_is_remembered_of_keys_and_signatures_that_are_none() -> None:
    """Their borders could be shifted: the same bytes in a row would stand for another message."""
    asked: list[bytes] = []

    def verify(public: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return True

    check = remembering(verify)
    for public, message, signature in (
        (b"key", b"one", b"g" * 64),
        (b"k", b"one", b"eyg" * 22),
        (bytes(32), b"one", b"g"),
    ):
        assert check(public, message, signature)
        assert check(public, message, signature)
    assert len(asked) == 6
