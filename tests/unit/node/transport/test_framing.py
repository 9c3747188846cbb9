"""Framing: what one side encodes the other decodes, and any other bytes are a WireError and nothing worse."""

from __future__ import annotations

import itertools

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from btard.node.errors import LocalProtocolError, WireError
from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.transport import framing

TOKEN = bytes(range(32))
KEY = BulkKey(step=900, attempt=2, kind=BulkKind.PUBLICATION, owner=255, part=255)


def test_control_round_trip() -> None:
    frame = framing.encode_control(b"opaque")
    assert framing.decode_control(memoryview(frame), 6) == b"opaque"
    with pytest.raises(WireError, match="control frame of 7 bytes"):
        framing.decode_control(memoryview(frame), 5)


def test_greeting_round_trip() -> None:
    greeting = framing.Greeting("2031-run", TOKEN)
    assert framing.decode_control(memoryview(framing.encode_greeting(greeting)), 1000) == greeting


@pytest.mark.parametrize("kind", BulkKind)
def test_bulk_header_round_trip(kind: BulkKind) -> None:
    key = msgspec.structs.replace(KEY, kind=kind, step=2**31 - 1, attempt=2**31 - 1)
    frame = framing.encode_bulk_header(TOKEN, key)
    assert len(frame) <= framing.BULK_HEADER_LIMIT_BYTES
    assert framing.decode_bulk_header(memoryview(frame)) == framing.BulkHeader(TOKEN, key)


@given(st.binary(max_size=200))
def test_any_bytes_as_control_give_a_message_or_a_wire_error(frame: bytes) -> None:
    try:
        content = framing.decode_control(memoryview(frame), 100)
    except WireError:
        return
    again = framing.encode_control(content) if isinstance(content, bytes) else framing.encode_greeting(content)
    assert again == frame or frame[0] == framing.GREETING


@given(st.binary(max_size=200))
def test_any_bytes_as_a_greeting_give_one_or_a_wire_error(tail: bytes) -> None:
    try:
        content = framing.decode_control(memoryview(b"\x02\x02" + tail), 1000)
    except WireError:
        return
    assert isinstance(content, framing.Greeting)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_bulk_header_give_one_or_a_wire_error(frame: bytes) -> None:
    try:
        header = framing.decode_bulk_header(memoryview(frame))
    except WireError:
        return
    assert min(header.key.step, header.key.attempt, header.key.owner, header.key.part) >= 0


BAD_HEADERS = {
    "not msgpack": b"\xc1",
    "empty": b"",
    "a map": msgspec.msgpack.encode({"token": TOKEN}),
    "one field more": msgspec.msgpack.encode([TOKEN, KEY, 1]),
    "one field less": msgspec.msgpack.encode([TOKEN]),
    "a float step": msgspec.msgpack.encode([TOKEN, [1.5, 0, "part", 0, 0]]),
    "an unknown kind": msgspec.msgpack.encode([TOKEN, [1, 0, "gift", 0, 0]]),
    "a negative owner": msgspec.msgpack.encode([TOKEN, [1, 0, "part", -1, 0]]),
    "a huge part": msgspec.msgpack.encode([TOKEN, [1, 0, "part", 0, 2**40]]),
    "trailing bytes": framing.encode_bulk_header(TOKEN, KEY) + b"\0",
    "broken UTF-8": msgspec.msgpack.encode([TOKEN, [1, 0, "part", 0, 0]]).replace(b"part", b"\xff\xff\xff\xff"),
    "too long": bytes(framing.BULK_HEADER_LIMIT_BYTES + 1),
    "nested without end": b"\x91" * 100,
}


@pytest.mark.parametrize("frame", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_bad_bulk_headers(frame: bytes) -> None:
    with pytest.raises(WireError):
        framing.decode_bulk_header(memoryview(frame))


@pytest.mark.parametrize("length", [0, 1, 5, 1000])
def test_tensors_share_memory_with_their_frames(length: int) -> None:
    values = torch.arange(length, dtype=torch.float32)
    payload = framing.bulk_payload(values)
    assert len(payload) == 4 * length
    received = framing.bulk_tensor([payload])
    assert torch.equal(received, values)
    if length:
        assert received.data_ptr() == values.data_ptr()


def test_values_keep_every_bit() -> None:
    values = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1e-45, 3.4e38])
    received = framing.bulk_tensor([memoryview(bytearray(framing.bulk_payload(values)))])
    assert torch.equal(received.view(torch.int32), values.view(torch.int32))


def test_a_float_is_little_endian() -> None:
    assert bytes(framing.bulk_payload(torch.tensor([1.0]))) == b"\x00\x00\x80\x3f"


@pytest.mark.parametrize("offset", range(4))
def test_an_unaligned_frame_becomes_an_aligned_tensor(offset: int) -> None:
    buffer = bytearray(offset) + bytes(framing.bulk_payload(torch.arange(100.0)))
    received = framing.bulk_tensor([memoryview(buffer)[offset:]])
    assert received.data_ptr() % 4 == 0
    assert torch.equal(received, torch.arange(100.0))


def test_pieces_are_joined_wherever_they_were_cut() -> None:
    values = torch.arange(100.0)
    payload = framing.bulk_payload(values)
    for cuts in ((1,), (3, 3, 200), (0, 400)):
        edges = [0, *cuts, len(payload)]
        pieces = [payload[start:stop] for start, stop in itertools.pairwise(edges)]
        assert torch.equal(framing.bulk_tensor(pieces), values)
    assert framing.bulk_tensor([memoryview(b"")] * 3).numel() == 0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 4001])
def test_a_tensor_of_half_floats_is_refused(size: int) -> None:
    with pytest.raises(WireError, match="no multiple of 4"):
        framing.bulk_tensor([memoryview(bytearray(size))])
    with pytest.raises(WireError, match=f"tensor of {size} bytes"):
        framing.bulk_tensor([memoryview(bytes(size - 1)), memoryview(bytes(1))])


@pytest.mark.parametrize(
    "values",
    [torch.zeros(3, dtype=torch.float64), torch.zeros(2, 2), torch.zeros(6)[::2], torch.zeros(())],
    ids=["float64", "2-D", "strided", "scalar"],
)
def test_other_tensors_do_not_leave(values: Tensor) -> None:
    with pytest.raises(LocalProtocolError, match="1-D contiguous float32 on the CPU"):
        framing.bulk_payload(values)


@pytest.mark.parametrize(("peers", "control", "bulk"), [(6, 1024, 32), (64, 5120, 264), (256, 69632, 1032)])
def test_queues_grow_with_the_roster(peers: int, control: int, bulk: int) -> None:
    limits = framing.Limits.for_run(peers, 21_840)
    assert (limits.control_queue, limits.bulk_queue, limits.bulk_bytes) == (control, bulk, 87_360)
