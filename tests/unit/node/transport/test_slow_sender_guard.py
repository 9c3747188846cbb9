"""The guard on real connections: messages that never end, idle strangers, and honest traffic that it leaves alone."""

from __future__ import annotations

import resource
import socket as tcp
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic

import psutil
import pytest
import zmq

from btard.node.storage.wal import SIGNED, WriteAheadLog, contents
from btard.node.transport import descriptors
from btard.node.transport.slow_sender_guard import Share, SlowSenderGuard
from btard.node.transport.sockets import descriptor

pytestmark = pytest.mark.skipif(not hasattr(tcp, "TCP_INFO"), reason="only Linux tells what a connection received")
WATCHDOG_S = 30.0
MEGABYTE = 1 << 20
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\x00" + bytes(31)
READY = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"
WIDE = Share(8 * MEGABYTE, 64 * MEGABYTE, strangers=1000, per_source=1000)
MARK_S = 5.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def listen(
    stack: ExitStack, share: Share, clock: Clock | None = None, limit: int = 1 << 20
) -> tuple[zmq.Socket[bytes], int, SlowSenderGuard]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    socket = context.socket(zmq.PULL)
    socket.rcvhwm, socket.maxmsgsize, socket.rcvbuf = 4, MEGABYTE, MEGABYTE
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    guard = SlowSenderGuard({port: share}, clock or Clock(), limit)
    stack.callback(guard.stop)
    return socket, port, guard


def idle(stack: ExitStack, port: int, count: int, host: str = "127.0.0.1") -> list[tcp.socket]:
    """Connections that libzmq has accepted, and that say nothing."""
    made = [
        stack.enter_context(tcp.create_connection(("127.0.0.1", port), WATCHDOG_S, source_address=(host, 0)))
        for _ in range(count)
    ]
    for line in made:
        assert line.recv(10), "libzmq has accepted it"
    return made


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


def stands(line: tcp.socket) -> bool:
    """False once the guard has shut the connection down: libzmq answers with an end, or with a reset."""
    line.setblocking(False)
    try:
        while True:
            if not line.recv(1 << 16):
                return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def received(guard: SlowSenderGuard, line: tcp.socket) -> int:
    """What the kernel says has come from a connection, as the guard has seen it."""
    return next((each.received for (_, far), each in guard._lines.items() if far == line.getsockname()), -1)


def push_to(stack: ExitStack, socket: zmq.Socket[bytes], port: int) -> zmq.Socket[bytes]:
    push: zmq.Socket[bytes] = socket.context.socket(zmq.PUSH)
    stack.callback(push.close, 0)
    push.connect(f"tcp://127.0.0.1:{port}")
    return push


def test_a_message_that_never_ends_is_cut_off(stack: ExitStack) -> None:
    """64 frames of a megabyte, each with the promise of more: libzmq alone would hold all of them and ask for more."""
    _, port, guard = listen(stack, Share(16 * MEGABYTE, 64 * MEGABYTE, 10, 10))
    before = psutil.Process().memory_info().rss
    line = stranger(stack, port)
    frame = b"\x03" + struct.pack(">Q", MEGABYTE - 64) + bytes(MEGABYTE - 64)
    line.setblocking(False)  # a buffer that is full must not keep us from looking
    end, sent, rest = monotonic() + WATCHDOG_S, 0, b""
    while monotonic() < end and not guard.closed:
        rest = rest or frame
        with suppress(BlockingIOError):
            count = line.send(rest)
            sent, rest = sent + count, rest[count:]
        guard.check()
    assert guard.closed == 1
    assert sent < 64 * MEGABYTE
    assert psutil.Process().memory_info().rss - before < 64 * MEGABYTE


