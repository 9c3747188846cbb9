"""Credits: what an honest peer may do, and what a flood gets."""

from __future__ import annotations

import pytest

from btard.node.protocol.wire.messages import control_bytes, plain_bytes
from btard.node.transport.flow_control import Allowance, Credits, FlowControl

ALLOWANCE = Allowance(burst=(10, 1000), per_phase=(2, 100), per_second=(1, 50))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spent(quota: FlowControl, peer: int, size: int = 1, most: int = 10_000) -> int:
    """How many messages go through."""
    return next((count for count in range(most) if not quota.spend(peer, size)), most)


def test_a_purse_starts_full_and_only_the_run_fills_it() -> None:
    clock = Clock()
    quota = FlowControl(ALLOWANCE, (1, 2), clock)
    assert spent(quota, 1) == 10
    clock.now = 1000.0
    assert spent(quota, 1) == 0, "before the run time gives nothing"
    assert spent(quota, 2) == 10, "a flood is paid by its sender alone"
    quota.phase()
    assert spent(quota, 1) == 2
    clock.now += 3.0
    assert spent(quota, 1) == 3
    clock.now += 1e6
    assert spent(quota, 1) == 10, "never more than the burst"


def test_bytes_count_as_well() -> None:
    quota = FlowControl(ALLOWANCE, (1,), Clock())
    assert not quota.spend(1, 1001)
    assert spent(quota, 1, 400) == 2
    assert quota.spend(1, 200)


def test_without_an_allowance_nothing_is_limited() -> None:
    assert spent(FlowControl(None, ()), 7, 1 << 40, most=1000) == 1000


@pytest.mark.parametrize("peers", [2, 6, 16, 64])
def test_an_honest_peer_does_not_run_dry(peers: int) -> None:
    """A dispute at once, with every faulty peer's two views at their largest, then thousands of quick steps."""
    credits = Credits.for_run(peers, 21_840, delivery_bound_s=2.0, minimum_rate=1e6)
    control, bulk = FlowControl(credits.control, (1,), Clock()), FlowControl(credits.bulk, (1,), Clock())
    faulty = (peers + 1) // 2 - 1
    for _ in range(2 * faulty):
        assert control.spend(1, control_bytes(peers))
    for _ in range(6 * peers):
        assert control.spend(1, plain_bytes(peers))
    for _ in range(2000):
        for phase in range(8):
            control.phase()
            bulk.phase()
            assert control.spend(1, plain_bytes(peers))
            if phase in (1, 2):
                assert bulk.spend(1, 4 * 21_840 // peers)
