"""Closes connections whose bytes lead to nothing: the one flood that libzmq's own limits do not see.

libzmq counts whole messages, so a multi-part message that never ends is held in memory without any bound. The kernel
knows better: TCP_INFO has the bytes that each connection has received. One that has received more than its queue may
hold, since it last delivered something that we accepted, is shut down. A thread looks, ten times a second, because a
gradient keeps the node's own loop busy for seconds; it touches nothing but sockets. What cannot have cost memory yet,
because the process has not grown, it leaves for later.

Only Linux tells (since 4.1); elsewhere the guard does nothing, and docs/security.md says so.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TypeAlias

_DESCRIPTORS = Path("/proc/self/fd")
_RECEIVED = struct.Struct("<120xQQ")
"""struct tcp_info up to tcpi_bytes_acked and tcpi_bytes_received."""
_STATUS = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PERIOD_S = 0.1
_ALARM_BYTES = 8 << 20
"""Growth of the process at which connections are looked at; else only every tenth time, to keep honest steps cheap."""
_IDLE_PERIODS = 10

Far: TypeAlias = "tuple[object, ...]"
"""A connection's other end: while it lives no other connection to the same port has the same."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What a descriptor that is a socket stood for when we last looked; `port` is None unless it concerns us."""

    inode: int
    family: socket.AddressFamily
    port: int | None
    far: Far


@dataclass(slots=True)
class _Line:
    """What is known of one connection."""

    received: int
    base: int
    """Bytes received when it last delivered something."""
    delivers: bool = False

    @property
    def held(self) -> int:
        """Bytes that may lie in memory for it."""
        return self.received - self.base


@dataclass(frozen=True, slots=True)
class Share:
    """What the connections to one listening port may hold.

    Args:
        line_bytes: one connection, since it last delivered something.
        total_bytes: all of them together; the largest one goes first.
        lines: how many there may be; of the others, those that never delivered go first, the oldest before.
    """

    line_bytes: int
    total_bytes: int
    lines: int

    @staticmethod
    def of(message_bytes: int, backlog: int, buffer_bytes: int, peers: int) -> Share:
        """What honest connections of `peers` others may hold: a full backlog and one message more, and what the kernel
        buffers (it doubles what it is asked for)."""
        line = (1 + backlog) * message_bytes + 4 * buffer_bytes
        return Share(line_bytes=line, total_bytes=peers * line, lines=4 * peers + 32)


class Guard:
    """Watches the connections to our listening ports.

    Args:
        shares: by port.
    """

    def __init__(self, shares: Mapping[int, Share]) -> None:
        self.closed = 0
        """Connections shut down so far."""
        self._shares = dict(shares)
        self._lines: dict[int, dict[Far, _Line]] = {port: {} for port in shares}
        self._known: dict[int, _Known] = {}
        self._shut: set[tuple[int, Far]] = set()
        """Connections that we have shut down and that libzmq still holds."""
        self._delivered: set[int] = set()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="guard", daemon=True)

    def start(self) -> None:
        """Begin to watch, where the kernel tells enough."""
        if _DESCRIPTORS.is_dir() and hasattr(socket, "TCP_INFO"):
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def delivered(self, descriptor: int) -> None:
        """The connection with this descriptor has delivered something that counts."""
        self._delivered.add(descriptor)

    def check(self) -> None:
        """Look at every connection once."""
        delivered, self._delivered = self._delivered, set()
        seen: dict[int, dict[Far, socket.socket]] = {port: {} for port in self._shares}
        try:
            for descriptor, known, line in _connections(self._shares, self._known):
                assert known.port is not None
                seen[known.port][known.far] = line
                self._note(known.port, known.far, _received(line), descriptor in delivered)
            for port, share in self._shares.items():
                lines = self._lines[port]
                for far in [far for far in lines if far not in seen[port]]:
                    del lines[far]
                for far in _condemned(lines, share):
                    del lines[far]
                    self._close(port, far, seen[port][far])
            self._shut &= {(port, far) for port, lines in seen.items() for far in lines}
        finally:
            for at_port in seen.values():
                for line in at_port.values():
                    line.close()

    def _note(self, port: int, far: Far, received: int, delivers: bool) -> None:
        line = self._lines[port].setdefault(far, _Line(received, 0))
        line.received = received
        if delivers:
            line.base, line.delivers = received, True

    def _close(self, port: int, far: Far, line: socket.socket) -> None:
        """End a connection under libzmq's hands: it reads an end of file and frees what it held, maybe after our next
        look."""
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself
        self.closed += (port, far) not in self._shut
        self._shut.add((port, far))

    def _watch(self) -> None:
        least_bytes, idle = _resident_bytes(), 0
        while not self._stop.wait(_PERIOD_S):
            resident_bytes, idle = _resident_bytes(), idle + 1
            if idle >= _IDLE_PERIODS or resident_bytes > least_bytes + _ALARM_BYTES:
                self.check()
                least_bytes, idle = resident_bytes, 0
            least_bytes = min(least_bytes, resident_bytes)


def _condemned(lines: Mapping[Far, _Line], share: Share) -> list[Far]:
    """The connections that exceed a share."""
    out = [far for far, line in lines.items() if line.held > share.line_bytes]
    left = {far: line for far, line in lines.items() if far not in out}
    total = sum(line.held for line in left.values())
    for far in sorted(left, key=lambda far: left[far].held, reverse=True):
        if total <= share.total_bytes:
            break
        total -= left.pop(far).held
        out.append(far)
    idle = [far for far, line in left.items() if not line.delivers]  # in the order in which they came
    excess = max(0, len(left) - share.lines)
    return out + idle[:excess]


def _resident_bytes() -> int:
    """Memory of this process."""
    return int(_STATUS.read_bytes().split()[1]) * _PAGE_BYTES


def _received(line: socket.socket) -> int:
    """Bytes that a connection has received; 0 where the kernel does not say."""
    info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(_RECEIVED.unpack_from(info)[1]) if len(info) >= _RECEIVED.size else 0


def _connections(ports: Container[int], known: dict[int, _Known]) -> Iterator[tuple[int, _Known, socket.socket]]:
    """Our TCP connections at the ports in question, by descriptor; each under a descriptor of its own, which stays
    with the connection even if libzmq closes its descriptor and the number is used again.

    Args:
        known: what the last look found; brought up to date. Ten looks a second must cost next to nothing.
    """
    for name in map(int, os.listdir(_DESCRIPTORS)):  # noqa: PTH208 (half the cost of Path.iterdir)
        copy = -1
        try:
            status = os.fstat(name)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            found = known.get(name)
            if found is None or found.inode != status.st_ino:
                found = known[name] = _identify(name, ports)
            if found.port is None:
                continue
            copy = os.dup(name)
            if os.fstat(copy).st_ino == found.inode:
                line, copy = socket.socket(found.family, socket.SOCK_STREAM, 0, copy), -1
                yield name, found, line
        except OSError:
            continue  # it has ended meanwhile
        finally:
            if copy >= 0:
                os.close(copy)


def _identify(name: int, ports: Container[int]) -> _Known:
    """What a descriptor stands for. A listening socket and one that has ended never become a connection."""
    copy = os.dup(name)
    inode = os.fstat(copy).st_ino
    with socket.socket(fileno=copy) as line:
        try:
            if line.family in (socket.AF_INET, socket.AF_INET6) and line.getsockname()[1] in ports:
                return _Known(inode, line.family, line.getsockname()[1], line.getpeername())
        except OSError:
            pass
        return _Known(inode, line.family, None, ())