def test_a_connection_that_is_given_up_late_is_counted_once(stack: ExitStack) -> None:
    """A busy process still holds what the guard has shut down when the guard looks again."""
    server = stack.enter_context(tcp.create_server(("127.0.0.1", 0)))
    port = server.getsockname()[1]
    guard = SlowSenderGuard({port: Share(MEGABYTE, MEGABYTE, 1, 1)})
    stack.callback(guard.stop)
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
    socket, port, guard = listen(stack, Share(8 * MEGABYTE, 16 * MEGABYTE, 2, 2))
    push = push_to(stack, socket, port)
    for _ in range(64):
        push.send(bytes(MEGABYTE // 2))
        guard.delivered(descriptor(socket.recv(copy=False)), 1)
        guard.check()
    assert guard.closed == 0


def test_idle_strangers_go_and_whoever_delivered_stays(stack: ExitStack) -> None:
    socket, port, guard = listen(stack, Share(8 * MEGABYTE, 16 * MEGABYTE, 2, 2))
    push = push_to(stack, socket, port)
    push.send(b"hello")
    guard.delivered(descriptor(socket.recv(copy=False)), 1)
    guard.check()
    idle(stack, port, 8)
    guard.check()
    assert guard.closed == 6
    push.send(b"still here")
    assert socket.recv() == b"still here"


def test_of_idle_strangers_those_who_came_first_and_last_stay(stack: ExitStack) -> None:
    """Honest lines are among them: those that wait for their first tensor since before a flood, and one that has just
    come and is about to send."""
    _, port, guard = listen(stack, Share(8 * MEGABYTE, 16 * MEGABYTE, 20, 6))
    first = idle(stack, port, 3)
    guard.check()
    flood = idle(stack, port, 50)
    guard.check()
    assert guard.closed == 47
    assert all(map(stands, first))
    last = idle(stack, port, 3)
    guard.check()
    assert guard.closed == 50
    assert all(map(stands, first + last))
    assert not any(map(stands, flood))


def test_connections_that_are_given_up_late_take_nobodys_place(stack: ExitStack) -> None:
    """A busy process still holds most of a flood when the guard looks again: who has just come must not go for them."""
    server = stack.enter_context(tcp.create_server(("127.0.0.1", 0), backlog=100))
    port = server.getsockname()[1]
    guard = SlowSenderGuard({port: Share(8 * MEGABYTE, 16 * MEGABYTE, strangers=20, per_source=6)}, Clock(), 1 << 20)
    stack.callback(guard.stop)

    def come(count: int) -> list[tcp.socket]:
        made = [stack.enter_context(tcp.create_connection(("127.0.0.1", port), WATCHDOG_S)) for _ in range(count)]
        for _ in made:
            stack.enter_context(server.accept()[0])
        return made

    come(20)
    guard.check()
    assert guard.closed == 14
    last = come(3)
    for _ in range(3):
        guard.check()
    assert guard.closed == 17
    assert all(map(stands, last))


def test_of_all_addresses_the_one_with_most_strangers_loses_them(stack: ExitStack) -> None:
    _, port, guard = listen(stack, Share(8 * MEGABYTE, 16 * MEGABYTE, strangers=6, per_source=5))
    many = idle(stack, port, 10, host="127.0.0.2")
    few = idle(stack, port, 3, host="127.0.0.3")
    guard.check()
    assert guard.closed == 7
    assert all(map(stands, few))
    assert sum(map(stands, many)) == 3


def test_members_at_one_address_are_no_strangers(stack: ExitStack) -> None:
    """Six peers on one host come from one address; the caps are for those who have delivered nothing."""
    socket, port, guard = listen(stack, Share(8 * MEGABYTE, 16 * MEGABYTE, 2, 2))
    for peer in range(12):
        push_to(stack, socket, port).send(b"hello")
        guard.delivered(descriptor(socket.recv(copy=False)), peer)
        guard.check()
    assert guard.closed == 0


def test_a_member_has_a_few_lines_and_the_newest_stay(stack: ExitStack) -> None:
    socket, port, guard = listen(stack, WIDE, clock := Clock())
    context = socket.context
    for number in range(30):
        push = context.socket(zmq.PUSH)
        stack.callback(push.close, 0)
        push.reconnect_ivl = -1
        push.connect(f"tcp://127.0.0.1:{port}")
        push.send(b"%d" % number)
        clock.now_s += 1
        guard.delivered(descriptor(socket.recv(copy=False)), 1)
        guard.check()
    assert guard.closed == 26
    push.send(b"the last one stands")
    assert socket.recv() == b"the last one stands"


def test_a_tensor_that_trickles_in_outlasts_two_hundred_idle_strangers(stack: ExitStack) -> None:
    """Its line has delivered nothing yet; the guard used to take the oldest of such."""
    share = Share.of(MEGABYTE, 4, MEGABYTE, peers=3)
    socket, port, guard = listen(stack, share, clock := Clock())
    idle(stack, port, 100)
    line = stranger(stack, port)
    size = MEGABYTE - 64
    line.sendall(b"\x02" + struct.pack(">Q", size) + bytes(1 << 14))
    wait_for(stack, port, [line], 1 << 14)
    guard.check()
    idle(stack, port, 100)
    sent = 1 << 14
    while sent < size:
        sent += line.send(bytes(min(1 << 14, size - sent)))
        clock.now_s += 1
        end = monotonic() + WATCHDOG_S
        while received(guard, line) < sent:
            assert monotonic() < end
            guard.check()
    assert len(socket.recv()) == size
    assert guard.closed == 201 - share.per_source, "the tensor's line is one of those that may be"
    assert stands(line)


def test_strangers_that_drip_are_too_many_as_well_and_the_quickest_stays(stack: ExitStack) -> None:
    """A byte now and then makes bytes flow; there may be more of these, but not any number."""
    share = Share(8 * MEGABYTE, 64 * MEGABYTE, strangers=4, per_source=4, most_strangers=20)
    socket, port, guard = listen(stack, share, clock := Clock())
    frame = b"\x02" + struct.pack(">Q", MEGABYTE - 64)
    drips = [stranger(stack, port) for _ in range(15)]
    honest = stranger(stack, port)
    drips += [stranger(stack, port) for _ in range(25)]
    for line in drips:
        line.sendall(frame + bytes(2000))
    honest.sendall(frame + bytes(4000))
    wait_for(stack, port, [*drips, honest], 2000)
    wait_for(stack, port, [honest], 4000)
    guard.check()
    for turn in range(6):
        clock.now_s += MARK_S
        left = [line for line in drips if stands(line)]
        for line in left:
            line.send(b"x")
        honest.sendall(bytes(1 << 14))
        wait_for(stack, port, [*left, honest], 2100 + turn)
        guard.check()
    assert guard.closed == 21
    assert stands(honest)
    assert not socket.closed


def wait_for(stack: ExitStack, port: int, lines: list[tcp.socket], size: int) -> None:
    """Look, with a guard that closes nothing, until the kernel has that much of each line."""
    watcher = SlowSenderGuard({port: WIDE}, Clock(), 1 << 20)
    stack.callback(watcher.stop)
    end = monotonic() + WATCHDOG_S
    while any(received(watcher, line) < size for line in lines):
        assert monotonic() < end
        watcher.check()


def test_when_descriptors_run_out_strangers_make_room(stack: ExitStack) -> None:
    used = len(descriptors.in_use())
    socket, port, guard = listen(stack, WIDE, limit=4 * (used + 60) // 3)
    push = push_to(stack, socket, port)
    push.send(b"hello")
    guard.delivered(descriptor(socket.recv(copy=False)), 1)
    idle(stack, port, 60)  # twice as many descriptors, at both of their ends
    guard.check()
    assert guard.closed + 15 >= 60, "so many were closed that three quarters of the limit are in use"
    push.send(b"still here")
    assert socket.recv() == b"still here"


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """A soft limit that leaves room for so many descriptors more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors.in_use()) + 1 + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_guard_works_where_no_descriptor_is_left(stack: ExitStack) -> None:
    """It used to need one for each connection it looked at, and looked at none without."""
    server = stack.enter_context(tcp.create_server(("127.0.0.1", 0)))
    port = server.getsockname()[1]
    guard = SlowSenderGuard({port: Share(MEGABYTE, 16 * MEGABYTE, 2, 2)})
    stack.callback(guard.stop)
    clients = [stack.enter_context(tcp.create_connection(("127.0.0.1", port), WATCHDOG_S)) for _ in range(20)]
    held = [stack.enter_context(server.accept()[0]) for _ in clients]
    with few_descriptors(0), ExitStack() as full:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                full.enter_context(tcp.socket())
        guard.check()
        assert guard.closed >= 18
        assert sum(map(stands, clients)) <= 2
    assert len(held) == 20


def test_what_we_open_ourselves_has_a_reserve(stack: ExitStack) -> None:
    with few_descriptors(0), ExitStack() as full:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                full.enter_context(tcp.socket())
        soft = descriptors.limit()
        with descriptors.reserve, descriptors.reserve:
            stack.enter_context(tcp.socket())
            assert descriptors.limit() == soft
        with pytest.raises(OSError, match="Too many open files"):
            tcp.socket()


def test_a_file_of_the_ledger_begins_and_is_read_where_no_descriptor_is_left(tmp_path: Path) -> None:
    """It was looked for without the reserve before it was made: strangers ended a worker that began one."""
    with few_descriptors(0), ExitStack() as full:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                full.enter_context(tcp.socket())
        path = tmp_path / "00000012.ledger"
        ledger = WriteAheadLog(path)
        full.callback(ledger.close)
        ledger.append(SIGNED, 0, b"said")
        ledger.write()
        ledger.sync()
        assert [record.content for record in contents(path).records] == [b"said"]


def test_where_others_have_taken_the_reserve_too_we_wait_for_one_that_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    with few_descriptors(0), ExitStack() as full:
        strangers = []
        with descriptors.reserve, pytest.raises(OSError, match="Too many open files"):
            while True:
                strangers.append(full.enter_context(tcp.socket()))
        tried: list[int] = []

        def ours() -> tcp.socket:
            tried.append(descriptors.limit())
            if len(tried) == 3:
                strangers.pop().close()  # as the guard does, in its own time
            return tcp.socket()

        full.enter_context(descriptors.spared(ours))
        assert len(tried) == 3
        monkeypatch.setattr(descriptors, "PATIENCE_S", 0.0)
        with pytest.raises(OSError, match="Too many open files"):
            descriptors.spared(tcp.socket)
        with pytest.raises(ValueError, match="invalid literal"):
            descriptors.spared(lambda: int("bad base", 8))


def test_the_limit_is_raised_to_what_the_system_grants_but_for_the_reserve() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        raised = descriptors.raise_limit()
        assert raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == descriptors.limit()
        hard = before[1]
        assert raised == (descriptors.MOST if hard == resource.RLIM_INFINITY else
                          min(descriptors.MOST, hard - descriptors.RESERVE))  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
