"""The transport over real sockets: what honest peers get, and how it opens and closes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch

from btard.node.config import Endpoint, Member
from btard.node.crypto import keys
from btard.node.errors import LocalProtocolError, TransportError
from btard.node.transport import framing
from btard.node.transport.addresses import Resolver
from btard.node.transport.arrivals import BulkArrival
from btard.node.transport.transport import Transport
from tests.transports import (
    ANYWHERE,
    KEY,
    MEMBERS,
    ONE_PORT,
    SECRETS,
    WATCHDOG_S,
    controls,
    mesh,
    pump,
    start,
)

HAS_PROC = Path("/proc/self/fd").exists()


def test_control_messages_reach_each_peer_under_the_senders_id(stack: ExitStack) -> None:
    nodes = mesh(stack, 3)
    for sender in nodes:
        for to in {0, 1, 2} - {sender.me}:
            sender.send_control(to, b"from %d to %d" % (sender.me, to))
    seen = pump(nodes, lambda seen: all(len(arrivals) == 2 for arrivals in seen))
    for me, arrivals in enumerate(seen):
        assert sorted(controls(arrivals)) == [(via, b"from %d to %d" % (via, me)) for via in range(3) if via != me]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"encrypt_bulk": True}, {"listen": ONE_PORT}], ids=["plain", "curve", "one port"]
)
@pytest.mark.parametrize("length", [0, 1, 1001, 3640, 32_768, 32_769, 1_000_003], ids=lambda n: f"{n} floats")
def test_tensors_arrive_bit_for_bit(stack: ExitStack, length: int, options: dict[str, Any]) -> None:
    nodes = mesh(stack, **options)
    sent = torch.randn(length, generator=torch.Generator().manual_seed(length))
    expected = sent.clone()
    nodes[1].send_bulk(0, KEY, sent)
    del sent
    gc.collect()  # the queue alone keeps a zero-copy tensor alive
    (arrival,) = pump(nodes, lambda seen: len(seen[0]) == 1)[0]
    assert isinstance(arrival, BulkArrival)
    assert (arrival.via, arrival.key) == (1, KEY)
    assert torch.equal(arrival.tensor, expected)
    size = 4 * length + len(framing.encode_bulk_header(bytes(32), KEY))
    assert nodes[1].counters.sent_bytes[0, "part"] == nodes[0].counters.received_bytes[1, "part"] == size
    assert not nodes[0].counters.dropped


def test_a_slice_of_a_gradient_needs_no_copy(stack: ExitStack) -> None:
    nodes = mesh(stack)
    gradient_D = torch.arange(100_000, dtype=torch.float32)
    nodes[0].send_bulk(1, KEY, gradient_D[30_001:70_001])
    (arrival,) = pump(nodes, lambda seen: len(seen[1]) == 1)[1]
    assert isinstance(arrival, BulkArrival)
    assert torch.equal(arrival.tensor, torch.arange(30_001, 70_001, dtype=torch.float32))


def test_peers_with_one_port_and_with_two_hear_each_other(stack: ExitStack) -> None:
    nodes = [start(stack, me, listen) for me, listen in enumerate((ONE_PORT, ANYWHERE, ONE_PORT))]
    assert [len(node.bound.urls) for node in nodes] == [1, 2, 1]
    for node in nodes:
        node.connect({each.me: each.bound for each in nodes})
    pump(nodes, lambda _: all(len(node.greeted) == 2 for node in nodes))
    for node in nodes:
        for to in {0, 1, 2} - {node.me}:
            node.send_bulk(to, KEY, torch.full((100_000,), float(node.me)))
            node.send_control(to, b"from %d" % node.me)
    for me, arrivals in enumerate(pump(nodes, lambda seen: all(len(arrivals) == 4 for arrivals in seen))):
        others = [via for via in range(3) if via != me]
        assert sorted(controls(arrivals)) == [(via, b"from %d" % via) for via in others]
        tensors = [(each.via, each.tensor) for each in arrivals if isinstance(each, BulkArrival)]
        assert sorted(via for via, _ in tensors) == others
        assert all(torch.equal(values_P, torch.full((100_000,), float(via))) for via, values_P in tensors)
    assert not any(node.counters.dropped for node in nodes)


def test_control_messages_pass_tensors_that_came_before_them(stack: ExitStack) -> None:
    """They have a connection of their own, and where both wait here, what costs less comes first."""
    nodes = mesh(stack, listen=ONE_PORT)
    for number in range(16):
        nodes[1].send_bulk(0, KEY, torch.zeros(100_000))
        nodes[1].send_control(0, b"%d" % number)
    kinds: list[list[bool]] = []
    end = monotonic() + WATCHDOG_S
    while sum(map(len, kinds)) < 32:
        assert monotonic() < end
        kinds.append([isinstance(arrival, BulkArrival) for arrival in nodes[0].poll(0.01)])
    assert kinds == [sorted(each) for each in kinds]


@pytest.mark.parametrize("listen", [ANYWHERE, ONE_PORT], ids=["two ports", "one port"])
def test_a_restarted_peer_is_greeted_again_and_its_new_token_counts(stack: ExitStack, listen: Endpoint) -> None:
    nodes = mesh(stack, listen=listen)
    nodes[1].close()
    again = start(stack, 1, nodes[1].bound)
    again.connect({0: nodes[0].bound})
    pump([nodes[0], again], lambda _: again.greeted == {0})
    again.send_bulk(0, KEY, torch.ones(5))
    nodes[0].send_bulk(1, KEY, torch.ones(6))
    seen = pump([nodes[0], again], lambda seen: all(seen))
    assert [arrivals[0].via for arrivals in seen] == [1, 0]
    assert len(nodes[0]._tokens._senders) == 1


def test_a_peer_that_comes_back_elsewhere_gets_a_new_line(stack: ExitStack) -> None:
    nodes = mesh(stack)
    nodes[1].close()
    again = start(stack, 1)
    assert again.bound != nodes[1].bound
    again.connect({0: nodes[0].bound})
    nodes[0].connect({1: again.bound})
    pump([nodes[0], again], lambda _: again.greeted == {0})
    nodes[0].send_control(1, b"welcome back")
    assert controls(pump([nodes[0], again], lambda seen: len(seen[1]) > 0)[1]) == [(0, b"welcome back")]


IPV6 = Endpoint("tcp://[::1]:*", "tcp://[::1]:*")


def test_peers_reach_each_other_over_ipv6_alone(stack: ExitStack) -> None:
    nodes = mesh(stack, listen=IPV6)
    assert nodes[0].bound.control.startswith("tcp://[::1]:")
    nodes[0].send_control(1, b"hello")
    nodes[1].send_bulk(0, KEY, torch.ones(5))
    seen = pump(nodes, lambda seen: all(seen))
    assert [arrivals[0].via for arrivals in seen] == [1, 0]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_who_listens_everywhere_is_reached_over_both_families(stack: ExitStack, host: str) -> None:
    everywhere, other = start(stack, 0, Endpoint("tcp://[::]:*", "tcp://[::]:*")), start(stack, 1)
    bound = everywhere.bound
    other.connect({0: Endpoint(bound.control.replace("[::]", host), bound.bulk.replace("[::]", host))})
    everywhere.connect({1: other.bound})
    pump([everywhere, other], lambda _: everywhere.greeted == {1} and other.greeted == {0})


# --- names and moves ------------------------------------------------------------------------------------------


AT_ONCE = (0.001, 0.05)


class Names:
    """Where a name leads; a test changes it."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: tuple[str, ...] = addresses

    def __call__(self, host: str) -> tuple[str, ...]:
        if not self.addresses:
            raise OSError("no such name")
        return self.addresses


