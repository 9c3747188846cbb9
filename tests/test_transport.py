"""The transport over real sockets: what honest peers get, and what strangers and liars do not."""

from __future__ import annotations

import gc
import os
import socket as tcp
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch
import zmq

from node import keys, wire
from node.config import WIRE_VERSION, Endpoint
from node.errors import LocalProtocolError, TransportError
from node.protocol.events import BulkKey, BulkKind
from node.transport import Arrival, BulkArrival, ControlArrival, Transport

MEMBERS, SECRETS = keys.generate(0, 3)
ANYWHERE = Endpoint("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
KEY = BulkKey(step=3, attempt=0, kind=BulkKind.PART, owner=1, part=2)
WATCHDOG_S = 30.0  # ends a test that hangs; no test depends on how long anything takes
HAS_PROC = Path("/proc/self/fd").exists()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, me: int, listen: Endpoint = ANYWHERE, **options: Any) -> Transport:
    transport = Transport(me, SECRETS[me], MEMBERS, listen, **{"run_id": "run", **options})
    stack.callback(transport.close, 0)
    return transport


def pump(nodes: Sequence[Transport], done: Callable[[list[list[Arrival]]], bool]) -> list[list[Arrival]]:
    """Poll all nodes until `done` of what each has received; fails if that never comes."""
    seen: list[list[Arrival]] = [[] for _ in nodes]
    end = monotonic() + WATCHDOG_S
    while not done(seen):
        assert monotonic() < end, [(node.counters, node.refusals) for node in nodes]
        for node, arrivals in zip(nodes, seen, strict=True):
            arrivals += node.poll(0.01)
    return seen


def mesh(stack: ExitStack, peers: int = 2, **options: Any) -> list[Transport]:
    nodes = [start(stack, me, **options) for me in range(peers)]
    addresses = {node.me: node.bound for node in nodes}
    for node in nodes:
        node.connect(addresses)
    pump(nodes, lambda _: all(len(node.greeted) == peers - 1 for node in nodes))
    return nodes


def raw_peer(stack: ExitStack, target: Transport, key: str | None, routing_id: bytes = b"") -> zmq.Socket[bytes]:
    """A hand-written peer on the control port: a PUSH socket with any CURVE secret, or with none."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    socket = context.socket(zmq.PUSH)
    stack.callback(socket.close, 0)  # also keeps it: a socket that nobody holds is closed by the collector
    if routing_id:
        socket.routing_id = routing_id
    if key is not None:
        socket.curve_secretkey = key.encode()
        socket.curve_publickey = zmq.curve_public(key.encode())
        socket.curve_serverkey = MEMBERS[target.me].transport_key.encode()
    socket.connect(target.bound.control)
    return socket


def raw_bulk(stack: ExitStack, target: Transport) -> zmq.Socket[bytes]:
    """A stranger on the plain bulk port."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    socket = context.socket(zmq.PUSH)
    stack.callback(socket.close, 0)  # also keeps it: a socket that nobody holds is closed by the collector
    socket.connect(target.bound.bulk)
    return socket


def controls(arrivals: list[Arrival]) -> list[tuple[int, bytes]]:
    return [(arrival.via, arrival.data) for arrival in arrivals if isinstance(arrival, ControlArrival)]


def test_control_messages_reach_each_peer_under_the_senders_id(stack: ExitStack) -> None:
    nodes = mesh(stack, 3)
    for sender in nodes:
        for to in {0, 1, 2} - {sender.me}:
            sender.send_control(to, b"from %d to %d" % (sender.me, to))
    seen = pump(nodes, lambda seen: all(len(arrivals) == 2 for arrivals in seen))
    for me, arrivals in enumerate(seen):
        assert sorted(controls(arrivals)) == [(via, b"from %d to %d" % (via, me)) for via in range(3) if via != me]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "curve"])
@pytest.mark.parametrize("length", [0, 1, 1001, 3640, 1_000_003], ids=lambda n: f"{n} floats")
def test_tensors_arrive_bit_for_bit(stack: ExitStack, length: int, encrypted: bool) -> None:
    nodes = mesh(stack, encrypt_bulk=encrypted)
    sent = torch.randn(length, generator=torch.Generator().manual_seed(length))
    expected = sent.clone()
    nodes[1].send_bulk(0, KEY, sent)
    del sent
    gc.collect()  # the queue alone keeps a zero-copy tensor alive
    (arrival,) = pump(nodes, lambda seen: len(seen[0]) == 1)[0]
    assert isinstance(arrival, BulkArrival)
    assert (arrival.via, arrival.key) == (1, KEY)
    assert torch.equal(arrival.tensor, expected)
    size = 4 * length + len(wire.encode_bulk_header(bytes(32), KEY))
    assert nodes[1].counters.sent_bytes[0, "part"] == nodes[0].counters.received_bytes[1, "part"] == size
    assert not nodes[0].counters.dropped


