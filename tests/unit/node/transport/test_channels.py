"""What may come in at a port: one for all is no wider for strangers than one for control messages."""

from __future__ import annotations

import pytest

from btard.node.transport.channels import both_bounds, bulk_bounds, control_bounds
from btard.node.transport.framing import Limits
from btard.node.transport.slow_sender_guard import Share
from btard.node.transport.sockets import PIECE_BYTES


@pytest.mark.parametrize("largest", [1, 100_000, 10_000_000])
@pytest.mark.parametrize("peers", [2, 3, 6, 64])
def test_a_frame_at_the_one_port_is_no_larger_than_a_control_message(peers: int, largest: int) -> None:
    limits = Limits.for_run(peers, largest)
    both = both_bounds(limits)
    assert both.frame_bytes == control_bounds(limits).frame_bytes >= PIECE_BYTES
    assert (both.frames - 1) * PIECE_BYTES >= limits.bulk_bytes > (both.frames - 2) * PIECE_BYTES
    assert both.message_bytes == max(kind(limits).message_bytes for kind in (control_bounds, bulk_bounds))
    assert both.backlog <= min(kind(limits).backlog for kind in (control_bounds, bulk_bounds))


def test_one_port_has_room_for_the_connections_of_two() -> None:
    control, bulk = Share.of(1000, 16, 100, peers=5, encrypted=True), Share.of(9000, 4, 100, peers=5, encrypted=True)
    both = control.beside(bulk)
    assert (both.line_bytes, both.total_bytes) == (bulk.line_bytes, control.total_bytes + bulk.total_bytes)
    assert (both.strangers, both.per_source) == (2 * control.strangers, 2 * control.per_source)
    assert (both.most_strangers, both.per_member) == (2 * control.most_strangers, 2 * control.per_member)
    assert both.handshake_bytes == control.handshake_bytes