def moved_to(endpoint: Endpoint, host: str) -> Endpoint:
    return Endpoint(*(url.replace("127.0.0.1", host) for url in (endpoint.control, endpoint.bulk)))


def at(host: str) -> Endpoint:
    return Endpoint(f"tcp://{host}:*", f"tcp://{host}:*")


def test_a_peer_is_greeted_once_its_name_resolves_and_it_has_answered_there(stack: ExitStack) -> None:
    """Nobody is lost to a message into the void: first the name has no address, then that of nobody."""
    names = Names()
    node, other = start(stack, 0, resolver=Resolver(names, AT_ONCE)), start(stack, 1)
    node.connect({1: moved_to(other.bound, "node-1")})
    other.connect({0: node.bound})
    pump([node, other], lambda _: "does not resolve" in (node.silence(1) or ""))
    names.addresses = ("127.0.0.9",)
    pump([node, other], lambda _: "silent at tcp://127.0.0.9:" in (node.silence(1) or ""))
    assert not node.greeted
    names.addresses = ("127.0.0.1",)
    pump([node, other], lambda _: node.greeted == {1})
    node.send_control(1, b"hello")
    assert controls(pump([node, other], lambda seen: len(seen[1]) > 0)[1]) == [(0, b"hello")]


def test_what_is_said_before_a_name_resolves_is_not_lost(stack: ExitStack) -> None:
    """A newcomer is told the state in the turn that lets it in, and its name is looked up no sooner."""
    names = Names()
    node, other = start(stack, 0, resolver=Resolver(names, AT_ONCE)), start(stack, 1)
    node.connect({1: moved_to(other.bound, "node-1")})
    node.send_control(1, b"the state")
    node.probe()
    assert node.counters.dropped.total() == 0
    other.connect({0: node.bound})
    names.addresses = ("127.0.0.1",)
    seen = pump([node, other], lambda seen: node.greeted == {1} and len(seen[1]) > 0)
    assert controls(seen[1]) == [(0, b"the state")]


