"""What the two channels of a transport may hold, from the run's limits."""

from __future__ import annotations

from collections.abc import Iterable

from btard.node.transport.framing import BULK_HEADER_LIMIT_BYTES, Limits
from btard.node.transport.slow_sender_guard import Share, SlowSenderGuard
from btard.node.transport.sockets import Bounds, Channel, port_of


def control_bounds(limits: Limits) -> Bounds:
    """Of signed messages, greetings and probes: one frame each."""
    return Bounds(
        frames=1,
        frame_bytes=1 + limits.control_bytes,
        backlog=limits.control_backlog,
        queue=limits.control_queue,
        buffer_bytes=limits.socket_buffer_bytes,
    )


def bulk_bounds(limits: Limits) -> Bounds:
    """Of tensors: a header and the values."""
    return Bounds(
        frames=2,
        frame_bytes=max(limits.bulk_bytes, BULK_HEADER_LIMIT_BYTES),
        backlog=limits.bulk_backlog,
        queue=limits.bulk_queue,
        buffer_bytes=limits.socket_buffer_bytes,
    )


def guard_of(channels: Iterable[tuple[Channel, Bounds]], peers: int) -> SlowSenderGuard:
    """Watches the connections of channels that `peers` others may use; to be started."""
    return SlowSenderGuard(
        {
            port_of(channel.bound): Share.of(
                bounds.frame_bytes, bounds.backlog, bounds.buffer_bytes, peers, channel.encrypted
            )
            for channel, bounds in channels
        }
    )
