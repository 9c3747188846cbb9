"""What travels: one encoding per body and nothing else, a name for each tensor, and room for all that is honest.

Whatever an honest peer may have to say fits into the bound of its phase, at every size of the roster.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btard.node.config import RunConfig
from btard.node.errors import ConfigError, WireError
from btard.node.limits import MAX_PEERS, MAX_UNDO
from btard.node.protocol.adjudication.offences import OFFENCES
from btard.node.protocol.wire import encoding, messages
from btard.node.protocol.wire.encoding import (
    body_digest,
    decode_body,
    decode_endorsed,
    decode_key,
    decode_signed,
    encode,
    encode_body,
    encode_endorsed,
    encode_signed,
    signing_bytes,
    stub,
    stub_bytes,
)
from btard.node.protocol.wire.messages import (
    MAX_ACCUSATIONS,
    MAX_PROOFS,
    Accusation,
    AccusationKind,
    Agg,
    Agg2,
    Body,
    BulkKey,
    BulkKind,
    Checksums,
    Close,
    Commit,
    Endorsed,
    Have,
    Held,
    Hello,
    Join,
    Judge,
    Late,
    Message,
    Missing,
    Outcome,
    Phase,
    Publish,
    Removal,
    Report,
    Resend,
    Reveal,
    Signed,
    Slot,
    Suspect,
    Verdict,
    View,
    Void,
    body_bytes,
    control_bytes,
    delivery_s,
    evidence_bytes,
    join_bytes,
    view_bytes,
    view_messages,
)

PREFIX = (bytes(32), b"\x01" * 32)


def slot(phase: Phase) -> Slot:
    return Slot(b"r" * 32, b"o" * 32, 7, 1, phase, 3)


BODIES: dict[str, Body] = {
    "hello": Hello(slot(Phase.HELLO), (), b"g" * 32, b"environment"),
    "commit": Commit(slot(Phase.COMMIT), (), (b"a" * 32, b"b" * 32), b"c" * 32),
    "commit of a validator": Commit(slot(Phase.COMMIT), (), (), b"c" * 32),
    "agg": Agg(slot(Phase.AGG), PREFIX, b"d" * 32),
    "complaint": Agg(slot(Phase.AGG), PREFIX, Missing((1, 4))),
    "reveal": Reveal(slot(Phase.REVEAL), PREFIX, b"x" * 32, b"s" * 32, (True, False)),
    "checksums": Checksums(slot(Phase.CHECKSUMS), PREFIX, (0.1, -0.0, 1e300), (0.0, math.inf, 5e-324)),
    "report": Report(slot(Phase.REPORT), PREFIX, (True, False), (Verdict(2, False),),
                     (Accusation(AccusationKind.AGGREGATE, 1, 7, 1, 0),), (b"evidence",), (b"join",)),
    "publish": Publish(slot(Phase.PUBLISH), PREFIX),
    "have": Have(slot(Phase.HAVE), PREFIX, (True,)),
    "judge": Judge(slot(Phase.JUDGE), PREFIX, (False, True)),
    "close": Close(slot(Phase.CLOSE), PREFIX, b"v" * 32),
    "resend": Resend(slot(Phase.RESEND), PREFIX),
    "held": Held(slot(Phase.HELD), PREFIX, (True, False)),
    "agg2": Agg2(slot(Phase.AGG2), PREFIX, b"d" * 32),
    "suspect": Suspect(slot(Phase.SUSPECT), (), Phase.AGG, 2),
    "view": View(slot(Phase.VIEW), (), (Signed(b"body", b"s" * 64),)),
    "outcome": Outcome(slot(Phase.OUTCOME), (), b"v" * 32, (Removal(2, "silent", None),)),
    "join": Join(slot(Phase.JOIN), (), b"g" * 32),
    "retry": Outcome(slot(Phase.OUTCOME), (), None, (Removal(2, "equivocation", None),)),
    "void": Close(slot(Phase.CLOSE), PREFIX, Void((Removal(2, "aggregate", None), Removal(3, "checksum", 1)))),
}  # fmt: skip
every_body = pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))


@every_body
def test_a_body_survives_its_bytes(body: Body) -> None:
    data = encode_body(body)
    assert decode_body(data) == body
    assert encode_body(decode_body(data)) == data


def test_every_message_type_has_one_row_and_one_phase() -> None:
    assert {type(body) for body in BODIES.values()} == set(Message.__subclasses__()) == set(messages.PHASE_OF)
    assert sorted(phase.value for phase in messages.PHASE_OF.values()) == [phase.value for phase in Phase]


@every_body
def test_a_body_in_the_slot_of_another_phase_is_refused(body: Body) -> None:
    other = Phase.CLOSE if body.slot.phase is not Phase.CLOSE else Phase.AGG
    with pytest.raises(WireError, match="in a slot of phase"):
        decode_body(encode_body(msgspec.structs.replace(body, slot=slot(other))))


@every_body
def test_a_changed_byte_is_another_body_or_none(body: Body) -> None:
    data = encode_body(body)
    for place in range(len(data)):
        for flip in (1, 0x80):
            changed = bytearray(data)
            changed[place] ^= flip
            try:
                found = decode_body(bytes(changed))
            except WireError:
                continue
            assert encode_body(found) == bytes(changed)


def other_encodings() -> list[tuple[str, bytes]]:
    """MessagePack that means the same as a HAVE and is not its canonical encoding."""
    data = encode_body(BODIES["have"])
    step = data.index(b"\x07\x01")  # the slot's step and attempt
    listed = list(msgspec.msgpack.decode(data))
    return [
        ("a longer integer", data[:step] + b"\xcc\x07" + data[step + 1 :]),
        ("a trailing byte", data + b"\x00"),
        ("a missing byte", data[:-1]),
        ("one field too many", msgspec.msgpack.encode([*listed, None])),
        ("a map", msgspec.msgpack.encode({"type": "have"})),
        ("a nested bomb", b"\x91" * 5000),
        ("text that is not UTF-8", data.replace(b"have", b"h\xffve", 1)),
        ("nothing", b""),
    ]


@pytest.mark.parametrize("data", [row[1] for row in other_encodings()], ids=[row[0] for row in other_encodings()])
def test_other_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_body(data)
    with pytest.raises(WireError):
        decode_signed(data)


def test_what_no_roster_can_send_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_body(BODIES["have"])
    word = encode_signed(Signed(data, bytes(64)))
    assert decode_body(data) and decode_signed(word)
    monkeypatch.setattr(encoding, "MAX_MESSAGE_BYTES", len(data) - 1)
    for decode, content in ((decode_body, data), (decode_signed, word)):
        with pytest.raises(WireError, match=f"of {len(content)} bytes exceeds {len(data) - 1}"):
            decode(content)


@pytest.mark.parametrize("peers", [63, 64, 80])
def test_a_relayed_view_of_any_size_that_the_roster_allows_is_read(peers: int) -> None:
    """It was refused from 64 peers on, although 256 may run together."""
    place = slot(Phase.VIEW)
    empty = len(encode_body(View(place, (), (Signed(b"", b""),))))
    view = encode_body(View(place, (), (Signed(bytes(view_bytes(peers) - empty - 3), b""),)))
    assert view_bytes(peers) - 8 <= len(view) <= view_bytes(peers)
    endorsed = Endorsed(Signed(view, bytes(64)), tuple((peer, bytes(64)) for peer in range(peers)))
    assert decode_endorsed(encode_endorsed(endorsed)) == endorsed
    assert isinstance(decode_body(view), View)


def test_the_largest_roster_is_the_largest_that_can_be_configured() -> None:
    assert control_bytes(MAX_PEERS) <= encoding.MAX_MESSAGE_BYTES
    assert RunConfig(peers=MAX_PEERS).peers == MAX_PEERS
    with pytest.raises(ConfigError, match=f"--peers {MAX_PEERS + 1} is more than the {MAX_PEERS} one roster holds"):
        RunConfig(peers=MAX_PEERS + 1)


def test_a_single_precision_number_is_not_canonical() -> None:
    data = encode_body(Checksums(slot(Phase.CHECKSUMS), (), (1.0,), (2.0,)))
    short = data.replace(b"\xcb\x3f\xf0" + bytes(6), b"\xca\x3f\x80\x00\x00")
    assert short != data
    with pytest.raises(WireError, match="canonical"):
        decode_body(short)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for decode in (decode_body, decode_signed):
        with contextlib.suppress(WireError):
            decode(data)


def test_a_signed_message_keeps_its_body_opaque() -> None:
    signed = Signed(b"anything", b"s" * 64)
    assert decode_signed(encode_signed(signed)) == signed


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_signature_covers_place_and_body_under_the_protocols_own_domain(body: Body) -> None:
    data = encode_body(body)
    covered = signing_bytes(body, data)
    assert covered.startswith(b"btard/2/message\x00")
    assert len(covered) == 16 + 32
    made = stub(Signed(data, b"s" * 64))
    assert stub_bytes(made.place, made.body) == covered, "a stub has all that the signature is about"
    elsewhere = msgspec.structs.replace(body, slot=msgspec.structs.replace(body.slot, step=body.slot.step + 1))
    assert signing_bytes(elsewhere, data) != covered
    assert signing_bytes(body, data + b"\x00") != covered


def test_digests_of_bodies_differ() -> None:
    data = encode_body(BODIES["close"])
    assert body_digest(data) != body_digest(data + b"\x00")


# --- names of tensors -----------------------------------------------------------------------------------------


KEY = BulkKey(7, 1, BulkKind.PART, 3, 2)
PUT = msgspec.structs.replace


@pytest.mark.parametrize("kind", BulkKind)
def test_a_name_survives_its_bytes(kind: BulkKind) -> None:
    key = PUT(KEY, kind=kind, step=2**40)
    assert decode_key(encode(key)) == key
    assert hash(decode_key(encode(key))) == hash(key), "it is looked up in sets and dictionaries"


def test_every_field_belongs_to_the_name() -> None:
    others = [PUT(KEY, step=8), PUT(KEY, attempt=0), PUT(KEY, owner=2), PUT(KEY, part=3)]
    others += [PUT(KEY, kind=kind) for kind in BulkKind if kind is not BulkKind.PART]
    assert len({KEY, *others}) == len({encode(key) for key in (KEY, *others)}) == 1 + len(others) == 8


ODD: dict[str, object] = {
    "nothing": [],
    "one field fewer": [7, 1, "part", 3],
    "one field more": [7, 1, "part", 3, 2, 0],
    "an unknown kind": [7, 1, "gradient", 3, 2],
    "a kind in capitals": [7, 1, "PART", 3, 2],
    "no kind": [7, 1, None, 3, 2],
    "a fraction": [7, 1, "part", 3, 2.5],
    "a step in words": ["7", 1, "part", 3, 2],
    "a truth": [True, 1, "part", 3, 2],
    "a map": {"step": 7, "attempt": 1, "kind": "part", "owner": 3, "part": 2},
}


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD)
def test_what_is_no_name_is_refused(fields: object) -> None:
    with pytest.raises(WireError, match="not a tensor's name"):
        decode_key(msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("data", [b"", b"\xc1", encode(KEY)[:-1], encode(KEY) + b"\x00"], ids=repr)
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_key(data)


def test_a_number_that_no_step_has_is_a_name_that_nobody_knows() -> None:
    """Negative or enormous ones are read, not an error: the receiver finds no such tensor."""
    for number in (-1, 2**63, 2**64 - 1, -(2**63)):
        key = PUT(KEY, step=number, part=number)
        assert decode_key(encode(key)) == key


# --- how large a message may be -------------------------------------------------------------------------------


DIGEST, SIGNATURE = b"\xff" * 32, b"\xff" * 64
WHOLE_PREFIX = (DIGEST,) * 12
STEP, NUMBER = 2**40, 2**20
SIZES = [2, 3, 4, 7, 16, 64, MAX_PEERS]


def slot_among(phase: Phase, peers: int) -> Slot:
    return Slot(DIGEST, DIGEST, STEP, NUMBER, phase, peers - 1)


def removals(peers: int) -> tuple[Removal, ...]:
    longest = max(OFFENCES, key=len)
    return tuple(Removal(peer, longest, peers - 1) for peer in range(peers))


def silence(peers: int) -> bytes:
    """f + 1 suspicions of one peer."""
    faults = (peers + 1) // 2 - 1
    body = Suspect(slot_among(Phase.SUSPECT, peers), (), Phase.CLOSE, peers - 2)
    return encode((Signed(encode_body(body), SIGNATURE),) * (faults + 1))


def join(peers: int) -> bytes:
    return encode_signed(Signed(encode_body(Join(slot_among(Phase.JOIN, peers), (), DIGEST)), SIGNATURE))


def waits(peers: int) -> tuple[Late, ...]:
    phases = [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value]
    return tuple(Late(phase, bulk, peers - 1) for phase in phases for bulk in (False, True))


def words(peers: int) -> int:
    """Most contributions that one checker speaks of in an undo step: some k are banned at once, all of whose steps are
    in the window, and those that are left may still hide faulty ones."""
    most, faults = 0, (peers + 1) // 2 - 1
    for banned in range(1, faults + 1):
        active = peers - banned
        checkers = min((active + 1) // 2 - 1, faults - banned) + 1
        most = max(most, math.ceil(MAX_UNDO * banned * checkers / active))
    return most


def report(peers: int, gradients: bool) -> Report:
    """Of a step with gradients, or of an undo step."""
    accusation = Accusation(AccusationKind.AGGREGATE, peers - 1, STEP, NUMBER, peers - 1)
    verdicts = (Verdict(peers - 1, False),) * (peers // 3)
    return Report(
        slot_among(Phase.REPORT, peers),
        WHOLE_PREFIX,
        (True,) * peers if gradients else (),
        verdicts,
        (accusation,) * MAX_ACCUSATIONS if gradients else (),
        (silence(peers),) * MAX_PROOFS,
        (join(peers),) * (2 * (peers // 2)),
        () if gradients else (True,) * words(peers),
        waits(peers),
        (2**31,) * 2,
    )


LARGEST: dict[str, Callable[[int], Body]] = {
    "HELLO": lambda n: Hello(slot_among(Phase.HELLO, n), (), DIGEST, bytes(500)),
    "COMMIT": lambda n: Commit(slot_among(Phase.COMMIT, n), WHOLE_PREFIX, (DIGEST,) * n, DIGEST),
    "a complaint of all": lambda n: Agg(slot_among(Phase.AGG, n), WHOLE_PREFIX, Missing(tuple(range(n)))),
    "all complain of all": lambda n: Held(slot_among(Phase.HELD, n), WHOLE_PREFIX, (True,) * (n * n)),
    "REVEAL": lambda n: Reveal(slot_among(Phase.REVEAL, n), WHOLE_PREFIX, DIGEST, DIGEST, (False,) * n),
    "CHECKSUMS": lambda n: Checksums(slot_among(Phase.CHECKSUMS, n), WHOLE_PREFIX, (1.1,) * n, (2.2,) * n),
    "REPORT": lambda n: report(n, gradients=True),
    "REPORT of an undo step": lambda n: report(n, gradients=False),
    "every part of two steps": lambda n: Have(slot_among(Phase.HAVE, n), WHOLE_PREFIX, (True,) * (2 * n * n)),
    "JUDGE": lambda n: Judge(slot_among(Phase.JUDGE, n), WHOLE_PREFIX, (True,) * n),
    "all are removed": lambda n: Close(slot_among(Phase.CLOSE, n), WHOLE_PREFIX, Void(removals(n))),
    "SUSPECT": lambda n: Suspect(slot_among(Phase.SUSPECT, n), (), Phase.CLOSE, n - 1),
    "OUTCOME": lambda n: Outcome(slot_among(Phase.OUTCOME, n), WHOLE_PREFIX, Void(removals(n // 2)), removals(n // 2)),
    "JOIN": lambda n: Join(slot_among(Phase.JOIN, n), (), DIGEST),
}


@pytest.mark.parametrize("name", LARGEST)
def test_what_an_honest_peer_has_to_say_fits(name: str) -> None:
    for peers in SIZES:
        body = LARGEST[name](peers)
        assert len(encode_body(body)) <= body_bytes(body.slot.phase, peers), peers


def test_what_one_report_carries_fits_into_its_shares() -> None:
    for peers in SIZES:
        assert MAX_PROOFS * (len(silence(peers)) + 5) <= evidence_bytes(peers)
        assert 2 * peers * (len(join(peers)) + 3) <= join_bytes(peers)
        assert body_bytes(Phase.REPORT, peers) >= evidence_bytes(peers) + join_bytes(peers)


@pytest.mark.parametrize("peers", [2, 4, 7, 16])
def test_a_view_of_everything_fits(peers: int) -> None:
    """Two messages of the largest size in every slot of every phase of the step, and all suspicions."""
    step = [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value]
    framing = len(encode_signed(Signed(bytes(70_000), SIGNATURE))) - 70_000
    slots = 2 * peers * sum(body_bytes(phase, peers) + framing for phase in step)
    named = len(step) * peers
    suspect = Signed(encode_body(Suspect(slot_among(Phase.SUSPECT, peers), (), Phase.CLOSE, peers - 1)), SIGNATURE)
    suspicions = named * (peers - 1) * len(encode_signed(suspect))
    assert slots + suspicions <= view_bytes(peers) < control_bytes(peers)
    assert body_bytes(Phase.VIEW, peers) == view_bytes(peers)
    assert 2 * named + named * (peers - 1) < view_messages(peers)


def test_a_larger_roster_may_say_more() -> None:
    """Else a roster that takes peers back could not pass on what a smaller one said."""
    for one, other in pairwise(range(1, MAX_PEERS + 1)):
        for phase in (Phase.CLOSE, Phase.HELD, Phase.REPORT, Phase.VIEW):
            assert body_bytes(phase, one) < body_bytes(phase, other)
        assert view_messages(one) < view_messages(other)
        assert control_bytes(one) < control_bytes(other)


RATE = 12.5e6


@pytest.mark.parametrize("rate", [1.0, RATE, 4 * RATE], ids=["slow", "100 Mbit/s", "400 Mbit/s"])
@pytest.mark.parametrize("peers", [2, 16, 64, MAX_PEERS])
def test_the_delivery_bound_is_what_the_largest_views_take(peers: int, rate: float) -> None:
    bound_s = delivery_s(peers, rate)
    views_s = (peers - 1) * control_bytes(peers) / max(rate, RATE)
    assert bound_s >= views_s
    assert bound_s == 2.0 or bound_s < views_s + 0.1 + 1e-9
    assert round(10 * bound_s) == pytest.approx(10 * bound_s), "in tenths"
    assert delivery_s(peers, 1.0) >= bound_s


def test_small_rosters_need_two_seconds() -> None:
    assert [delivery_s(peers, 1.0) for peers in (1, 2, 4)] == [2.0] * 3
    assert delivery_s(16, 1.0) > 2.0