def test_a_peer_that_starts_again_where_its_name_leads_now_is_found(stack: ExitStack) -> None:
    names = Names("127.0.0.1")
    node, before = start(stack, 0, resolver=Resolver(names, AT_ONCE)), start(stack, 1)
    node.connect({1: moved_to(before.bound, "node-1")})
    before.connect({0: node.bound})
    pump([node, before], lambda _: node.greeted == {1} and before.greeted == {0})
    before.close()
    names.addresses = ("127.0.0.2",)
    after = start(stack, 1, moved_to(before.bound, "127.0.0.2"))
    after.connect({0: node.bound})
    pump([node, after], lambda _: after.greeted == {0})
    node.send_control(1, b"welcome back")
    node.send_bulk(1, KEY, torch.ones(3))
    assert len(pump([node, after], lambda seen: len(seen[1]) == 2)[1]) == 2


def test_a_name_that_no_longer_resolves_keeps_its_address(stack: ExitStack) -> None:
    names = Names("127.0.0.1")
    node, before = start(stack, 0, resolver=Resolver(names, AT_ONCE)), start(stack, 1)
    node.connect({1: moved_to(before.bound, "node-1")})
    before.connect({0: node.bound})
    pump([node, before], lambda _: node.greeted == {1} and before.greeted == {0})
    before.close()
    names.addresses = ()
    after = start(stack, 1, before.bound)
    after.connect({0: node.bound})
    pump([node, after], lambda _: after.greeted == {0})


