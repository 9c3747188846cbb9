"""Hashes under a domain, whose fields cannot run into each other, and what is signed beyond bodies (test_messages.py).

Places, stubs, endorsements; and relayed views from anyone.
"""

from __future__ import annotations

import msgspec
import pytest
import torch

from btard.node.errors import WireError
from btard.node.protocol.wire import encoding
from btard.node.protocol.wire.encoding import (
    DIGEST_BYTES,
    body_digest,
    decode_endorsed,
    digest,
    encode,
    encode_body,
    encode_endorsed,
    endorsement_bytes,
    expand,
    number,
    place_of,
    signing_bytes,
    stub,
    stub_bytes,
    tensor_bytes,
    tensor_digest,
)
from btard.node.protocol.wire.messages import Body, Close, Endorsed, Phase, Place, Signed, Slot, Suspect, View

# --- hashes ---------------------------------------------------------------------------------------------------


FIELDS = [
    ("the same", ("a", b"bc", b"d"), ("a", b"bc", b"d"), True),
    ("another domain", ("a", b"b"), ("c", b"b"), False),
    ("a border moved", ("a", b"bc", b"d"), ("a", b"b", b"cd"), False),
    ("joined fields", ("a", b"b", b"c"), ("a", b"bc"), False),
    ("an empty field", ("a", b"b"), ("a", b"b", b""), False),
    ("domain and field exchanged", ("ab", b"c"), ("a", b"bc"), False),
]