def test_a_slice_of_a_gradient_needs_no_copy(stack: ExitStack) -> None:
    nodes = mesh(stack)
    gradient_D = torch.arange(100_000, dtype=torch.float32)
    nodes[0].send_bulk(1, KEY, gradient_D[30_001:70_001])
    (arrival,) = pump(nodes, lambda seen: len(seen[1]) == 1)[1]
    assert isinstance(arrival, BulkArrival)
    assert torch.equal(arrival.tensor, torch.arange(30_001, 70_001, dtype=torch.float32))


@pytest.mark.parametrize("key", [zmq.curve_keypair()[1].decode(), None], ids=["unknown key", "no key"])
def test_strangers_do_not_get_in(stack: ExitStack, key: str | None) -> None:
    nodes = mesh(stack)
    stranger = raw_peer(stack, nodes[0], key)
    stranger.send(wire.encode_control(b"let me in"))
    if key is not None:
        pump(nodes, lambda _: nodes[0].counters.dropped["stranger"] > 0)
    nodes[1].send_control(0, b"honest")
    seen = pump(nodes, lambda seen: len(seen[0]) > 0)
    assert controls(seen[0]) == [(1, b"honest")]


@pytest.mark.parametrize("claimed", [b"1", b"peer-1", MEMBERS[1].transport_key.encode()], ids=["id", "name", "key"])
def test_a_member_that_claims_anothers_routing_id_speaks_under_its_own_key(stack: ExitStack, claimed: bytes) -> None:
    nodes = mesh(stack)
    liar = raw_peer(stack, nodes[0], SECRETS[2].transport_secret, routing_id=claimed)
    liar.send(wire.encode_control(b"I am 1"))
    seen = pump(nodes, lambda seen: len(seen[0]) > 0)
    nodes[1].send_control(0, b"so am I")
    seen[0] += pump(nodes, lambda seen: len(seen[0]) > 0)[0]
    assert controls(seen[0]) == [(2, b"I am 1"), (1, b"so am I")]


def test_two_connections_under_one_key_and_routing_id_are_both_heard(stack: ExitStack) -> None:
    nodes = mesh(stack)
    for word in (b"first", b"second"):
        raw_peer(stack, nodes[0], SECRETS[2].transport_secret, routing_id=b"same").send(wire.encode_control(word))
    seen = pump(nodes, lambda seen: len(seen[0]) == 2)
    assert sorted(controls(seen[0])) == [(2, b"first"), (2, b"second")]


TOKEN = bytes(range(32))
BAD_CONTROL = {
    "empty": ([b""], "control_malformed"),
    "kind only": ([b"\x01"], "control_malformed"),
    "unknown kind": ([b"\x07hello"], "control_malformed"),
    "two frames": ([wire.encode_control(b"a"), b"b"], "control_malformed"),
    "many frames": ([b""] * 1000, "control_malformed"),
    "other version": ([b"\x02\x63whatever"], "control_malformed"),
    "garbage greeting": ([b"\x02\x02\xc1\xc1"], "control_malformed"),
    "short token": ([wire.encode_greeting(wire.Greeting("run", b"x"))], "control_malformed"),
    "long greeting": ([wire.encode_greeting(wire.Greeting("r" * 2000, TOKEN))], "control_malformed"),
    "another run": ([wire.encode_greeting(wire.Greeting("older", TOKEN))], "greeting_of_another_run"),
    "a byte too long": ([wire.encode_control(bytes(4001))], "control_malformed"),
}


@pytest.mark.parametrize(("frames", "reason"), BAD_CONTROL.values(), ids=BAD_CONTROL)
def test_bad_control_frames_of_a_member_are_counted_and_nothing_else(
    stack: ExitStack, frames: list[bytes], reason: str
) -> None:
    nodes = mesh(stack, limits=wire.Limits(control_bytes=4000))
    liar = raw_peer(stack, nodes[0], SECRETS[2].transport_secret)
    liar.send_multipart(frames)
    liar.send(wire.encode_control(b"still here"))
    seen = pump(nodes, lambda seen: len(seen[0]) > 0)
    assert controls(seen[0]) == [(2, b"still here")]
    assert nodes[0].counters.dropped == {reason: 1}
    assert nodes[0].greeted == {1}


def test_a_wrong_version_or_run_is_remembered_in_words(stack: ExitStack) -> None:
    node = start(stack, 0)
    for me, frame in ((1, b"\x02\x63x"), (2, wire.encode_greeting(wire.Greeting("older", TOKEN)))):
        raw_peer(stack, node, SECRETS[me].transport_secret).send(frame)
    pump([node], lambda _: len(node.refusals) == 2)
    assert f"wire version 99 and we speak {WIRE_VERSION}" in node.refusals[1]
    assert node.refusals[2] == "it belongs to run 'older' and we to 'run'"


def test_a_frame_beyond_the_limit_ends_its_connection_unread(stack: ExitStack) -> None:
    nodes = mesh(stack, limits=wire.Limits(control_bytes=1000))
    liar = raw_peer(stack, nodes[0], SECRETS[2].transport_secret)
    liar.send(bytes(1_000_000))
    # libzmq reconnects the liar, which loses what it had sent; the later message shows that the node lives on.
    end = monotonic() + WATCHDOG_S
    heard: list[tuple[int, bytes]] = []
    while not heard:
        assert monotonic() < end
        liar.send(wire.encode_control(b"small"))
        heard += controls(nodes[0].poll(0.01))
    assert set(heard) == {(2, b"small")}