def test_two_that_both_moved_find_each_other_by_a_third(stack: ExitStack) -> None:
    """Peers 1 and 2 start elsewhere, knowing each other's old address alone; peer 0 knows neither new one."""
    first = [start(stack, me, at(f"127.0.0.{me + 1}"), run=b"run") for me in range(3)]
    addresses = {node.me: node.bound for node in first}
    for node in first:
        node.connect(addresses)
    pump(first, lambda _: all(len(node.greeted) == 2 for node in first))
    for node in first[1:]:
        node.close()
    moved = [start(stack, me, at(f"127.0.0.{me + 11}"), run=b"run") for me in (1, 2)]
    for node in moved:
        node.connect({**addresses, node.me: node.bound}, moves=1)
    nodes = [first[0], *moved]
    pump(nodes, lambda _: all(len(node.greeted) == 2 for node in moved))
    for node in nodes:
        for to in {0, 1, 2} - {node.me}:
            node.send_control(to, b"from %d" % node.me)
    seen = pump(nodes, lambda seen: all(len(controls(arrivals)) == 2 for arrivals in seen))
    for me, arrivals in enumerate(seen):
        assert sorted(controls(arrivals)) == [(via, b"from %d" % via) for via in range(3) if via != me]
    assert not any(node.counters.dropped for node in nodes)


def test_a_peer_moves_from_two_ports_to_one_of_them_and_back(stack: ExitStack) -> None:
    """Where its tensors went plain they go encrypted, and plain again to what was its only port."""
    node, moving = start(stack, 0, run=b"run"), start(stack, 1, run=b"run")
    addresses = {0: node.bound, 1: moving.bound}
    node.connect(addresses)
    moving.connect(addresses)
    pump([node, moving], lambda _: node.greeted == {1} and moving.greeted == {0})
    before = moving.bound
    for number, listen in enumerate((Endpoint(before.bulk), before, Endpoint(before.control)), 1):
        moving.close()
        moving = start(stack, 1, listen, run=b"run")
        moving.connect({0: node.bound, 1: moving.bound}, moves=number)
        # Until it has dialled the new address, what is sent there is lost with the line to the old one.
        pump([node, moving], lambda _, there=listen.urls[-1]: node._bulk.endpoint(1) == there)
        pump([node, moving], lambda _, now=moving: now.greeted == {0})
        node.send_bulk(1, KEY, torch.ones(100_000))
        moving.send_bulk(0, KEY, torch.ones(3))
        seen = pump([node, moving], lambda seen: all(seen))
        assert [[len(each.tensor) for each in own if isinstance(each, BulkArrival)] for own in seen] == [[3], [100_000]]


def test_a_peer_with_an_older_record_than_the_one_known_is_named_once(stack: ExitStack) -> None:
    said: list[str] = []
    node, newest = start(stack, 0, run=b"run"), start(stack, 1, run=b"run")
    node.complain = said.append
    node.connect({1: newest.bound})
    newest.connect({0: node.bound, 1: newest.bound}, moves=2)
    pump([node, newest], lambda _: node.greeted == {1})
    newest.close()
    for _ in range(2):
        older = start(stack, 1, run=b"run")
        older.connect({0: node.bound, 1: older.bound}, moves=1)
        before = node.counters.dropped["address_older"]
        pump([node, older], lambda _, before=before: node.counters.dropped["address_older"] > before)
        older.close()
    (line,) = said
    assert line.startswith("peer 1 shows address record 1 and record 2 is known") and "\n" not in line


def test_a_full_queue_drops_and_counts_but_never_blocks(stack: ExitStack) -> None:
    node = start(stack, 0, limits=framing.Limits(control_queue=10, bulk_queue=2))
    gone = start(stack, 1)
    gone.close()
    node.connect({1: gone.bound})  # one greeting waits
    for _ in range(12):
        node.send_control(1, b"anybody?")
        node.send_bulk(1, KEY, torch.zeros(100_000))
    assert node.counters.dropped == {"queue_full_control": 3, "queue_full_bulk": 10}
    assert node.counters.sent_messages == {(1, "greeting"): 1, (1, "control"): 9, (1, "part"): 2}


def test_what_a_stalled_receiver_does_not_read_is_kept_by_the_sender(stack: ExitStack) -> None:
    nodes = mesh(stack)
    words = [b"%d" % number for number in range(900)]  # far beyond the receiver's backlog of 64
    for word in words:
        nodes[0].send_control(1, word)
    seen = pump(nodes, lambda seen: len(seen[1]) == len(words))
    assert [word for _, word in controls(seen[1])] == words


