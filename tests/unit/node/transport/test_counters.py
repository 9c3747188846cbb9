"""Traffic counters."""

from __future__ import annotations

from btard.node.transport.counters import Counters


def test_traffic_adds_up_by_peer_and_kind() -> None:
    counters = Counters()
    counters.sent(1, "part", 100)
    counters.sent(1, "part", 50)
    counters.sent(2, "part", 7)
    counters.sent(2, "control", 3)
    counters.received(2, "control", 9)
    assert counters.sent_bytes == {(1, "part"): 150, (2, "part"): 7, (2, "control"): 3}
    assert counters.sent_messages == {(1, "part"): 2, (2, "part"): 1, (2, "control"): 1}
    assert (counters.received_bytes, counters.received_messages) == ({(2, "control"): 9}, {(2, "control"): 1})
    assert counters.sent_bytes_of("part") == 157
    assert counters.sent_bytes_of("aggregate") == 0
