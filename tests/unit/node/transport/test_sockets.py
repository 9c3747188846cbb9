"""The gate, a listener and lines by themselves, against peers that speak ZMTP by hand."""

from __future__ import annotations

import socket as tcp
import struct
from collections import Counter
from collections.abc import Iterator
from time import monotonic

import pytest
import zmq

from btard.node.transport.sockets import (
    PIECE_BYTES,
    Bounds,
    Context,
    Dialler,
    Identity,
    Listener,
    ZapAuthenticator,
)
from tests.ports import held_ports

BOUNDS = Bounds(frames=2, frame_bytes=1000, message_bytes=1000, backlog=4, buffer_bytes=1 << 16)
ANYWHERE = "tcp://127.0.0.1:*"
OURS, PEERS, STRANGERS = (Identity(*zmq.curve_keypair()) for _ in range(3))
WATCHDOG_MS = 30_000


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def lines_of(context: Context, identity: Identity | None = None) -> Dialler:
    """Lines that prove an identity, or plain ones."""
    encrypted = identity is not None
    return Dialler(context, identity or STRANGERS, encrypted=encrypted, queue=4, buffer_bytes=1 << 16)


def receive(listener: Listener) -> list[zmq.Frame]:
    assert listener.socket.poll(WATCHDOG_MS)
    (frames,) = listener.arrived(1)
    return frames


def speak_zmtp(listener: Listener, identity: bytes) -> tcp.socket:
    """A connection that says by hand what libzmq would not let it say: any identity at all (ZMTP 3.0, NULL)."""

    def field(name: bytes, value: bytes) -> bytes:
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value

    connection = tcp.create_connection(("127.0.0.1", int(listener.bound.rsplit(":", 1)[1])))
    connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY" + field(b"Socket-Type", b"PUSH") + field(b"Identity", identity)
    ready += field(b"User-Id", b"1")
    connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
    heard = b""
    while b"READY" not in heard:  # a libzmq that reads a message together with the handshake may leave it unread
        heard += connection.recv(1000)
    return connection


def test_the_keys_of_members_come_in_under_their_ids_and_others_stay_out(context: Context) -> None:
    dropped: Counter[str] = Counter()
    gate = ZapAuthenticator(context, {7: PEERS.public}, dropped)
    server = Listener(context, OURS, BOUNDS, ANYWHERE)
    every = [lines_of(context, STRANGERS), lines_of(context, PEERS)]  # one that nobody holds any more is closed
    for lines in every:
        lines.dial(0, OURS.public, server.bound)
        lines.send(0, b"hello")
    end = monotonic() + WATCHDOG_MS / 1000
    while dropped["stranger"] == 0 or not server.socket.poll(0):
        assert monotonic() < end
        if gate.socket.poll(100):
            gate.answer(10)
    assert [(gate.peer_of(frame), frame.bytes) for frame in receive(server)] == [(7, b"hello")]
    assert not list(server.arrived(10))


def test_without_a_gate_nobody_comes_in(context: Context) -> None:
    server = Listener(context, OURS, BOUNDS, ANYWHERE)
    monitor = server.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
    member = lines_of(context, PEERS)
    member.dial(0, OURS.public, server.bound)
    member.send(0, b"hello")
    assert monitor.poll(WATCHDOG_MS)  # the handshake has failed
    assert not list(server.arrived(1))
    server.socket.disable_monitor()


def test_a_server_with_another_key_hears_nothing(context: Context) -> None:
    gate = ZapAuthenticator(context, {7: PEERS.public}, Counter())
    impostor = Listener(context, STRANGERS, BOUNDS, ANYWHERE)
    member = lines_of(context, PEERS)
    member.dial(0, OURS.public, impostor.bound)  # it expects our key at this address
    monitor = member._lines[0].socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    member.send(0, b"for your eyes only")
    assert monitor.poll(WATCHDOG_MS)
    assert not gate.socket.poll(0)
    assert not list(impostor.arrived(1))
    member._lines[0].socket.disable_monitor()


def test_a_reading_ends_with_the_message_that_holds_enough_bytes(context: Context) -> None:
    server = Listener(context, None, BOUNDS, ANYWHERE)
    sender = lines_of(context)
    sender.dial(0, b"", server.bound)
    assert all(sender.send(0, bytes(100)) for _ in range(4))
    for _ in range(4):
        assert server.socket.poll(WATCHDOG_MS)
        assert [len(frames) for frames in server.arrived(4, most_bytes=100)] == [1]
    assert not list(server.arrived(4, most_bytes=100))


def test_no_claimed_identity_can_stop_the_process(context: Context) -> None:
    """A ROUTER aborts when a peer claims the id it would generate next; PULL does not look at them."""
    server = Listener(context, None, BOUNDS, ANYWHERE)
    claims = [b"\0" + struct.pack(">I", number) for number in range(3)] + [b"", b"\0" * 200, b"1"]
    for claim in claims:
        connection = speak_zmtp(server, claim)
        connection.sendall(b"\x00\x05hello")
        (frame,) = receive(server)
        assert frame.bytes == b"hello"
        connection.close()


