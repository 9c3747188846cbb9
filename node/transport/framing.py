"""Framing: what one ZeroMQ frame may hold, checked by size before anything is parsed. Never pickle.

A control message is one frame, a kind byte and its content. A bulk message is a small header that names the tensor and
proves its sender, then the raw little-endian values, float32 or bfloat16: in one frame, never copied on the way, or at
a peer's only port in several, which are joined there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from btard.node.config import WIRE_VERSION, Endpoint
from btard.node.errors import LocalProtocolError, WireError
from btard.node.protocol.api import BulkKey
from btard.node.protocol.wire import messages
from btard.node.protocol.wire.precision import FLOAT32, Precision

if sys.byteorder != "little":
    raise WireError("tensors travel as little-endian float32 and this machine is big-endian; use another machine")

CONTROL = 1
GREETING = 2
PROBE = 3
ADDRESS = 4
APPROVALS = 5
TOKEN_BYTES = 32
GREETING_LIMIT_BYTES = 1024
ADDRESS_LIMIT_BYTES = 1024
BULK_HEADER_LIMIT_BYTES = 128
_ITEM_BYTES = 4
_STAMP_BYTES = 8
_NUMBER_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what a node keeps for or from one peer.

    Args:
        control_bytes: largest control message.
        bulk_bytes: largest tensor.
        control_queue: control messages that wait for one peer that does not read.
        bulk_queue: tensors that wait for one peer that does not read.
        control_backlog: control messages read ahead from one connection; beyond it the sender waits, nothing is lost.
        bulk_backlog: the same for tensors.
        drain: messages taken from each socket in one poll, so that a flood cannot hold the loop.
        drain_bytes: the same in bytes, give or take one message.
        linger_s: how long closing waits for the last messages to leave.
        socket_buffer_bytes: what the kernel is asked to buffer per connection.
    """

    control_bytes: int = 4 << 20
    bulk_bytes: int = 256 << 20
    control_queue: int = 1024
    bulk_queue: int = 32
    control_backlog: int = 64
    bulk_backlog: int = 4
    drain: int = 256
    drain_bytes: int = 64 << 20
    linger_s: float = 2.0
    socket_buffer_bytes: int = 4 << 20

    @classmethod
    def for_run(cls, peers: int, largest: int) -> Limits:
        """Queues that an honest peer cannot fill, for `peers` peers and tensors of up to `largest` entries.

        Phases need everyone's message, so a sender is at most two phases ahead of a receiver that stalls: two
        mandatory messages, a suspicion per slot and forwards of what others miss (peers^2), some certificates; in
        bulk a part, an aggregate and three publications per part. More is waiting only for a peer that is dead.
        """
        return cls(
            control_bytes=1 + messages.control_bytes(peers),
            control_backlog=16,
            bulk_bytes=_ITEM_BYTES * largest,
            control_queue=max(1024, peers * peers + 16 * peers),
            bulk_queue=4 * peers + 8,
        )


