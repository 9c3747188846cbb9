"""What is signed, beyond bodies (test_messages.py): places, stubs, endorsements; and relayed views from anyone."""

from __future__ import annotations

import msgspec
import pytest

from btard.node.errors import WireError
from btard.node.protocol.wire import encoding
from btard.node.protocol.wire.encoding import (
    body_digest,
    decode_endorsed,
    encode,
    encode_body,
    encode_endorsed,
    endorsement_bytes,
    place_of,
    signing_bytes,
    stub,
    stub_bytes,
)
from btard.node.protocol.wire.messages import Body, Close, Endorsed, Phase, Place, Signed, Slot, Suspect, View

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