def test_frames_of_one_message_are_capped(context: Context) -> None:
    server, client = Listener(context, None, BOUNDS, ANYWHERE), lines_of(context)
    client.dial(0, b"", server.bound)
    client._lines[0].socket.send_multipart([b"x"] * 5000)
    assert len(receive(server)) == 3
    assert client.send(0, b"head", memoryview(b"payload"))
    assert [frame.bytes for frame in receive(server)] == [b"head", b"payload"]


def test_what_is_for_a_peer_without_an_address_is_held_up_to_a_queue(context: Context) -> None:
    server, client = Listener(context, None, BOUNDS, ANYWHERE), lines_of(context)
    client.hold(0)
    assert client.has_line(0) and client.holds(0) and client.endpoint(0) is None
    assert [client.send(0, b"%d" % number) for number in range(5)] == [True] * 4 + [False]
    client.dial(0, b"", server.bound)
    client.release(0)
    assert [receive(server)[0].bytes for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    assert not client.holds(0)
    client.hold(1)
    client.send(1, b"to a process before")
    assert not client.redial(1, b"")
    client.dial(1, b"", server.bound)
    client.release(1)
    client.send(1, b"to this one")
    assert receive(server)[0].bytes == b"to this one"
    client.hold(2)
    client.hang_up(2)
    assert not client.has_line(2)


def test_a_full_queue_says_so_and_dialling_twice_keeps_the_line(context: Context) -> None:
    lines = lines_of(context)
    assert lines.dial(0, b"", "tcp://127.0.0.1:1")
    assert [lines.send(0, b"x") for _ in range(6)] == [True] * 4 + [False] * 2
    assert not lines.dial(0, b"", "tcp://127.0.0.1:1")
    assert not lines.send(0, b"x")
    assert lines.dial(0, b"", "tcp://127.0.0.1:2")
    assert lines.send(0, b"x")


def test_what_goes_to_an_only_port_goes_there_in_pieces_and_encrypted(context: Context) -> None:
    gate = ZapAuthenticator(context, {7: PEERS.public}, Counter())
    pieces = Bounds(frames=4, frame_bytes=PIECE_BYTES, message_bytes=3 * PIECE_BYTES, backlog=4, buffer_bytes=1 << 16)
    server = Listener(context, OURS, pieces, ANYWHERE)
    # Room for all five: libzmq looks at most once a millisecond at what was read, so a queue looks full for longer.
    lines = Dialler(context, PEERS, encrypted=False, queue=8, buffer_bytes=1 << 16)
    lines.dial(0, OURS.public, server.bound, only=True)
    values = bytes(range(256)) * (3 * PIECE_BYTES // 256)
    for size in (0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES):
        assert lines.send(0, b"head", memoryview(values)[:size])
        while not server.socket.poll(10):
            gate.answer(1)
        head, *rest = receive(server)
        assert (head.bytes, gate.peer_of(head)) == (b"head", 7)
        assert [len(frame) for frame in rest[:-1]] == [PIECE_BYTES] * (len(rest) - 1)
        assert b"".join(frame.bytes for frame in rest) == values[:size]


def test_the_same_address_is_dialled_anew_once_it_is_no_longer_the_only_one(context: Context) -> None:
    lines = lines_of(context)
    made = [lines.dial(0, OURS.public, "tcp://127.0.0.1:1", only=only) for only in (True, True, False, False, True)]
    assert made == [True, False, True, False, True]


def test_a_line_opened_anew_has_an_empty_queue_and_not_twice_in_a_moment(context: Context) -> None:
    """What waited ends with the old line: once libzmq's thread has ended it, nothing old comes any more."""
    lines = lines_of(context)
    with held_ports(1) as (port,):
        address = f"tcp://127.0.0.1:{port}"
        lines.dial(0, b"", address)
        old = lines._lines[0].socket
        ended = old.get_monitor_socket(zmq.EVENT_MONITOR_STOPPED)
        assert [lines.send(0, b"old") for _ in range(5)] == [True] * 4 + [False], "nobody listens: it waits"
        lines.redial(0, b"")
        assert ended.poll(WATCHDOG_MS), "libzmq tells when the old line and its queue are gone"
        line = lines._lines[0].socket
        assert line is not old
        lines.redial(0, b"")
        assert lines._lines[0].socket is line
        news = [b"new %d" % number for number in range(5)]
        assert [lines.send(0, new) for new in news] == [True] * 4 + [False], "the new line has a queue of its own"
        again = Listener(context, None, BOUNDS, address)
        assert [frame.bytes for _ in range(4) for frame in receive(again)] == news[:4]
        ended.close()