def header(token: bytes = TOKEN, key: BulkKey = KEY) -> bytes:
    return wire.encode_bulk_header(token, key)


BAD_BULK = {
    "garbage header": ([b"\xc1\xc1", bytes(8)], "bulk_malformed"),
    "empty header": ([b"", bytes(8)], "bulk_malformed"),
    "long header": ([bytes(500), bytes(8)], "bulk_malformed"),
    "one frame": ([header()], "bulk_malformed"),
    "three frames": ([header(), bytes(8), bytes(8)], "bulk_malformed"),
    "half a float": ([header(), bytes(6)], "bulk_malformed"),
    "negative step": ([header(key=BulkKey(-1, 0, BulkKind.PART, 1, 2)), bytes(8)], "bulk_malformed"),
    "huge part": ([header(key=BulkKey(1, 0, BulkKind.PART, 1, 2**31)), bytes(8)], "bulk_malformed"),
    "unknown token": ([header(bytes(32)), bytes(8)], "bulk_unknown_token"),
    "not expected": ([header(), bytes(12)], "bulk_unexpected"),
    "too large": ([header(), bytes(2004)], "bulk_unexpected"),
}


@pytest.mark.parametrize(("frames", "reason"), BAD_BULK.values(), ids=BAD_BULK)
def test_bad_bulk_is_counted_and_nothing_else(stack: ExitStack, frames: list[bytes], reason: str) -> None:
    nodes = mesh(stack, limits=wire.Limits(bulk_bytes=2000))
    nodes[0].accept_bulk = lambda via, key, size_bytes: size_bytes != 12
    member = raw_peer(stack, nodes[0], SECRETS[2].transport_secret)
    member.send(wire.encode_greeting(wire.Greeting("run", TOKEN)))
    pump(nodes, lambda _: nodes[0].greeted == {1, 2})
    bulk = raw_bulk(stack, nodes[0])
    bulk.send_multipart(frames)
    bulk.send_multipart([header(), bytes(8)])
    (arrival,) = pump(nodes, lambda seen: len(seen[0]) > 0)[0]
    assert isinstance(arrival, BulkArrival)
    assert (arrival.via, arrival.tensor.tolist()) == (2, [0.0, 0.0])
    assert nodes[0].counters.dropped == {reason: 1}


def test_a_token_belongs_to_whoever_brought_it_first(stack: ExitStack) -> None:
    node = start(stack, 0)
    greeting = wire.encode_greeting(wire.Greeting("run", TOKEN))
    for me in (1, 2):
        raw_peer(stack, node, SECRETS[me].transport_secret).send(greeting)
        pump([node], lambda _: bool(node.greeted))
    pump([node], lambda _: node.counters.dropped["greeting_with_a_foreign_token"] == 1)
    assert node.greeted == {1}


def test_encrypted_bulk_takes_a_token_from_its_owner_only(stack: ExitStack) -> None:
    node, other = start(stack, 0, encrypt_bulk=True), start(stack, 1, encrypt_bulk=True)
    raw_peer(stack, node, SECRETS[2].transport_secret).send(wire.encode_greeting(wire.Greeting("run", TOKEN)))
    pump([node], lambda _: node.greeted == {2})
    other._tokens._to[0] = TOKEN  # peer 1 has stolen the token that peer 2 shares with peer 0
    other.connect({0: node.bound})
    other.send_bulk(0, KEY, torch.zeros(4))
    pump([node, other], lambda _: node.counters.dropped["bulk_foreign_token"] == 1)


def test_bytes_that_are_not_zeromq_disturb_nobody(stack: ExitStack) -> None:
    nodes = mesh(stack)
    for endpoint in (nodes[0].bound.control, nodes[0].bound.bulk):
        scanner = tcp.create_connection(("127.0.0.1", int(endpoint.rsplit(":", 1)[1])))
        stack.callback(scanner.close)
        scanner.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(10_000))
    nodes[1].send_control(0, b"honest")
    assert controls(pump(nodes, lambda seen: len(seen[0]) > 0)[0]) == [(1, b"honest")]


def test_a_restarted_peer_is_greeted_again_and_its_new_token_counts(stack: ExitStack) -> None:
    nodes = mesh(stack)
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


def test_a_full_queue_drops_and_counts_but_never_blocks(stack: ExitStack) -> None:
    node = start(stack, 0, limits=wire.Limits(control_queue=10, bulk_queue=2))
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
    nodes = mesh(stack, limits=wire.Limits(drain=3))
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
    mesh(stack)[0].close()  # pyzmq keeps descriptors of its own after the first zero-copy message
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
    for listen in (Endpoint(busy.control, "tcp://127.0.0.1:*"), Endpoint("tcp://127.0.0.1:*", busy.bulk)):
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
    node = start(stack, 0, limits=wire.Limits(control_bytes=100, bulk_bytes=100))
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
