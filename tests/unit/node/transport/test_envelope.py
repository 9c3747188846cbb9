"""What a control message is: every kind survives the way, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.node.errors import WireError
from btard.node.protocol.api import (
    BulkKey,
    BulkKind,
    BulkRequested,
    Input,
    MessageArrived,
    RequestTranscript,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.wire.messages import Endorsed, Signed
from btard.node.transport.envelope import seal, unseal

SIGNED = Signed(b"body", bytes(64))
KEY = BulkKey(2, 1, BulkKind.AGGREGATE, 3, 0)
KINDS: dict[str, tuple[Signed | Endorsed | BulkKey | RequestTranscript, Input]] = {
    "signed": (SIGNED, MessageArrived(5, SIGNED)),
    "endorsed": (Endorsed(SIGNED, ((1, b"x"),)), ViewArrived(5, Endorsed(SIGNED, ((1, b"x"),)))),
    "request": (KEY, BulkRequested(5, KEY)),
    "transcript": (RequestTranscript((5,), 3, 1), TranscriptRequested(5, 3, 1)),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_message_comes_out_as_it_went_in(name: str) -> None:
    content, arrived = KINDS[name]
    assert unseal(5, seal(content)) == arrived


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\x01", b"\x02", b"\x03" + seal(SIGNED)[1:], seal(SIGNED) + b"\x00", seal(KEY)[:-1],
     b"\x00" + b"\x91" * 9999, b"\x01\x92\x92\xc4\x00\xc4\x00\xdd\xff\xff\xff\xff",
     b"\x02\x95\x00\x00\xa4paws\x00\x00"],
    ids=["empty", "no content", "no view", "no key", "kind", "trailing", "cut", "deep", "endless", "word"],
)  # fmt: skip
def test_anything_else_is_an_error_of_the_wire(data: bytes) -> None:
    with pytest.raises(WireError):
        unseal(5, data)


@given(st.binary(max_size=300))
def test_no_bytes_do_worse(data: bytes) -> None:
    for kind in (b"", b"\x00", b"\x01", b"\x02"):
        try:
            assert seal_of(unseal(5, kind + data)) is not None
        except WireError:
            continue


def seal_of(event: Input) -> bytes:
    match event:
        case MessageArrived(signed=signed):
            return seal(signed)
        case ViewArrived(endorsed=endorsed):
            return seal(endorsed)
        case BulkRequested(key=key):
            return seal(key)
        case TranscriptRequested(via=via, step=step, attempt=attempt):
            return seal(RequestTranscript((via,), step, attempt))
        case _:
            raise AssertionError(event)
