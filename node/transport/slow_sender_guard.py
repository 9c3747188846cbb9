"""Closes connections that cost more than they bring: the floods that libzmq's own limits do not see.

libzmq counts whole messages, so a multi-part message that never ends is held in memory without any bound, and it
accepts whoever knocks until no descriptor is left. The kernel knows better: TCP_INFO has the bytes that each connection
has received. One that has received more than its queue may hold, since it last delivered something that we accepted, is
shut down. Connections that have never delivered anything are strangers: there may be a number of them from each address
and of all together, and those that say nothing go first. Honest peers are among them, before their first tensor and
after a broken line; libzmq connects them again, and nothing is lost as long as their bytes do not flow. That is why a
connection with bytes on the way stays, unless descriptors run out: then the slowest go.

A thread looks, ten times a second, because a gradient keeps the node's own loop busy for seconds; it touches nothing
but sockets. While neither the process nor its number of descriptors has grown, it looks closer every tenth time only.
It needs no descriptor beyond those that it begins with: where they have run out it has most to do.

Only Linux tells (since 4.1); elsewhere the guard does nothing, and docs/security.md says so.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from threading import Event, Thread
from typing import TypeAlias

from btard.node.transport import descriptors

_RECEIVED = struct.Struct("<120xQQ")
"""struct tcp_info up to tcpi_bytes_acked and tcpi_bytes_received."""
_STATUS = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PERIOD_S = 0.1
_ALARM_BYTES, _ALARM_DESCRIPTORS = 8 << 20, 16
"""Growth of the process at which connections are looked at; else only every tenth time, to keep honest steps cheap."""
_IDLE_PERIODS = 10
_MARK_S = 5.0
"""Bytes flow on a connection that has received some since the mark before the last."""
_SUBNET_BITS = 64
"""Of an IPv6 address, what one host may choose freely is behind these."""

Far: TypeAlias = "tuple[object, ...]"
"""A connection's other end: while it lives no other connection to the same port has the same."""
Place: TypeAlias = "tuple[int, Far]"
"""Our port, and the other end."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What a descriptor that is a socket stood for when we last looked; `port` is None unless it concerns us."""

    inode: int
    port: int | None
    far: Far


@dataclass(slots=True)
class _Line:
    """What is known of one connection."""

    descriptor: int
    inode: int
    source: str
    received: int = 0
    base: int = 0
    """Bytes received when it last delivered something."""
    marks: tuple[int, int] = (0, 0)
    """Bytes received at the mark before the last, and at the last."""
    member: int | None = None
    """Whose message it has delivered."""
    delivered_s: float = 0.0

    @property
    def held(self) -> int:
        """Bytes that may lie in memory for it."""
        return self.received - self.base

    @property
    def recent(self) -> int:
        """Bytes received since the mark before the last."""
        return self.received - self.marks[0]

    @property
    def liveliness(self) -> tuple[bool, float]:
        """Of what it holds, how much is news; a member's counts for more."""
        return self.member is not None, self.recent / (1 + self.held)

    def flow(self, handshake_bytes: int) -> int:
        """Bytes of messages that have come lately."""
        return self.recent if self.received > handshake_bytes else 0


@dataclass(frozen=True, slots=True)
class Share:
    """What the connections to one listening port may hold.

    Args:
        line_bytes: one connection, since it last delivered something.
        total_bytes: all of them together; those that have stalled go first.
        strangers: how many there may be that never delivered anything; those whose bytes flow are spared.
        per_source: the same from one address.
        most_strangers: as many as that, and nobody is spared but the quickest.
        per_member: connections of one member: an honest one has one, and for a while the one that broke before.
        handshake_bytes: what a connection receives before its first message, at most: that is no sign of goodwill.
    """

    line_bytes: int
    total_bytes: int
    strangers: int
    per_source: int
    most_strangers: int = 512
    handshake_bytes: int = 128
    per_member: int = 4

    @staticmethod
    def of(message_bytes: int, backlog: int, buffer_bytes: int, peers: int, encrypted: bool = False) -> Share:
        """What honest connections of `peers` others may hold: a full backlog and one message more, and what the kernel
        buffers (it doubles what it is asked for). All of them may come from one address."""
        line = (1 + backlog) * message_bytes + 4 * buffer_bytes
        return Share(line, peers * line, strangers=4 * peers + 32, per_source=2 * peers + 16,
                     most_strangers=max(512, 8 * peers), handshake_bytes=600 if encrypted else 128)  # fmt: skip

    def beside(self, other: Share) -> Share:
        """Of a port that has the connections of two: no line may hold more, and all together what they may at both."""
        return Share(
            max(self.line_bytes, other.line_bytes),
            self.total_bytes + other.total_bytes,
            self.strangers + other.strangers,
            self.per_source + other.per_source,
            self.most_strangers + other.most_strangers,
            max(self.handshake_bytes, other.handshake_bytes),
            self.per_member + other.per_member,
        )


