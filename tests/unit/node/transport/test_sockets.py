"""The gate and one channel by themselves, against peers that speak ZMTP by hand."""

from __future__ import annotations

import socket as tcp
import struct
from collections import Counter
from collections.abc import Iterator
from time import monotonic

import pytest
import zmq

from btard.node.transport.sockets import Bounds, Channel, Context, Identity, ZapAuthenticator, authenticated
from tests.ports import held_ports

BOUNDS = Bounds(frames=2, frame_bytes=1000, backlog=4, queue=4, buffer_bytes=1 << 16)
ANYWHERE = "tcp://127.0.0.1:*"
OURS, PEERS, STRANGERS = (Identity(*zmq.curve_keypair()) for _ in range(3))
WATCHDOG_MS = 30_000


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def receive(channel: Channel) -> list[zmq.Frame]:
    assert channel.socket.poll(WATCHDOG_MS)
    (frames,) = channel.arrived(1)
    return frames


def speak_zmtp(channel: Channel, identity: bytes) -> tcp.socket:
    """A connection that says by hand what libzmq would not let it say: any identity at all (ZMTP 3.0, NULL)."""

    def field(name: bytes, value: bytes) -> bytes:
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value

    connection = tcp.create_connection(("127.0.0.1", int(channel.bound.rsplit(":", 1)[1])))
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
    server = Channel(context, OURS, BOUNDS, ANYWHERE)
    stranger = Channel(context, STRANGERS, BOUNDS, ANYWHERE)
    member = Channel(context, PEERS, BOUNDS, ANYWHERE)
    for channel in (stranger, member):
        channel.dial(0, OURS.public, server.bound)
        channel.send(0, b"hello")
    end = monotonic() + WATCHDOG_MS / 1000
    while dropped["stranger"] == 0 or not server.socket.poll(0):
        assert monotonic() < end
        if gate.socket.poll(100):
            gate.answer(10)
    assert [(authenticated(frame), frame.bytes) for frame in receive(server)] == [(7, b"hello")]
    assert not list(server.arrived(10))


def test_without_a_gate_nobody_comes_in(context: Context) -> None:
    server = Channel(context, OURS, BOUNDS, ANYWHERE)
    monitor = server.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
    member = Channel(context, PEERS, BOUNDS, ANYWHERE)
    member.dial(0, OURS.public, server.bound)
    member.send(0, b"hello")
    assert monitor.poll(WATCHDOG_MS)  # the handshake has failed
    assert not list(server.arrived(1))
    server.socket.disable_monitor()


def test_a_server_with_another_key_hears_nothing(context: Context) -> None:
    gate = ZapAuthenticator(context, {7: PEERS.public}, Counter())
    impostor = Channel(context, STRANGERS, BOUNDS, ANYWHERE)
    member = Channel(context, PEERS, BOUNDS, ANYWHERE)
    member.dial(0, OURS.public, impostor.bound)  # it expects our key at this address
    monitor = member._lines[0][1].get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    member.send(0, b"for your eyes only")
    assert monitor.poll(WATCHDOG_MS)
    assert not gate.socket.poll(0)
    assert not list(impostor.arrived(1))
    member._lines[0][1].disable_monitor()


def test_a_reading_ends_with_the_message_that_holds_enough_bytes(context: Context) -> None:
    server = Channel(context, None, BOUNDS, ANYWHERE)
    sender = Channel(context, None, BOUNDS, ANYWHERE)
    sender.dial(0, b"", server.bound)
    assert all(sender.send(0, bytes(100)) for _ in range(4))
    for _ in range(4):
        assert server.socket.poll(WATCHDOG_MS)
        assert [len(frames) for frames in server.arrived(4, most_bytes=100)] == [1]
    assert not list(server.arrived(4, most_bytes=100))


def test_no_claimed_identity_can_stop_the_process(context: Context) -> None:
    """A ROUTER aborts when a peer claims the id it would generate next; PULL does not look at them."""
    server = Channel(context, None, BOUNDS, ANYWHERE)
    claims = [b"\0" + struct.pack(">I", number) for number in range(3)] + [b"", b"\0" * 200, b"1"]
    for claim in claims:
        connection = speak_zmtp(server, claim)
        connection.sendall(b"\x00\x05hello")
        (frame,) = receive(server)
        assert frame.bytes == b"hello"
        connection.close()


def test_frames_of_one_message_are_capped(context: Context) -> None:
    server, client = Channel(context, None, BOUNDS, ANYWHERE), Channel(context, None, BOUNDS, ANYWHERE)
    client.dial(0, b"", server.bound)
    client._lines[0][1].send_multipart([b"x"] * 5000)
    assert len(receive(server)) == 3
    assert client.send(0, b"head", memoryview(b"payload"))
    assert [frame.bytes for frame in receive(server)] == [b"head", b"payload"]


def test_a_full_queue_says_so_and_dialling_twice_keeps_the_line(context: Context) -> None:
    channel = Channel(context, None, BOUNDS, ANYWHERE)
    assert channel.dial(0, b"", "tcp://127.0.0.1:1")
    assert [channel.send(0, b"x") for _ in range(6)] == [True] * 4 + [False] * 2
    assert not channel.dial(0, b"", "tcp://127.0.0.1:1")
    assert not channel.send(0, b"x")
    assert channel.dial(0, b"", "tcp://127.0.0.1:2")
    assert channel.send(0, b"x")


def test_a_line_opened_anew_has_an_empty_queue_and_not_twice_in_a_moment(context: Context) -> None:
    """What waited ends with the old line: once libzmq's thread has ended it, nothing old comes any more."""
    channel = Channel(context, None, BOUNDS, ANYWHERE)
    with held_ports(1) as (port,):
        address = f"tcp://127.0.0.1:{port}"
        channel.dial(0, b"", address)
        old = channel._lines[0][1]
        ended = old.get_monitor_socket(zmq.EVENT_MONITOR_STOPPED)
        assert [channel.send(0, b"old") for _ in range(5)] == [True] * 4 + [False], "nobody listens: it waits"
        channel.redial(0, b"")
        assert ended.poll(WATCHDOG_MS), "libzmq tells when the old line and its queue are gone"
        line = channel._lines[0][1]
        assert line is not old
        channel.redial(0, b"")
        assert channel._lines[0][1] is line
        news = [b"new %d" % number for number in range(5)]
        assert [channel.send(0, new) for new in news] == [True] * 4 + [False], "the new line has a queue of its own"
        again = Channel(context, None, BOUNDS, address)
        assert [frame.bytes for _ in range(4) for frame in receive(again)] == news[:4]
        ended.close()
