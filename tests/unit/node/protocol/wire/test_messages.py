"""Canonical bytes: one encoding per body, and nothing else is accepted."""

from __future__ import annotations

import contextlib
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btard.node.config import RunConfig
from btard.node.errors import ConfigError, WireError
from btard.node.limits import MAX_PEERS
from btard.node.protocol.wire import encoding, messages
from btard.node.protocol.wire.encoding import (
    body_digest,
    decode_body,
    decode_endorsed,
    decode_signed,
    encode_body,
    encode_endorsed,
    encode_signed,
    signing_bytes,
    stub,
    stub_bytes,
)
from btard.node.protocol.wire.messages import (
    Accusation,
    AccusationKind,
    Agg,
    Agg2,
    Body,
    Checksums,
    Close,
    Commit,
    Endorsed,
    Have,
    Held,
    Hello,
    Join,
    Judge,
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
)
from btard.node.protocol.wire.size_limits import control_bytes, view_bytes

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
