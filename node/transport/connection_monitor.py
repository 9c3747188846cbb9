"""What the kernel and libzmq know of our lines: breaks, refused handshakes, round trips, unconfirmed bytes.

Everything is asked for when somebody looks; between two looks nothing runs but libzmq's note of an event.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import termios
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from threading import Lock

import zmq
from zmq.utils.monitor import parse_monitor_message

from btard.node.transport.sockets import Dialler, Listener, Socket

REASONS = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "no_detail",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "protocol",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "auth",
}
_LINE_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED
_DOOR_EVENTS = sum(REASONS)
_RTT = struct.Struct("=68xI")
"""tcpi_rtt in Linux's struct tcp_info, microseconds."""


class ConnectionMonitor:
    """Watches lines and the doors of listeners, until `close`.

    It may be asked from any one thread at a time while the transport works in another.
    """

    def __init__(self, listeners: Iterable[Listener], *lines: Dialler) -> None:
        self.reconnects: Counter[int] = Counter()
        self.handshake_failures: Counter[str] = Counter(dict.fromkeys(REASONS.values(), 0))
        self._lock = Lock()
        self._doors = [listener.socket.get_monitor_socket(_DOOR_EVENTS) for listener in listeners]
        self._monitors: dict[tuple[int, int], Socket] = {}
        self._descriptors: dict[tuple[int, int], int] = {}
        self._rtt_s: dict[int, float] = {}
        self._known: set[tuple[int, int]] = set()
        for place, own in enumerate(lines):
            own.dialled = lambda peer, line, place=place: self._add((place, peer), line)

    def look(self) -> None:
        """Take in what has happened since the last look."""
        with self._lock:
            for door in self._doors:
                for event, _ in _events(door):
                    self.handshake_failures[REASONS[zmq.Event(event)]] += 1
            for key, monitor in self._monitors.items():
                for event, value in _events(monitor):
                    self._note(key, event, value)

    def rtt_s(self) -> dict[int, float]:
        """Smoothed round trip by peer in seconds: the quicker of its lines; for a broken one the last that was read."""
        found: dict[int, float] = {}
        for peer, line in self._standing():
            info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            if len(info) >= _RTT.size:
                rtt_s = _RTT.unpack_from(info)[0] / 1e6
                found[peer] = min(rtt_s, found.get(peer, rtt_s))
        self._rtt_s |= found
        return dict(self._rtt_s)

    def queued_bytes(self) -> dict[int, int]:
        """Bytes by peer that the kernel has taken and the peer's kernel has not confirmed."""
        found = dict.fromkeys(self.reconnects, 0)
        for peer, line in self._standing():
            size = struct.unpack("i", fcntl.ioctl(line, termios.TIOCOUTQ, struct.pack("i", 0)))[0]
            found[peer] += size
        return found

    def close(self) -> None:
        """Watch no longer; what was counted stays."""
        self.look()
        self.rtt_s()
        with self._lock:
            for monitor in (*self._doors, *self._monitors.values()):
                monitor.close(linger=0)
            self._doors.clear()
            self._monitors.clear()
            self._descriptors.clear()

    def _add(self, key: tuple[int, int], line: Socket) -> None:
        monitor = line.get_monitor_socket(_LINE_EVENTS)
        with self._lock:
            before = self._monitors.pop(key, None)
            if before is not None:
                before.close(linger=0)
            self._monitors[key] = monitor
            self.reconnects[key[1]] += 0

    def _note(self, key: tuple[int, int], event: int, value: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            self.reconnects[key[1]] += key in self._known
            self._known.add(key)
            self._descriptors[key] = value
        else:
            self._descriptors.pop(key, None)

    def _standing(self) -> Iterator[tuple[int, socket.socket]]:
        """(peer, its connection) for the lines that stand, each under a descriptor of our own for the moment."""
        with self._lock:
            standing = list(self._descriptors.items())
        for (_, peer), descriptor in standing:
            with _borrowed(descriptor) as line:
                if line is not None:
                    yield peer, line


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket | None]:
    """The TCP connection behind a descriptor of libzmq's, None if it has closed it meanwhile."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        yield None
        return
    if not stat.S_ISSOCK(os.fstat(copy).st_mode):
        os.close(copy)
        yield None
        return
    with closing(socket.socket(fileno=copy)) as line:
        yield line if line.family in (socket.AF_INET, socket.AF_INET6) else None


def _events(monitor: Socket) -> Iterator[tuple[int, int]]:
    """(event, value) of all that waits."""
    while True:
        try:
            frames = monitor.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        message = parse_monitor_message(frames)
        yield int(message["event"]), int(message["value"])