class Greeting(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """First words to a peer: the run, and the token with which our tensors to this one peer will be marked."""

    run_id: str
    token: bytes


class Approved(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Approvals of a genesis, as far as the sender has them: its digest, and members with their signatures."""

    genesis: bytes
    signatures: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """A question that is sent back as it came: how long is the way? `stamp` means something to the asker alone."""

    answer: bool
    stamp: int


class AddressRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a peer listens, in its own signed words.

    Args:
        run: digest of the run's genesis.
        peer: its genesis id.
        counter: how often it has moved; the greater one counts.
        control, bulk: its endpoints, the second empty where it has but one; a host may be a name.
        signature: Ed25519, of what `address_records.signing_bytes` says.
    """

    run: bytes
    peer: int
    counter: int
    control: str
    bulk: str
    signature: bytes

    @property
    def endpoint(self) -> Endpoint:
        """The endpoints."""
        return Endpoint(self.control, self.bulk)


class BulkHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """First frame of a bulk message."""

    token: bytes
    key: BulkKey


_ENCODER = msgspec.msgpack.Encoder()
_GREETINGS = msgspec.msgpack.Decoder(Greeting)
_ADDRESSES = msgspec.msgpack.Decoder(AddressRecord)
_APPROVALS = msgspec.msgpack.Decoder(Approved)
_HEADERS = msgspec.msgpack.Decoder(BulkHeader)


def encode_control(data: bytes) -> bytes:
    """The frame that carries one control message."""
    return b"\x01" + data


def encode_greeting(greeting: Greeting) -> bytes:
    """The frame that carries a greeting; the version stands outside, readable by every version."""
    return bytes((GREETING, WIRE_VERSION)) + _ENCODER.encode(greeting)


def encode_probe(probe: Probe) -> bytes:
    """The frame that carries a probe."""
    return bytes((PROBE, probe.answer)) + probe.stamp.to_bytes(_STAMP_BYTES, "little")


def encode_address(record: AddressRecord) -> bytes:
    """The frame that carries an address record."""
    return bytes((ADDRESS,)) + _ENCODER.encode(record)


def encode_approvals(approved: Approved) -> bytes:
    """The frame that carries approvals."""
    return bytes((APPROVALS,)) + _ENCODER.encode(approved)


def decode_control(frame: memoryview, limit_bytes: int) -> bytes | Greeting | Probe | AddressRecord | Approved:
    """A control frame's content: the opaque bytes of a message, a greeting, a probe, an address record or approvals.

    Raises:
        WireError: empty, too large, of an unknown kind or version, or malformed.
    """
    size = len(frame)
    if not 1 < size <= 1 + limit_bytes:
        raise WireError(f"control frame of {size} bytes; between 2 and {1 + limit_bytes} are allowed")
    if frame[0] == CONTROL:
        return bytes(frame[1:])
    if frame[0] == PROBE and size == 2 + _STAMP_BYTES and frame[1] < 2:
        return Probe(bool(frame[1]), int.from_bytes(frame[2:], "little"))
    if frame[0] == ADDRESS:
        return _decode_address(frame)
    if frame[0] == APPROVALS:
        try:
            return _APPROVALS.decode(frame[1:])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise WireError(f"malformed approvals: {error}") from error
    if frame[0] != GREETING:
        raise WireError(f"control frame of unknown kind {frame[0]}")
    if frame[1] != WIRE_VERSION:
        raise WireError(f"it speaks wire version {frame[1]} and we speak {WIRE_VERSION}; install the same release")
    if size > GREETING_LIMIT_BYTES:
        raise WireError(f"greeting of {size} bytes; at most {GREETING_LIMIT_BYTES} are allowed")
    try:
        greeting = _GREETINGS.decode(frame[2:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"malformed greeting: {error}") from error
    if len(greeting.token) != TOKEN_BYTES:
        raise WireError(f"greeting with a token of {len(greeting.token)} bytes instead of {TOKEN_BYTES}")
    return greeting


def _decode_address(frame: memoryview) -> AddressRecord:
    if len(frame) > ADDRESS_LIMIT_BYTES:
        raise WireError(f"address record of {len(frame)} bytes; at most {ADDRESS_LIMIT_BYTES} are allowed")
    try:
        record = _ADDRESSES.decode(frame[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"malformed address record: {error}") from error
    if not (0 <= record.peer < _NUMBER_LIMIT and 0 < record.counter < _NUMBER_LIMIT):
        raise WireError(f"address record with a number out of range: peer {record.peer}, counter {record.counter}")
    return record


def encode_bulk_header(token: bytes, key: BulkKey) -> bytes:
    """The first frame of a bulk message."""
    return _ENCODER.encode(BulkHeader(token, key))


def decode_bulk_header(frame: memoryview) -> BulkHeader:
    """The header of a bulk message.

    Raises:
        WireError: too large, malformed, or with a number out of range.
    """
    if len(frame) > BULK_HEADER_LIMIT_BYTES:
        raise WireError(f"bulk header of {len(frame)} bytes; at most {BULK_HEADER_LIMIT_BYTES} are allowed")
    try:
        header = _HEADERS.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"malformed bulk header: {error}") from error
    key = header.key
    numbers = key.step, key.attempt, key.owner, key.part
    if min(numbers) < 0 or max(numbers) >= _NUMBER_LIMIT:
        raise WireError(f"bulk header with a number out of range: {key}")
    return header


def bulk_payload(values_P: Tensor, precision: Precision = FLOAT32) -> memoryview:
    """The bytes of a tensor, as float32 without a copy: they must not change until they have left.

    Args:
        values_P: float32 `[P]`, contiguous, on the CPU.
        precision: what its entries travel as.

    Raises:
        LocalProtocolError: any other tensor.
    """
    fits = values_P.dtype == torch.float32 and values_P.dim() == 1 and values_P.device.type == "cpu"
    if not (fits and values_P.is_contiguous()):
        raise LocalProtocolError(
            f"bulk tensors are 1-D contiguous float32 on the CPU, not {values_P.dtype} "
            f"{tuple(values_P.shape)} on {values_P.device}"
        )
    return precision.packed(values_P)


def bulk_tensor(pieces: Sequence[memoryview], precision: Precision = FLOAT32) -> Tensor:
    """The float32 `[P]` tensor whose bytes lie in one frame, which it keeps alive, or in several; nobody may write into
    it. Bfloat16 is widened.

    Small frames lie unaligned in libzmq's receive buffer and are copied, as are several; a large one is not. Only the
    alignment of float32 is granted: code whose bits depend on wider alignment copies first.

    Raises:
        WireError: the size is no whole number of entries.
    """
    if len(pieces) == 1 and not precision.narrow and len(pieces[0]) and len(pieces[0]) % _ITEM_BYTES == 0:
        values_P = torch.frombuffer(pieces[0], dtype=torch.float32)
        if values_P.data_ptr() % _ITEM_BYTES == 0:
            return values_P
    return precision.unpacked(pieces[0] if len(pieces) == 1 else bytearray().join(pieces))
