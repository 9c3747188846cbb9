"""The guard on real connections: a message that never ends, idle strangers, and honest traffic that it leaves alone."""

from __future__ import annotations

import socket as tcp
import struct
from contextlib import ExitStack
from time import monotonic

import psutil
import pytest
import zmq

from node.guard import Guard, Share
from node.sockets import descriptor

pytestmark = pytest.mark.skipif(not hasattr(tcp, "TCP_INFO"), reason="only Linux tells what a connection received")
WATCHDOG_S = 30.0
MEGABYTE = 1 << 20
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\x00" + bytes(31)
READY = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"


def listen(stack: ExitStack, share: Share) -> tuple[zmq.Socket[bytes], int, Guard]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    socket = context.socket(zmq.PULL)
    socket.rcvhwm, socket.maxmsgsize, socket.rcvbuf = 4, MEGABYTE, MEGABYTE
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return socket, port, Guard({port: share})


def stranger(stack: ExitStack, port: int) -> tcp.socket:
    line = stack.enter_context(tcp.create_connection(("127.0.0.1", port), timeout=WATCHDOG_S))
    line.sendall(GREETING + READY)
    # A frame that comes before libzmq has answered the handshake would be an unexpected command to it.
    exactly(line, len(GREETING))
    _, size = exactly(line, 2)
    exactly(line, size)
    return line


def exactly(line: tcp.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = line.recv(size - len(data))
        assert more, "the connection ended"
        data += more
    return data


def test_a_message_that_never_ends_is_cut_off(stack: ExitStack) -> None:
    """64 frames of a megabyte, each with the promise of more: libzmq alone would hold all of them and ask for more."""
    _, port, guard = listen(stack, Share(16 * MEGABYTE, 64 * MEGABYTE, 10))
    before = psutil.Process().memory_info().rss
    line = stranger(stack, port)
    frame = b"\x03" + struct.pack(">Q", MEGABYTE - 64) + bytes(MEGABYTE - 64)
    end = monotonic() + WATCHDOG_S
    sent = 0
    try:
        while monotonic() < end:
            line.sendall(frame)
            sent += len(frame)
            guard.check()
    except OSError:
        pass
    assert guard.closed == 1
    assert sent < 64 * MEGABYTE
    assert psutil.Process().memory_info().rss - before < 64 * MEGABYTE


def test_a_connection_that_is_given_up_late_is_counted_once(stack: ExitStack) -> None:
    """A busy process still holds what the guard has shut down when the guard looks again."""
    server = stack.enter_context(tcp.create_server(("127.0.0.1", 0)))
    port = server.getsockname()[1]
    guard = Guard({port: Share(MEGABYTE, MEGABYTE, 1)})
    for count in (1, 2):
        line = stack.enter_context(tcp.create_connection(("127.0.0.1", port), timeout=WATCHDOG_S))
        held, _ = server.accept()
        for _ in range(20):
            line.sendall(bytes(MEGABYTE // 10))
            held.recv(MEGABYTE)
        guard.check()
        guard.check()
        assert guard.closed == count
        held.close()
        guard.check()


def test_what_delivers_stays_whatever_it_has_sent(stack: ExitStack) -> None:
    socket, port, guard = listen(stack, Share(8 * MEGABYTE, 16 * MEGABYTE, 2))
    push = socket.context.socket(zmq.PUSH)
    stack.callback(push.close, 0)
    push.connect(f"tcp://127.0.0.1:{port}")
    for _ in range(64):
        push.send(bytes(MEGABYTE // 2))
        guard.delivered(descriptor(socket.recv(copy=False)))
        guard.check()
    assert guard.closed == 0


def test_idle_strangers_go_before_those_who_deliver(stack: ExitStack) -> None:
    socket, port, guard = listen(stack, Share(8 * MEGABYTE, 16 * MEGABYTE, 3))
    push = socket.context.socket(zmq.PUSH)
    stack.callback(push.close, 0)
    push.connect(f"tcp://127.0.0.1:{port}")
    push.send(b"hello")
    guard.delivered(descriptor(socket.recv(copy=False)))
    guard.check()
    strangers = [tcp.create_connection(("127.0.0.1", port), timeout=WATCHDOG_S) for _ in range(8)]
    for line in strangers:
        stack.enter_context(line)
        assert line.recv(10), "libzmq has accepted it"
    guard.check()
    assert guard.closed == 6
    push.send(b"still here")
    assert socket.recv() == b"still here"