def test_one_poll_takes_no_more_than_its_budget(stack: ExitStack) -> None:
    nodes = mesh(stack, limits=framing.Limits(drain=3))
    for _ in range(20):
        nodes[0].send_control(1, b"flood")
    received = 0
    while received < 20:
        arrivals = nodes[1].poll(0.1)
        assert len(arrivals) <= 3
        received += len(arrivals)


def test_the_last_messages_leave_before_close_returns(stack: ExitStack) -> None:
    nodes = mesh(stack)
    for number in range(200):
        nodes[0].send_control(1, b"%d" % number)
    nodes[0].send_bulk(1, KEY, torch.zeros(1_000_000))
    nodes[0].close()
    seen = pump(nodes[1:], lambda seen: len(seen[0]) == 201)
    assert len(controls(seen[0])) == 200


@pytest.mark.skipif(not HAS_PROC, reason="counts open files in /proc")
def test_close_leaves_no_socket(stack: ExitStack) -> None:
    for node in mesh(stack):  # pyzmq keeps descriptors of its own after the first zero-copy message
        node.close()  # each of them: one left open drops its connection and dials again while we count
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    nodes = mesh(stack)
    for node in nodes:
        node.close()
        node.close()  # a second call does nothing
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    start(stack, 0, nodes[0].bound)  # the ports are free again


def test_a_busy_port_is_named_with_the_way_out(stack: ExitStack) -> None:
    busy = start(stack, 0).bound
    free = "tcp://127.0.0.1:*"
    for listen in (Endpoint(busy.control, free), Endpoint(free, busy.bulk), Endpoint(busy.control)):
        taken = busy.control if listen.control == busy.control else busy.bulk
        with pytest.raises(TransportError, match=r"in use; stop what listens there or use port \*") as error:
            start(stack, 1, listen)
        assert taken in str(error.value)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5000", "tcp://127.0.0.1", "tcp://no-such-device:1", ""])
def test_an_address_that_is_none_is_named(stack: ExitStack, endpoint: str) -> None:
    with pytest.raises(TransportError, match=r"cannot listen on .*; use tcp://"):
        start(stack, 0, Endpoint(endpoint, "tcp://127.0.0.1:*"))


def test_connect_refuses_what_cannot_be_reached(stack: ExitStack) -> None:
    node = start(stack, 0)
    with pytest.raises(TransportError, match="cannot connect to peer 1 at 'nowhere'"):
        node.connect({1: Endpoint("nowhere", "nowhere")})
    with pytest.raises(TransportError, match="peer 9 has an address but no key"):
        node.connect({9: ANYWHERE})


def test_foreign_secrets_are_refused() -> None:
    with pytest.raises(TransportError, match="not those of peer 0"):
        Transport(0, SECRETS[1], MEMBERS, ANYWHERE, run_id="run")


