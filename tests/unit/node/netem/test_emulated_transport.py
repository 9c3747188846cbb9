"""Modelled links over real sockets: delays that can be measured, rates, losses, partitions; nothing without them."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import fmean
from threading import Thread
from time import monotonic

import pytest
import torch

from btard.node.config import Endpoint
from btard.node.crypto.keys import generate
from btard.node.errors import TransportError
from btard.node.metrics.collectors import modelled
from btard.node.netem.conditions import Change, Conditions, Window
from btard.node.netem.emulated_transport import EmulatedTransport
from btard.node.netem.network import of
from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.transport.arrivals import Arrival, BulkArrival, ControlArrival
from btard.node.transport.sockets import Dialler

pytestmark = pytest.mark.sockets

ANYWHERE = Endpoint("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
WATCHDOG_S = 60.0
KEY = BulkKey(0, 0, BulkKind.PART, 0, 1)


def end(stack: ExitStack, me: int, *changes: Change, listen: Endpoint = ANYWHERE) -> EmulatedTransport:
    members, secrets = generate(0, 2)
    made = EmulatedTransport(me, secrets[me], members, listen, run_id="run", network=of(Conditions(changes)))
    stack.callback(made.close, 0)
    return made


class Pair:
    """Two connected transports, served in turns."""

    def __init__(self, stack: ExitStack, *changes: Change) -> None:
        self.ends = [end(stack, me, *changes) for me in range(2)]
        self.arrived: list[tuple[float, Arrival]] = []
        for each in self.ends:
            each.connect({other.me: other.bound for other in self.ends})
        self.serve(lambda: all(each.greeted for each in self.ends))
        for each in self.ends:
            each.begin()

    def serve(self, done: object, turns: int = 100_000) -> None:
        """Poll both until `done` says so."""
        assert callable(done)
        end = monotonic() + WATCHDOG_S
        for _ in range(turns):
            if done():
                return
            assert monotonic() < end
            for each in self.ends:
                self.arrived += [(monotonic(), arrival) for arrival in each.poll(0.0005)]
        raise AssertionError("it did not happen")

    def bodies(self) -> list[bytes]:
        return [arrival.data for _, arrival in self.arrived if isinstance(arrival, ControlArrival)]


def test_each_direction_has_its_own_delay(stack: ExitStack) -> None:
    """20 ms one way and 5 to 15 ms the other: each direction by what its sender held, both by probes that come back."""
    pair = Pair(
        stack,
        Change(values={"delay_s": 0.02}, pairs=((0, 1),)),
        Change(values={"delay_s": 0.005, "jitter_s": 0.01}, pairs=((1, 0),)),
    )
    for _ in range(20):
        sent = monotonic()
        before = len(pair.arrived)
        pair.ends[0].send_control(1, b"there")
        pair.ends[0].probe()
        pair.serve(lambda before=before: len(pair.arrived) > before)
        assert pair.arrived[-1][0] - sent >= 0.02
    pair.serve(lambda: pair.ends[0].round_trips.shortest_s(1) is not None)
    for me, asked_s in ((0, 0.02), (1, 0.01)):
        tally = pair.ends[me].network.tally((me, 1 - me))
        requested_s, measured_s = tally.requested_delay_s / tally.crossed, tally.measured_delay_s / tally.crossed
        assert measured_s >= requested_s, "messages may be late on a busy machine, never early"
        assert requested_s == pytest.approx(asked_s, abs=0.003)
    shortest_s = pair.ends[0].round_trips.shortest_s(1)
    assert shortest_s is not None
    assert shortest_s >= 0.025


def test_a_tensor_takes_the_time_that_its_bytes_need(stack: ExitStack) -> None:
    pair = Pair(stack, Change(Window("step", 1), {"bandwidth_bytes_per_s": 1e6}, ((0, 1),)))
    pair.ends[0].at_step(1)
    begun = monotonic()
    values_P = torch.arange(12_500, dtype=torch.float32)
    for _ in range(2):
        pair.ends[0].send_bulk(1, KEY, values_P)
    pair.serve(lambda: len(pair.arrived) == 2)
    last_s, last = pair.arrived[-1]
    assert isinstance(last, BulkArrival)
    assert torch.equal(last.tensor, values_P)
    assert last_s - begun >= 0.1, "twice 50,000 bytes at 1 MB/s"
    tally, found = pair.ends[0].network.tally((0, 1)), list[float]()
    while not found or found[-1] < 0.9e6:  # a busy machine wakes the thread late
        sent_bytes, took_s = tally.transferred_bytes, tally.transfer_s
        pair.ends[0].send_bulk(1, KEY, values_P)
        pair.serve(lambda: len(pair.arrived) == 3 + len(found))
        found.append((tally.transferred_bytes - sent_bytes) / (tally.transfer_s - took_s))
    assert max(found) == pytest.approx(1e6, rel=0.1)
    assert tally.transferred_bytes / tally.transfer_s <= 1.001e6, "faster than asked for"
    rates = {name: each for name, each in modelled(pair.ends[0].network).items() if "rate_bytes" in name}
    assert rates.keys() == {"emulated_rate_bytes_per_second", "measured_rate_bytes_per_second"}
    assert rates["emulated_rate_bytes_per_second"] == {1: pytest.approx(1e6)}
    assert rates["measured_rate_bytes_per_second"] == {1: tally.transferred_bytes / tally.transfer_s}
    assert modelled(pair.ends[1].network).keys().isdisjoint(rates), "nothing is asked of that direction"


def test_a_partition_holds_messages_until_it_ends(stack: ExitStack) -> None:
    pair = Pair(stack, Change(Window("step", 5, 6), pairs=((0, 1), (1, 0)), cut=True))
    pair.ends[0].at_step(5)
    pair.ends[0].send_control(1, b"held")
    pair.ends[1].send_control(0, b"free")
    pair.serve(lambda: pair.bodies() == [b"free"])
    assert pair.ends[0].network.tally((0, 1)).held == 1
    pair.ends[0].at_step(6)
    pair.serve(lambda: pair.bodies() == [b"free", b"held"])


def test_a_window_of_time_opens_and_closes_by_itself(stack: ExitStack) -> None:
    pair = Pair(stack, Change(Window("s", 0.0, 0.15), pairs=((0, 1),), cut=True))
    begun = monotonic()
    pair.ends[0].begin()
    pair.ends[0].send_control(1, b"late")
    pair.serve(lambda: bool(pair.arrived))
    assert pair.arrived[0][0] - begun >= 0.15
    assert pair.ends[0].network.tally((0, 1)).held == 1


def test_a_node_that_starts_again_finds_the_conditions_where_they_are(stack: ExitStack) -> None:
    pair = Pair(stack, Change(Window("s", 100.0, 200.0), {"delay_s": 5.0}))
    pair.ends[0].begin(elapsed_s=250.0)
    assert pair.ends[0].now_s >= 250.0


def test_duplicates_arrive_twice_and_losses_late(stack: ExitStack) -> None:
    pair = Pair(stack, Change(Window("step", 1), {"duplicate": 1.0, "loss": 0.5, "retransmit_s": 0.002}, ((0, 1),)))
    pair.ends[0].at_step(1)
    for number in range(20):
        pair.ends[0].send_control(1, b"%d" % number)
    pair.serve(lambda: len(pair.arrived) == 40)
    assert sorted(pair.bodies()) == sorted(2 * [b"%d" % number for number in range(20)])
    tally = pair.ends[0].network.tally((0, 1))
    assert tally.lost > 0
    assert tally.transmissions == tally.crossed + tally.lost


def test_closing_lets_out_what_is_on_its_way_and_counts_the_rest(stack: ExitStack) -> None:
    pair = Pair(stack, Change(Window("step", 1), {"delay_s": 0.05}, ((0, 1),)), Change(pairs=((1, 0),), cut=True,
                window=Window("step", 1)))  # fmt: skip
    for each in pair.ends:
        each.at_step(1)
    pair.ends[0].send_control(1, b"last words")
    pair.ends[1].send_control(0, b"never")
    pair.ends[0].close()
    pair.ends = pair.ends[1:]
    pair.serve(lambda: pair.bodies() == [b"last words"])
    pair.ends[0].close(0)
    assert pair.ends[0].counters.dropped["emulated_unsent"] == 1


def test_measured_delays_are_the_requested_ones(stack: ExitStack) -> None:
    """End to end, at the receiver: never early, and within 10 % or 2 ms. The quickest of 40 or more messages tells:
    what others run on this machine can only make a message later, so it goes on until one was not disturbed."""
    pair = Pair(stack, Change(values={"delay_s": 0.03}, pairs=((0, 1),)))
    took = list[float]()
    while len(took) < 40 or min(took) > 0.033:
        sent, before = monotonic(), len(pair.arrived)
        pair.ends[0].send_control(1, b"x")
        pair.serve(lambda before=before: len(pair.arrived) > before)
        took.append(pair.arrived[-1][0] - sent)
    assert min(took) >= 0.03
    assert min(took) == pytest.approx(0.03, rel=0.1, abs=0.002)
    tally = pair.ends[0].network.tally((0, 1))
    assert tally.measured_delay_s / tally.crossed <= fmean(took), "what the sender measured, the receiver saw"


def test_lines_are_opened_anew_while_no_other_thread_sends(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that was started again gets new lines: the thread of the links must not hold the old sockets meanwhile."""
    pair, free, redial = Pair(stack), list[bool](), Dialler.redial

    def look() -> None:
        free.append(pair.ends[0]._changed.acquire(blocking=False))
        if free[-1]:
            pair.ends[0]._changed.release()

    def watched(lines: Dialler, peer: int, peer_key: bytes) -> None:
        other = Thread(target=look)
        other.start()
        other.join()
        redial(lines, peer, peer_key)

    monkeypatch.setattr(Dialler, "redial", watched)
    before = pair.ends[1]
    before.close(0)
    pair.ends[1] = end(stack, 1, listen=before.bound)
    pair.ends[1].connect({0: pair.ends[0].bound})
    pair.serve(lambda: len(free) == 2)
    assert free == [False, False], "control and bulk: whoever else wants to send waits"


def test_links_that_fail_end_the_wait_with_an_error(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their thread has nobody to tell but the driver, which may be waiting for something that will never come."""
    pair = Pair(stack, Change(values={"delay_s": 0.001}, pairs=((0, 1),)))

    def broken(*_: object) -> bool:
        raise OSError("no such socket")

    monkeypatch.setattr(pair.ends[0]._control, "send", broken)
    pair.ends[0].send_control(1, b"lost")
    with pytest.raises(
        TransportError, match=r"^the emulated links failed \(OSError: no such socket\).*; resume the run"
    ):
        for _ in range(3):  # a handshake may end the first wait early
            pair.ends[0].poll(WATCHDOG_S / 6)
    with pytest.raises(TransportError, match="the emulated links failed"):
        pair.ends[0].send_control(1, b"another")
