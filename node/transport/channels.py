"""What may come in at the ports of a transport, from the run's limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce

from btard.node.transport.framing import BULK_HEADER_LIMIT_BYTES, Limits
from btard.node.transport.slow_sender_guard import Share, SlowSenderGuard
from btard.node.transport.sockets import PIECE_BYTES, Bounds, Listener, port_of


def control_bounds(limits: Limits) -> Bounds:
    """Of signed messages, greetings and probes: one frame each."""
    return Bounds(
        frames=1,
        frame_bytes=1 + limits.control_bytes,
        message_bytes=1 + limits.control_bytes,
        backlog=limits.control_backlog,
        buffer_bytes=limits.socket_buffer_bytes,
    )


def bulk_bounds(limits: Limits) -> Bounds:
    """Of tensors: a header and the values."""
    largest = max(limits.bulk_bytes, BULK_HEADER_LIMIT_BYTES)
    return Bounds(
        frames=2,
        frame_bytes=largest,
        message_bytes=largest,
        backlog=limits.bulk_backlog,
        buffer_bytes=limits.socket_buffer_bytes,
    )


def both_bounds(limits: Limits) -> Bounds:
    """Of both at one port: a control message is one frame, a tensor a header and pieces."""
    return Bounds(
        frames=1 + max(1, math.ceil(limits.bulk_bytes / PIECE_BYTES)),
        frame_bytes=max(1 + limits.control_bytes, PIECE_BYTES),
        message_bytes=max(1 + limits.control_bytes, limits.bulk_bytes),
        backlog=min(limits.control_backlog, limits.bulk_backlog),
        buffer_bytes=limits.socket_buffer_bytes,
    )


def guard_of(ports: Iterable[tuple[Listener, Sequence[Bounds]]], peers: int) -> SlowSenderGuard:
    """Watches the connections to ports, of which `peers` others have one for each kind of message; to be started."""
    return SlowSenderGuard({
        port_of(listener.bound): reduce(Share.beside, [
            Share.of(kind.message_bytes, kind.backlog, kind.buffer_bytes, peers, listener.encrypted) for kind in kinds
        ])
        for listener, kinds in ports
    })  # fmt: skip
