"""Delays packets of a network namespace: those that the kernel hands over by an NFQUEUE rule. Standard library alone.

    python netqueue.py QUEUE:DELAY_S:JITTER_S ...

A process of its own, started inside the namespace with CAP_NET_ADMIN (launcher/containers/shaper.py). It prints
`ready` once it holds its queues, and ends when its standard input does, so that it cannot outlive a launcher. Packets
stay in the kernel: only their numbers come here, and verdicts go back when they are due.

Source: Linux, include/uapi/linux/netfilter/nfnetlink_queue.h; netlink(7).
"""

from __future__ import annotations

import errno
import heapq
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

_NETLINK_NETFILTER = 12
_SO_RCVBUFFORCE = 33
_SUBSYSTEM = 3 << 8
PACKET, VERDICT, CONFIG = _SUBSYSTEM, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_ERROR = 2
_REQUEST, _ACKNOWLEDGE = 1, 4
_BIND, _COPY_META, _ACCEPT = 1, 1, 1
_CFG_COMMAND, _CFG_COPY, _CFG_LENGTH, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_PACKET_HEADER, _VERDICT_HEADER = 1, 2
_WHOLE_SEGMENTS = 4
"""Flag GSO: segments that the kernel keeps together come as one, as they do without a queue."""

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("!BBH")
_ATTRIBUTE = struct.Struct("=HH")
_QUEUE_PACKETS = 65536
_BUFFER_BYTES = 8 << 20
_SENT_AT_ONCE = 1024


class Delay(NamedTuple):
    """What every packet of a queue waits: `delay_s` and up to `jitter_s` more, drawn uniformly."""

    delay_s: float
    jitter_s: float = 0.0


class Waiting:
    """Packets on their way, each with the time it is due; with jitter they overtake each other.

    Args:
        delays: by queue.
        draw: uniform in [0, 1).
    """

    def __init__(self, delays: Mapping[int, Delay], draw: Callable[[], float] = random.random) -> None:
        self._delays, self._draw = delays, draw
        self._due: list[tuple[float, int, int, int]] = []
        self._count = 0

    def take(self, queue: int, packet: int, now_s: float) -> None:
        """A packet of a queue has arrived."""
        delay = self._delays[queue]
        late_s = delay.jitter_s * self._draw() if delay.jitter_s else 0.0
        self._count += 1
        heapq.heappush(self._due, (now_s + delay.delay_s + late_s, self._count, queue, packet))

    def release(self, now_s: float) -> list[tuple[int, int]]:
        """Queue and number of every packet that is due, in order."""
        found = []
        while self._due and self._due[0][0] <= now_s:
            _, _, queue, packet = heapq.heappop(self._due)
            found.append((queue, packet))
        return found

    def wait_s(self, now_s: float) -> float | None:
        """Until the next packet is due; None: none is on its way."""
        return max(0.0, self._due[0][0] - now_s) if self._due else None


def message(kind: int, flags: int, queue: int, *attributes: bytes) -> bytes:
    """One netlink message about a queue."""
    body = _FAMILY.pack(socket.AF_UNSPEC, 0, queue) + b"".join(attributes)
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def verdict(queue: int, packet: int) -> bytes:
    """The message that lets a packet go on."""
    return message(VERDICT, _REQUEST, queue, attribute(_VERDICT_HEADER, struct.pack("!II", _ACCEPT, packet)))


def packets(data: bytes) -> Iterator[tuple[int, int]]:
    """Queue and number of each packet that the kernel tells of in what was received."""
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, place)
        if length < _HEADER.size:
            return
        if kind == PACKET:
            begin = place + _HEADER.size
            _, _, queue = _FAMILY.unpack_from(data, begin)
            number = _number(data[begin + _FAMILY.size : place + length])
            if number is not None:
                yield queue, number
        place += (length + 3) & ~3


def _number(attributes: bytes) -> int | None:
    """The packet's number among the attributes of its message."""
    place = 0
    while place + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, place)
        if kind & 0x3FFF == _PACKET_HEADER:
            return int.from_bytes(attributes[place + 4 : place + 8], "big")
        place += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return None


def hold(queues: Sequence[int]) -> socket.socket:
    """A socket that the kernel hands the packets of these queues to.

    Raises:
        OSError: no NFQUEUE in this kernel, no CAP_NET_ADMIN, or somebody else holds a queue.
    """
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    netlink.bind((0, 0))
    flags = struct.pack("!I", _WHOLE_SEGMENTS)
    for queue in queues:
        for attributes in (
            (attribute(_CFG_COMMAND, struct.pack("!BBH", _BIND, 0, 0)),),
            (attribute(_CFG_COPY, struct.pack("!IB", 0, _COPY_META)),),
            (attribute(_CFG_LENGTH, struct.pack("!I", _QUEUE_PACKETS)),),
            (attribute(_CFG_FLAGS, flags), attribute(_CFG_MASK, flags)),
        ):
            netlink.send(message(CONFIG, _REQUEST | _ACKNOWLEDGE, queue, *attributes))
            _acknowledged(netlink.recv(_QUEUE_PACKETS))
    netlink.setblocking(False)
    return netlink


def _acknowledged(answer: bytes) -> None:
    _, kind, *_ = _HEADER.unpack_from(answer)
    (code,) = struct.unpack_from("=i", answer, _HEADER.size)
    if kind == _ERROR and code:
        raise OSError(-code, os.strerror(-code))


def serve(netlink: socket.socket, waiting: Waiting, until: int) -> None:
    """Delay packets until the descriptor `until` is at its end."""
    watched: list[int | socket.socket] = [netlink, until]
    while True:
        ready, _, _ = select.select(watched, [], [], waiting.wait_s(time.monotonic()))
        if until in ready and not os.read(until, 4096):
            return
        if netlink in ready:
            for data in _received(netlink):
                now_s = time.monotonic()
                for queue, packet in packets(data):
                    waiting.take(queue, packet, now_s)
        due = waiting.release(time.monotonic())
        for place in range(0, len(due), _SENT_AT_ONCE):
            netlink.send(b"".join(verdict(*each) for each in due[place : place + _SENT_AT_ONCE]))


def _received(netlink: socket.socket) -> Iterator[bytes]:
    """What is there, without waiting."""
    while True:
        try:
            yield netlink.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # then the kernel has dropped packets, as a full router does
                raise


def main(arguments: Sequence[str]) -> int:
    """Hold the queues that the arguments name; returns the exit code."""
    delays = {}
    for text in arguments:
        queue, delay_s, jitter_s = text.split(":")
        delays[int(queue)] = Delay(float(delay_s), float(jitter_s))
    try:
        netlink = hold(list(delays))
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)  # noqa: T201
        return 1
    print("ready", flush=True)  # noqa: T201
    serve(netlink, Waiting(delays), sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
