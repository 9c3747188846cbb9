"""Canonical bytes of the signed messages: the one place that encodes them, and says what is hashed and signed.

A body is a MessagePack array with a type tag; `decode_body` refuses every encoding but the one `encode_body`
makes, so equality of bodies is equality of bytes, and hashes and slots concern bodies without signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from btard.node.errors import WireError
from btard.node.limits import MAX_PEERS
from btard.node.protocol.wire.bulk import BulkKey
from btard.node.protocol.wire.digest import digest
from btard.node.protocol.wire.messages import PHASE_OF, Body, Endorsed, Place, Signed, Stub, Suspect
from btard.node.protocol.wire.size_limits import control_bytes

MAX_MESSAGE_BYTES = control_bytes(MAX_PEERS)
"""Whatever the roster: a dispute among as many peers as one holds must be able to end. What a line carries, and what
counts, is bounded by the size of the run's own roster (node/protocol/wire/size_limits.py) before it is decoded."""

Decoded = TypeVar("Decoded")

_COVERED = b"btard/2/message\x00"
"""The domain of signatures of messages."""

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.msgpack.Encoder()
_body_decoder: msgspec.msgpack.Decoder[Body] = msgspec.msgpack.Decoder(Body)
_signed_decoder = msgspec.msgpack.Decoder(Signed)
_key_decoder = msgspec.msgpack.Decoder(BulkKey)
_endorsed_decoder = msgspec.msgpack.Decoder(Endorsed)


def encode(value: msgspec.Struct | tuple[object, ...] | list[object]) -> bytes:
    """Canonical bytes of any structure of the protocol."""
    return _encoder.encode(value)


def decoded(decoder: msgspec.msgpack.Decoder[Decoded], data: bytes, what: str) -> Decoded:
    """What untrusted bytes hold.

    Args:
        decoder: of its type.
        data: from anyone.
        what: it is to be, with its article.

    Raises:
        WireError: it is none.
    """
    try:
        return decoder.decode(data)
    except _UNREADABLE as error:
        raise WireError(f"not {what}: {error}") from error


def _bounded(decoder: msgspec.msgpack.Decoder[Decoded], data: bytes, what: str) -> Decoded:
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"{what} of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    return decoded(decoder, data, what)


def encode_body(body: Body) -> bytes:
    """Canonical bytes of a message body: what is signed, hashed and compared."""
    return _encoder.encode(body)


def decode_body(data: bytes) -> Body:
    """The body that `data` is the canonical encoding of.

    Raises:
        WireError: too large, not a body, not canonical, or the type does not match the slot's phase.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"a message body of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    try:
        body = _body_decoder.decode(data)
    except _UNREADABLE as error:
        raise WireError(f"not a message body: {error}") from error
    if _encoder.encode(body) != data:
        raise WireError("a message body is not in its canonical encoding")
    if PHASE_OF[type(body)] is not body.slot.phase:
        raise WireError(f"a {type(body).__name__} in a slot of phase {body.slot.phase.name}")
    return body


def encode_signed(signed: Signed) -> bytes:
    """Wire bytes of a signed message."""
    return _encoder.encode(signed)


def decode_signed(data: bytes) -> Signed:
    """The signed message in `data`; the body inside stays opaque until `decode_body`.

    Raises:
        WireError: too large or not a signed message.
    """
    return _bounded(_signed_decoder, data, "a signed message")


def encode_endorsed(endorsed: Endorsed) -> bytes:
    """Wire bytes of a relayed view."""
    return _encoder.encode(endorsed)


def decode_endorsed(data: bytes) -> Endorsed:
    """The relayed view in `data`.

    Raises:
        WireError: too large or not a relayed view.
    """
    return _bounded(_endorsed_decoder, data, "a relayed view")


def decode_key(data: bytes) -> BulkKey:
    """The name of a tensor that a neighbour asks for.

    Raises:
        WireError: not a tensor's name.
    """
    return decoded(_key_decoder, data, "a tensor's name")


def endorsement_bytes(view: bytes, owner: int, before: tuple[int, ...]) -> bytes:
    """What an endorser signs: the view's body digest, its owner and the endorsers before it."""
    return b"btard/1/endorse\x00" + digest("endorse", view, _encoder.encode((owner, before)))


body_digest: Callable[[bytes], bytes] = partial(digest, "body")
"""Digest of canonical body bytes, as it enters the prefix hash of its phase."""


def place_of(body: Body) -> Place:
    """Where a body belongs."""
    return Place(body.slot, body.prefix, (body.named, body.peer) if isinstance(body, Suspect) else None)


def signing_bytes(body: Body, data: bytes) -> bytes:
    """What the signature of a message covers: its place and the digest of its bytes, under the protocol's own domain.

    Args:
        body: what `data` is the canonical encoding of.
        data: the message's bytes.
    """
    return _COVERED + digest("message", _encoder.encode(place_of(body)), body_digest(data))


def stub_bytes(place: Place, body: bytes) -> bytes:
    """The same, from the place and the body's digest."""
    return _COVERED + digest("message", _encoder.encode(place), body)


def stub(signed: Signed) -> Stub:
    """A signed message without its body.

    Raises:
        WireError: it holds none.
    """
    return Stub(place_of(decode_body(signed.body)), body_digest(signed.body), signed.signature)