MISUSES: dict[str, Callable[[Transport], None]] = {
    "to oneself": lambda node: node.send_control(0, b"x"),
    "no line": lambda node: node.send_bulk(2, KEY, torch.zeros(1)),
    "empty": lambda node: node.send_control(1, b""),
    "too long": lambda node: node.send_control(1, bytes(101)),
    "too large": lambda node: node.send_bulk(1, KEY, torch.zeros(26)),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_our_own_mistakes_are_loud(stack: ExitStack, misuse: Callable[[Transport], None]) -> None:
    node = start(stack, 0, limits=framing.Limits(control_bytes=100, bulk_bytes=100))
    node.connect({1: Endpoint("tcp://127.0.0.1:1", "tcp://127.0.0.1:1")})
    with pytest.raises(LocalProtocolError):
        misuse(node)


def test_a_watched_descriptor_ends_a_long_poll(stack: ExitStack) -> None:
    node = start(stack, 0)
    read_end, write_end = os.pipe()
    stack.callback(os.close, read_end)
    node.watch(read_end)
    os.close(write_end)  # readable: its end has been reached
    assert node.poll(10 * WATCHDOG_S) == []
    node.unwatch(read_end)
    assert node.poll(0) == []


# --- newcomers ----------------------------------------------------------------------------------------------------

IDENTITIES, KEYS = keys.generate(7, 5)
NEW = 3


def applicant(stack: ExitStack, me: int = NEW, key: int = NEW) -> Transport:
    """A newcomer's transport: it knows the founders, and nobody knows it."""
    mine = keys.public_identity(me, KEYS[key])
    node = Transport(me, KEYS[key], (*MEMBERS, mine), ANYWHERE, run_id="run")
    node.applies = True
    stack.callback(node.close, 0)
    return node


def named(node: Transport, key: int = NEW) -> dict[int, tuple[Member, Endpoint]]:
    return {node.me: (keys.public_identity(node.me, KEYS[key]), node.bound)}


def test_a_newcomer_is_let_in_once_the_state_names_it(stack: ExitStack) -> None:
    """Whoever dials before is a stranger, and dials anew when it is greeted."""
    nodes = mesh(stack, 3)
    new = applicant(stack)
    new.connect({node.me: node.bound for node in nodes})
    pump([*nodes, new], lambda _: all(node.counters.dropped["stranger"] for node in nodes))
    for node in nodes:
        node.follow(named(new))
    pump([*nodes, new], lambda _: len(new.greeted) == 3 and all(NEW in node.greeted for node in nodes))
    nodes[0].send_control(NEW, b"the state")
    new.send_control(1, b"a JOIN")
    new.send_bulk(2, KEY, torch.ones(3))
    seen = pump([*nodes, new], lambda seen: bool(seen[1] and seen[2] and seen[3]))
    assert controls(seen[3]) == [(0, b"the state")] and controls(seen[1]) == [(NEW, b"a JOIN")]
    assert seen[2][0].via == NEW


def test_a_newcomer_that_is_out_is_nobody_and_its_id_is_free(stack: ExitStack) -> None:
    """What still comes over the line that it had is not taken for the next one's."""
    nodes = mesh(stack, 3)
    first, second = applicant(stack), applicant(stack, key=4)
    nodes[0].follow(named(first))
    first.connect({0: nodes[0].bound})
    pump([*nodes, first], lambda _: first.greeted == {0} and NEW in nodes[0].greeted)
    first.send_control(0, b"here")
    pump([*nodes, first], lambda seen: bool(seen[0]))
    nodes[0].follow({})
    assert NEW not in nodes[0].greeted
    first.send_control(0, b"still here")
    pump([*nodes, first], lambda _: nodes[0].counters.dropped["control_unauthenticated"] > 0)
    nodes[0].follow(named(second, 4))
    second.connect({0: nodes[0].bound})
    pump([*nodes, first, second], lambda _: second.greeted == {0} and NEW in nodes[0].greeted)
    first.send_control(0, b"not me")
    second.send_control(0, b"me")
    seen = pump([*nodes, first, second], lambda seen: bool(seen[0]))
    assert controls(seen[0]) == [(NEW, b"me")]


@pytest.mark.parametrize("what", ["no key", "a member's key", "no address"])
def test_a_newcomer_that_cannot_be_reached_harms_nobody(stack: ExitStack, what: str) -> None:
    nodes = mesh(stack, 3)
    mine = keys.public_identity(NEW, KEYS[NEW])
    key = {"no key": "~" * 40, "a member's key": MEMBERS[1].transport_key}.get(what, mine.transport_key)
    address = Endpoint("simulated", "") if what == "no address" else Endpoint("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
    nodes[0].follow({NEW: (Member(NEW, mine.signing_key, key), address)})
    nodes[0].send_control(NEW, b"to nobody")
    nodes[0].send_bulk(NEW, KEY, torch.ones(2))
    nodes[1].send_control(0, b"hello")
    assert controls(pump(nodes, lambda seen: bool(seen[0]))[0]) == [(1, b"hello")]
    nodes[0].follow({})