class SlowSenderGuard:
    """Watches the connections to our listening ports.

    Args:
        shares: by port.
        clock: seconds, monotonic.
        limit: how many descriptors this process may have; None: what the system says.
    """

    def __init__(
        self, shares: Mapping[int, Share], clock: Callable[[], float] = time.monotonic, limit: int | None = None
    ) -> None:
        self.closed = 0
        """Connections shut down so far."""
        self.failure: Exception | None = None
        """What ended the thread: nobody watches any more."""
        self._shares, self._clock, self._limit = dict(shares), clock, limit
        self._lines: dict[Place, _Line] = {}
        self._known: dict[int, _Known] = {}
        self._shut: dict[Place, int] = {}
        """Connections that we have shut down and that libzmq still holds, with their inodes: they count no more."""
        self._delivered: dict[int, int] = {}
        self._marked_s = clock()
        self._scratch = _Scratch()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="guard", daemon=True)

    def start(self) -> None:
        """Begin to watch, where the kernel tells enough."""
        if _STATUS.exists() and hasattr(socket, "TCP_INFO"):
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._scratch.close()

    def delivered(self, descriptor: int, peer: int) -> None:
        """The connection with this descriptor has delivered something that counts, in the name of `peer`."""
        self._delivered[descriptor] = peer

    def check(self) -> None:
        """Look at every connection once."""
        delivered, self._delivered = self._delivered, {}
        used = descriptors.in_use()
        now_s = self._clock()
        seen = set[Place]()
        shut, self._shut = self._shut, {}
        for descriptor, known, line in self._connections(used):
            assert known.port is not None
            place = known.port, known.far
            if shut.get(place) == known.inode:
                self._shut[place] = known.inode
                continue
            seen.add(place)
            found = self._lines.get(place)
            if found is None:
                found = self._lines[place] = _Line(descriptor, known.inode, _source(known.far))
            found.descriptor, found.inode, found.received = descriptor, known.inode, _received(line)
            if descriptor in delivered:
                found.base, found.member, found.delivered_s = found.received, delivered[descriptor], now_s
        for place in [place for place in self._lines if place not in seen]:
            del self._lines[place]
        limit = self._limit if self._limit is not None else descriptors.limit()
        for place in self._condemned(len(used) - len(self._shut) - limit * 3 // 4):
            self._close(place, self._lines.pop(place))
        self._mark(now_s)

    def _mark(self, now_s: float) -> None:
        if now_s - self._marked_s >= _MARK_S:
            self._marked_s = now_s
            for line in self._lines.values():
                line.marks = line.marks[1], line.received

    def _condemned(self, excess: int) -> list[Place]:
        """The connections that exceed the shares, and strangers for so many descriptors as are in use beyond what we
        want to use."""
        out: list[Place] = []
        for port, share in self._shares.items():
            out += _beyond({place: line for place, line in self._lines.items() if place[0] == port}, share)
        if excess > len(out):
            gone = set(out)
            left = {place: line for place, line in self._lines.items() if line.member is None and place not in gone}
            flows = {place: line.flow(self._shares[place[0]].handshake_bytes) for place, line in left.items()}
            out += _most_wanted(left, flows)[: excess - len(out)]
        return out

    def _close(self, place: Place, known: _Line) -> None:
        """End a connection under libzmq's hands: it reads an end of file and frees what it held, maybe after our next
        look."""
        with self._scratch.held(known.descriptor, known.inode) as line:
            if line is None:
                return
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it has ended by itself
        self.closed += 1
        self._shut[place] = known.inode

    def _connections(self, used: Iterable[int]) -> Iterator[tuple[int, _Known, socket.socket]]:
        """Our TCP connections at the ports in question, by descriptor, under a descriptor of our own for the moment."""
        for name in used:
            try:
                status = os.fstat(name)
            except OSError:
                continue  # it has been closed meanwhile
            if not stat.S_ISSOCK(status.st_mode):
                continue
            found = self._known.get(name)
            if found is None or found.inode != status.st_ino or found.port is not None:
                with self._scratch.held(name, status.st_ino) as line:
                    if line is None:
                        continue
                    if found is None or found.inode != status.st_ino:
                        found = self._known[name] = _identify(line, status.st_ino, self._shares)
                    if found.port is not None:
                        yield name, found, line

    def _watch(self) -> None:
        status = os.open(_STATUS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            least_bytes, used, idle = _resident_bytes(status), 0, 0
            while not self._stop.wait(_PERIOD_S):
                resident_bytes, now_used, idle = _resident_bytes(status), len(descriptors.in_use()), idle + 1
                grown = resident_bytes > least_bytes + _ALARM_BYTES or now_used > used + _ALARM_DESCRIPTORS
                if idle >= _IDLE_PERIODS or grown:
                    self.check()
                    least_bytes, used, idle = resident_bytes, now_used, 0
                least_bytes, used = min(least_bytes, resident_bytes), min(used, now_used)
        except Exception as error:
            self.failure = error
        finally:
            os.close(status)


class _Scratch:
    """A descriptor of our own, onto which one of libzmq's is put for a moment: the connection stays what it is even if
    libzmq closes its descriptor and the number is used again, and no further descriptor is needed."""

    def __init__(self) -> None:
        self._nothing, other = socket.socketpair()
        # The family says how much room an address takes: this one has it for both of TCP's.
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, other.detach())

    def held(self, descriptor: int, inode: int) -> _Held:
        """A context whose value is the connection, None if it is none any more."""
        return _Held(self._socket, self._nothing, descriptor, inode)

    def close(self) -> None:
        """Give the descriptors back."""
        self._socket.close()
        self._nothing.close()


class _Held:
    """See `_Scratch.held`."""

    __slots__ = ("_descriptor", "_inode", "_nothing", "_socket")

    def __init__(self, scratch: socket.socket, nothing: socket.socket, descriptor: int, inode: int) -> None:
        self._socket, self._nothing, self._descriptor, self._inode = scratch, nothing, descriptor, inode

    def __enter__(self) -> socket.socket | None:
        try:
            os.dup2(self._descriptor, self._socket.fileno(), inheritable=False)
        except OSError:
            return None
        return self._socket if os.fstat(self._socket.fileno()).st_ino == self._inode else None

    def __exit__(self, *_: object) -> None:
        os.dup2(self._nothing.fileno(), self._socket.fileno(), inheritable=False)


def _beyond(lines: Mapping[Place, _Line], share: Share) -> list[Place]:
    """The connections to one port that exceed its share."""
    out = [place for place, line in lines.items() if line.held > share.line_bytes]
    left = {place: line for place, line in lines.items() if line.held <= share.line_bytes}

    def close(places: Iterable[Place]) -> None:
        for place in places:
            del left[place]
            out.append(place)

    total = sum(line.held for line in left.values())
    # Bytes that lie there, and to which nothing is added, are no tensor on its way.
    for place in sorted(left, key=lambda place: left[place].liveliness):
        if total <= share.total_bytes:
            break
        if left[place].held:
            total -= left[place].held
            close([place])
    members: dict[int, list[Place]] = {}
    for place, line in left.items():
        if line.member is not None:
            members.setdefault(line.member, []).append(place)
    for own in members.values():
        close(sorted(own, key=lambda place: left[place].delivered_s)[: -share.per_member])
    close(_crowding({place: line for place, line in left.items() if line.member is None}, share))
    return out


def _crowding(strangers: Mapping[Place, _Line], share: Share) -> list[Place]:
    """The strangers that are too many."""
    out: list[Place] = []
    left = Counter(line.source for line in strangers.values())
    flows = {place: line.flow(share.handshake_bytes) for place, line in strangers.items()}
    worst = _most_wanted(strangers, flows)
    for place in worst:
        source = strangers[place].source
        crowded = left[source] > share.per_source or left.total() > share.strangers
        if crowded and not flows[place]:
            left[source] -= 1
            out.append(place)
    gone = set(out)
    return out + [place for place in worst if place not in gone][: max(0, left.total() - share.most_strangers)]


def _most_wanted(strangers: Mapping[Place, _Line], flows: Mapping[Place, int]) -> list[Place]:
    """Strangers in the order in which they go: what is beyond any other address's number first, of one address the
    slowest and, of those without bytes on the way, the middle: who was here before a flood stays, and so does who has
    just come and is about to send."""
    by_source: dict[str, list[Place]] = {}
    for place, line in strangers.items():  # in the order in which they came
        by_source.setdefault(line.source, []).append(place)
    ranks = {
        place: rank
        for places in by_source.values()
        for rank, place in enumerate(sorted(_ends_first(places), key=lambda place: -flows[place]))
    }
    return sorted(strangers, key=lambda place: (-ranks[place], flows[place]))


def _ends_first(places: Sequence[Place]) -> list[Place]:
    """The first, the last, the second, the last but one, and so on to the middle."""
    return [places[at // 2 if at % 2 == 0 else -1 - at // 2] for at in range(len(places))]


def _resident_bytes(status: int) -> int:
    """Memory of this process."""
    return int(os.pread(status, 128, 0).split()[1]) * _PAGE_BYTES


def _received(line: socket.socket) -> int:
    """Bytes that a connection has received; 0 where the kernel does not say."""
    try:
        info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return 0
    return int(_RECEIVED.unpack_from(info)[1]) if len(info) >= _RECEIVED.size else 0


def _identify(line: socket.socket, inode: int, ports: Container[int]) -> _Known:
    """What a descriptor stands for. A listening socket and one that has ended never become a connection."""
    try:
        near, far = line.getsockname(), line.getpeername()
    except OSError:
        return _Known(inode, None, ())
    internet = isinstance(near, tuple) and isinstance(near[0], str) and isinstance(far, tuple)
    return _Known(inode, near[1], far) if internet and near[1] in ports else _Known(inode, None, ())


def _source(far: Far) -> str:
    """What connections of one origin have in common: an IPv4 address, or the subnet of an IPv6 one."""
    try:
        address = ip_address(str(far[0]).partition("%")[0])
    except ValueError:
        return str(far[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{int(address) >> _SUBNET_BITS:x}/{_SUBNET_BITS}"