@pytest.mark.parametrize(("first", "second", "equal"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_fields_are_kept_apart(first: tuple[str, bytes], second: tuple[str, bytes], equal: bool) -> None:
    assert (digest(*first) == digest(*second)) is equal
    assert len(digest(*first)) == DIGEST_BYTES


def test_a_shorter_expansion_is_a_prefix_of_a_longer_one() -> None:
    assert expand("z", b"seed", 100)[:37] == expand("z", b"seed", 37)
    assert expand("z", b"seed", 32) != expand("y", b"seed", 32)


def test_a_tensor_is_bound_to_its_name_shape_and_every_bit() -> None:
    values_P = torch.tensor([1.0, 2.0, 3.0, 4.0])
    base = tensor_digest("part", (number(1),), values_P)
    assert base == tensor_digest("part", (number(1),), values_P.clone())
    assert base != tensor_digest("part", (number(2),), values_P)
    assert base != tensor_digest("aggregate", (number(1),), values_P)
    assert base != tensor_digest("part", (number(1),), values_P[:3])
    assert base != tensor_digest("part", (number(1),), values_P.reshape(2, 2))
    changed_P = values_P.clone()
    changed_P[3] = torch.nextafter(changed_P[3], torch.tensor(9.0))
    assert base != tensor_digest("part", (number(1),), changed_P)


def test_a_tensors_bytes_are_little_endian_and_not_copied() -> None:
    values_P = torch.tensor([1.0, -2.0])
    view = tensor_bytes(values_P)
    assert view.tobytes() == b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    values_P[0] = 0.0
    assert view.tobytes()[:4] == bytes(4)
    assert tensor_bytes(torch.empty(0)).nbytes == 0


def test_numbers_have_eight_bytes() -> None:
    assert number(-1) == b"\xff" * 8
    assert number(258) == b"\x02\x01" + bytes(6)


# --- canonical bytes ------------------------------------------------------------------------------------------


PUT = msgspec.structs.replace
SLOT = Slot(b"r" * 32, b"o" * 32, 7, 1, Phase.CLOSE, 3)
CLOSE = Close(SLOT, (b"p" * 32,), b"v" * 32)
SUSPECT = Suspect(PUT(SLOT, phase=Phase.SUSPECT), (), Phase.AGG, 2)
VIEW = encode_body(View(PUT(SLOT, phase=Phase.VIEW), (), ()))


# --- signatures -------------------------------------------------------------------------------------------------------

OTHER: dict[str, Body] = {
    "run": PUT(CLOSE, slot=PUT(SLOT, run=b"R" * 32)),
    "roster": PUT(CLOSE, slot=PUT(SLOT, roster=b"O" * 32)),
    "step": PUT(CLOSE, slot=PUT(SLOT, step=8)),
    "attempt": PUT(CLOSE, slot=PUT(SLOT, attempt=2)),
    "sender": PUT(CLOSE, slot=PUT(SLOT, sender=4)),
    "prefix": PUT(CLOSE, prefix=(b"q" * 32,)),
    "a longer prefix": PUT(CLOSE, prefix=(b"p" * 32, b"p" * 32)),
    "value": PUT(CLOSE, value=b"w" * 32),
}


def covered(body: Body) -> bytes:
    return signing_bytes(body, encode_body(body))


@pytest.mark.parametrize("body", OTHER.values(), ids=OTHER)
def test_a_signature_covers_every_field(body: Body) -> None:
    assert covered(body) != covered(CLOSE)


def test_each_suspicion_is_a_place_of_its_own() -> None:
    assert place_of(SUSPECT) == Place(SUSPECT.slot, (), (Phase.AGG, 2))
    assert place_of(CLOSE) == Place(SLOT, (b"p" * 32,), None)
    others = (PUT(SUSPECT, peer=1), PUT(SUSPECT, named=Phase.AGG2))
    assert len({place_of(body) for body in (SUSPECT, *others)}) == 3
    digest = body_digest(encode_body(SUSPECT))
    assert len({stub_bytes(place_of(body), digest) for body in (SUSPECT, *others)}) == 3


def test_a_stub_is_as_long_whatever_the_body_holds() -> None:
    """So evidence of the largest message fits into a REPORT."""
    small, large = (Signed(encode_body(PUT(CLOSE, value=bytes(size))), b"s" * 64) for size in (32, 100_000))
    assert len(encode(stub(small))) == len(encode(stub(large)))
    assert stub(small) != stub(large)


@pytest.mark.parametrize("body", [b"", b"\xc1", VIEW + b"\x00", encode_body(CLOSE)[:-1]], ids=repr)
def test_what_holds_no_message_has_no_stub(body: bytes) -> None:
    with pytest.raises(WireError):
        stub(Signed(body, b"s" * 64))


# --- endorsements -----------------------------------------------------------------------------------------------------

CHAINS = {
    "another view": (VIEW + b"\x00", 3, (1, 2)),
    "another owner": (VIEW, 4, (1, 2)),
    "another order": (VIEW, 3, (2, 1)),
    "one fewer": (VIEW, 3, (1,)),
    "one more": (VIEW, 3, (1, 2, 4)),
    "nobody before": (VIEW, 3, ()),
    "the owner moved into the chain": (VIEW, 1, (3, 2)),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_an_endorsement_is_of_one_view_and_one_chain(chain: tuple[bytes, int, tuple[int, ...]]) -> None:
    assert endorsement_bytes(*chain) != endorsement_bytes(VIEW, 3, (1, 2))


def test_an_endorsement_is_no_message_and_a_message_no_endorsement() -> None:
    """The domains differ before any byte that a sender chooses, and neither begins the other."""
    one, other = endorsement_bytes(VIEW, 3, ()).split(b"\x00")[0], covered(CLOSE).split(b"\x00")[0]
    assert one != other and len(one) > 8 and len(other) > 8


# --- relayed views ----------------------------------------------------------------------------------------------------

RELAYED = Endorsed(Signed(VIEW, b"s" * 64), ((1, b"e" * 64), (2, b"f" * 64)))


def test_a_relayed_view_survives_its_bytes_and_its_body_stays_closed() -> None:
    assert decode_endorsed(encode_endorsed(RELAYED)) == RELAYED
    closed = PUT(RELAYED, view=Signed(b"no message", b""))
    assert decode_endorsed(encode_endorsed(closed)) == closed


def odd_views() -> dict[str, bytes]:
    data = encode_endorsed(RELAYED)
    view, chain = msgspec.msgpack.decode(data)
    pack = msgspec.msgpack.encode
    return {
        "nothing": b"",
        "a signed message": pack(view),
        "cut short": data[:-1],
        "with more behind it": data + b"\x00",
        "one field more": pack([view, chain, 0]),
        "an endorser by name": pack([view, [["one", b"e" * 64]]]),
        "an endorser that is a fraction": pack([view, [[1.5, b"e" * 64]]]),
        "an endorsement without its signature": pack([view, [[1]]]),
        "a body that is text": pack([["text", b"s" * 64], chain]),
        "a nested bomb": b"\x91" * 5000,
    }


@pytest.mark.parametrize("data", odd_views().values(), ids=odd_views())
def test_what_is_no_relayed_view_is_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="relayed view"):
        decode_endorsed(data)


def test_a_relayed_view_larger_than_any_roster_sends_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_endorsed(RELAYED)
    monkeypatch.setattr(encoding, "MAX_MESSAGE_BYTES", len(data))
    assert decode_endorsed(data) == RELAYED
    monkeypatch.setattr(encoding, "MAX_MESSAGE_BYTES", len(data) - 1)
    with pytest.raises(WireError, match=f"of {len(data)} bytes exceeds"):
        decode_endorsed(data)
