"""What a control message between two nodes is: a signed message, a relayed view, a request for a tensor or for what
was said, or the agreed state for a peer that comes back."""

from __future__ import annotations

import struct

from btard.node.errors import WireError
from btard.node.protocol.api import (
    BulkKey,
    BulkRequested,
    Input,
    MessageArrived,
    RequestTranscript,
    SnapshotArrived,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.state_sync.messages import Snapshot, decode_snapshot
from btard.node.protocol.wire.encoding import (
    decode_endorsed,
    decode_key,
    decode_signed,
    encode,
    encode_endorsed,
    encode_signed,
)
from btard.node.protocol.wire.messages import Endorsed, Signed

_SIGNED, _ENDORSED, _REQUEST, _TRANSCRIPT, _SNAPSHOT = b"\x00", b"\x01", b"\x02", b"\x03", b"\x04"
_PLACE = struct.Struct("<II")


def seal(content: Signed | Endorsed | BulkKey | RequestTranscript | Snapshot) -> bytes:
    """The bytes of a control message: one for its kind, then the content."""
    match content:
        case Signed():
            return _SIGNED + encode_signed(content)
        case Endorsed():
            return _ENDORSED + encode_endorsed(content)
        case BulkKey():
            return _REQUEST + encode(content)
        case Snapshot():
            return _SNAPSHOT + encode(content)
        case RequestTranscript(step=step, attempt=attempt):
            return _TRANSCRIPT + _PLACE.pack(step, attempt)


def unseal(via: int, data: bytes) -> Input:
    """The input that a control message from `via` is.

    Raises:
        WireError: of no kind, or malformed.
    """
    kind, content = data[:1], data[1:]
    if kind == _SIGNED:
        return MessageArrived(via, decode_signed(content))
    if kind == _ENDORSED:
        return ViewArrived(via, decode_endorsed(content))
    if kind == _REQUEST:
        return BulkRequested(via, decode_key(content))
    if kind == _TRANSCRIPT and len(content) == _PLACE.size:
        return TranscriptRequested(via, *_PLACE.unpack(content))
    if kind == _SNAPSHOT:
        return SnapshotArrived(via, decode_snapshot(content))
    raise WireError(f"a control message of unknown kind {kind!r}")
