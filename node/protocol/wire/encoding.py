"""Canonical bytes of the signed messages, and hashes: the one place that encodes, hashes, and says what is signed.

A body is a MessagePack array with a type tag; `decode_body` refuses every encoding but the one `encode_body`
makes, so equality of bodies is equality of bytes, and hashes and slots concern bodies without signatures. A hash is
domain-separated BLAKE3 over canonical bytes or over a tensor.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
from blake3 import blake3

from btard.node.errors import WireError
from btard.node.limits import MAX_PEERS
from btard.node.protocol.wire.messages import (
    PHASE_OF,
    Application,
    Body,
    BulkKey,
    Endorsed,
    Place,
    Signed,
    Stub,
    Suspect,
    control_bytes,
)

if TYPE_CHECKING:  # message types must not cost an import of torch: `btard-launch attacks` reads them
    from torch import Tensor


# --- hashes ---------------------------------------------------------------------------------------------------


DIGEST_BYTES = 32
_length = struct.Struct("<Q").pack


def digest(domain: str, *fields: bytes) -> bytes:
    """32-byte BLAKE3 of length-prefixed fields under a domain tag, so that no two inputs share a preimage."""
    framed = [_tag(domain)]
    for field in fields:
        framed += (_length(len(field)), field)
    return blake3(b"".join(framed)).digest()  # in one piece, since hashing costs more by the call


def expand(domain: str, seed: bytes, length: int) -> bytes:
    """`length` bytes of the BLAKE3 extendable output of (domain, seed); a prefix of every longer output."""
    hasher = blake3(struct.pack("<Q", len(domain)) + domain.encode() + seed)
    return hasher.digest(length=length)


def tensor_bytes(values_P: Tensor) -> memoryview:
    """The bytes of a contiguous float32 CPU tensor, without a copy (little-endian hosts only)."""
    if values_P.requires_grad:
        values_P = values_P.detach()
    return values_P.numpy().data.cast("B") if values_P.numel() else memoryview(b"")


def tensor_digest(domain: str, fields: Iterable[bytes], values_P: Tensor) -> bytes:
    """Digest of a tensor bound to the fields that say whose it is, and to its shape."""
    shape = struct.pack(f"<{values_P.dim()}Q", *values_P.shape)
    framed = [_tag(domain)]
    for field in (*fields, shape):
        framed += (_length(len(field)), field)
    hasher = blake3(b"".join(framed))
    hasher.update(tensor_bytes(values_P))
    return hasher.digest()


@lru_cache(maxsize=256)
def _tag(domain: str) -> bytes:
    """A domain after its length; there are as many as the code names."""
    name = domain.encode()
    return _length(len(name)) + name


number: Callable[[int], bytes] = struct.Struct("<q").pack
"""An integer as eight little-endian bytes, for use as a digest field."""


# --- canonical bytes ------------------------------------------------------------------------------------------


MAX_MESSAGE_BYTES = control_bytes(MAX_PEERS)
"""Whatever the roster: a dispute among as many peers as one holds must be able to end. What a line carries, and what
counts, is bounded by the size of the run's own roster (node/protocol/wire/messages.py) before it is decoded."""

Decoded = TypeVar("Decoded")

_COVERED = b"btard/2/message\x00"
"""The domain of signatures of messages."""
_APPLIES, _SPONSORS = b"btard/1/apply\x00", b"btard/1/sponsor\x00"

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


def sponsorship_bytes(run: bytes, key: bytes, transport: str) -> bytes:
    """What a founder signs for a key, whatever id it will ask for.

    Args:
        run: digest of the genesis.
        key, transport: the candidate's public keys.
    """
    return _SPONSORS + digest("sponsor", run, key, transport.encode())


def application_bytes(run: bytes, application: Application) -> bytes:
    """What a candidate signs: all but its signature and what a founder adds to it."""
    plain = msgspec.structs.replace(application, sponsor=None, sponsorship=b"", signature=b"")
    return _APPLIES + digest("application", run, encode(plain))
