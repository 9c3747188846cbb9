"""ZeroMQ sockets as the transport needs them, and the gate that decides which keys come in.

Each channel is one PULL socket that listens and one PUSH socket per peer. PULL has no routing ids: a sender is known
by the CURVE key it proved, never by a name it chose. A ROUTER would add nothing, since nobody answers on a
connection, and libzmq 4.3.5 aborts the process when a peer claims the id that the next connection is going to get.
"""

from __future__ import annotations

import errno
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import zmq
from zmq.utils import z85

from btard.node.errors import LocalProtocolError, TransportError

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_DOMAIN = b"btard"
_ZAP_FRAMES = 7
_CURVE_OVERHEAD_BYTES = 64
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 1000
_REDIAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A CURVE key pair, in Z85."""

    public: bytes
    secret: bytes


class ZapAuthenticator:
    """Answers libzmq's question (ZAP, RFC 27) whether a key that a connection has proved may come in.

    It must exist before the first CURVE server of its context, and be asked to `answer` whenever it is readable.
    """

    def __init__(self, context: Context, members: Mapping[int, bytes], dropped: Counter[str]) -> None:
        self._allowed = {z85.decode(key): str(peer).encode() for peer, key in members.items()}
        self._dropped = dropped
        self.socket: Socket = context.socket(zmq.REP)
        self.socket.bind(_ZAP_ENDPOINT)

    def answer(self, most: int) -> None:
        """Decide on at most `most` waiting handshakes; each refusal counts as a `stranger`."""
        for _ in range(most):
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            curve = len(request) == _ZAP_FRAMES and request[5] == b"CURVE"
            user = self._allowed.get(request[6]) if curve else None
            if user is None:
                self._dropped["stranger"] += 1
                verdict = [b"400", b"this key is not in the roster", b"", b""]
            else:
                verdict = [b"200", b"OK", user, b""]
            self.socket.send_multipart([*request[:2], *verdict])


def authenticated(frame: zmq.Frame) -> int | None:
    """The peer whose key the frame's connection has proved, in the gate's words; None without CURVE."""
    try:
        return int(frame.get("User-Id"))
    except (zmq.ZMQError, ValueError):
        return None


def descriptor(frame: zmq.Frame) -> int:
    """The file descriptor of the connection that a frame came in on (-1: unknown)."""
    try:
        return int(frame.get(zmq.SRCFD))
    except (zmq.ZMQError, ValueError):
        return -1


def port_of(endpoint: str) -> int:
    """The TCP port of a bound endpoint (0 for other transports)."""
    port = endpoint.rpartition(":")[2]
    return int(port) if endpoint.startswith("tcp://") and port.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one channel may hold.

    Args:
        frames: frames of one message.
        frame_bytes: a connection that announces a larger frame is closed before anything is allocated.
        backlog: messages read ahead from one connection; beyond it the sender waits and nothing is lost.
        queue: messages that wait for one peer that does not read, or is not there yet.
        buffer_bytes: asked of the kernel for each connection.
    """

    frames: int
    frame_bytes: int
    backlog: int
    queue: int
    buffer_bytes: int


class Channel:
    """One listening socket and one line to each peer; with an identity all of them speak CURVE.

    Raises:
        TransportError: `endpoint` cannot be bound.
    """

    def __init__(self, context: Context, identity: Identity | None, bounds: Bounds, endpoint: str) -> None:
        self._context = context
        self._identity = identity
        self._bounds = bounds
        self._lines: dict[int, tuple[str, Socket]] = {}
        self._redialled: dict[int, float] = {}
        self.dialled: Callable[[int, Socket], None] | None = None
        """Told (peer, line) of every new line before it connects."""
        self.socket = self._listen(endpoint)

    @property
    def bound(self) -> str:
        """Where we listen, with the port that the system chose."""
        endpoint = self.socket.getsockopt(zmq.LAST_ENDPOINT)
        return endpoint.rstrip(b"\0").decode() if isinstance(endpoint, bytes) else str(endpoint)

    @property
    def encrypted(self) -> bool:
        """True if every connection has proved a key that the gate let in."""
        return self._identity is not None

    def dial(self, peer: int, peer_key: bytes, endpoint: str) -> bool:
        """Open a line that connects, and reconnects, by itself; False if it stood already.

        At a new address the peer gets a new line; what waited on the old one is lost with it, a moment later.

        Raises:
            TransportError: the endpoint is no address.
        """
        if peer in self._lines:
            standing, socket = self._lines[peer]
            if standing == endpoint:
                return False
            del self._lines[peer]
            socket.close(linger=0)
        socket = self._socket(zmq.PUSH, endpoint)
        socket.sndhwm = self._bounds.queue
        socket.reconnect_ivl = _RECONNECT_MS
        socket.reconnect_ivl_max = _RECONNECT_MAX_MS
        if self._identity is not None:
            socket.curve_serverkey = peer_key
            socket.curve_publickey = self._identity.public
            socket.curve_secretkey = self._identity.secret
        if self.dialled is not None:
            self.dialled(peer, socket)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            advice = "use tcp://<address>:<port>"
            raise TransportError(
                f"cannot connect to peer {peer} at {endpoint!r}: {zmq.strerror(error.errno or 0)}; {advice}"
            ) from error
        self._lines[peer] = endpoint, socket
        return True

    def redial(self, peer: int, peer_key: bytes) -> bool:
        """Open a standing line anew, with an empty queue: what waited was for a process that is no more.

        What waited is dropped when libzmq's own thread ends the old line, a moment after this returns. Until then the
        new process may still receive some of it, as at any reconnection: a receiver must not rely on its absence.

        Not more than once a second, and false if it was: a peer that keeps being somebody new must not keep us busy.
        """
        now_s = time.monotonic()
        if now_s - self._redialled.get(peer, -_REDIAL_S) < _REDIAL_S:
            return False
        self._redialled[peer] = now_s
        endpoint, socket = self._lines.pop(peer)
        socket.close(linger=0)
        return self.dial(peer, peer_key, endpoint)

    def has_line(self, peer: int) -> bool:
        """True if `dial` has opened a line to `peer`."""
        return peer in self._lines

    def endpoint(self, peer: int) -> str | None:
        """Where the line to a peer leads, None before there is one to an address."""
        endpoint = self._lines[peer][0] if peer in self._lines else ""
        return endpoint if endpoint.startswith("tcp://") else None

    def send(self, to: int, head: bytes, payload: memoryview | None = None) -> bool:
        """Queue one message, the payload without a copy; False if the queue is full. Never blocks.

        Raises:
            LocalProtocolError: no line to `to`.
        """
        if to not in self._lines:
            raise LocalProtocolError(f"there is no line to peer {to}; connect to it first, and never to oneself")
        socket = self._lines[to][1]
        try:
            if payload is None:
                socket.send(head, zmq.NOBLOCK)
            else:
                socket.send(head, zmq.NOBLOCK | zmq.SNDMORE)
                socket.send(payload, zmq.NOBLOCK, copy=False, track=False)
        except zmq.Again:
            return False
        return True

    def arrived(self, most: int, most_bytes: float = math.inf) -> Iterator[list[zmq.Frame]]:
        """At most `most` messages that are there, and none after the one with which they hold `most_bytes`.

        One with too many frames keeps one too many, to be told by.
        """
        left = most_bytes
        for _ in range(most):
            frames: list[zmq.Frame] = []
            more = True
            while more:
                try:
                    frame = self.socket.recv(zmq.NOBLOCK, copy=False, track=False)
                except zmq.Again:
                    return
                if len(frames) <= self._bounds.frames:
                    frames.append(frame)
                more = frame.more
            left -= sum(len(frame) for frame in frames)
            yield frames
            if left <= 0:
                return

    def close(self, linger_ms: int) -> None:
        """Stop listening; what waits on the lines may still leave for `linger_ms` while the context ends."""
        for _, socket in self._lines.values():
            socket.close(linger=linger_ms)
        self._lines.clear()
        self.socket.close(linger=0)

    def _listen(self, endpoint: str) -> Socket:
        socket = self._socket(zmq.PULL, endpoint)
        socket.rcvhwm = self._bounds.backlog
        socket.maxmsgsize = self._bounds.frame_bytes + _CURVE_OVERHEAD_BYTES
        if self._identity is not None:
            socket.curve_server = True
            socket.curve_secretkey = self._identity.secret
            socket.zap_domain = _ZAP_DOMAIN
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it a missing gate lets everyone in
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            busy = error.errno == errno.EADDRINUSE
            advice = "stop what listens there or use port *" if busy else "use tcp://<address of this host>:<port or *>"
            raise TransportError(
                f"cannot listen on {endpoint!r}: {zmq.strerror(error.errno or 0)}; {advice}"
            ) from error
        return socket

    def _socket(self, kind: int, endpoint: str) -> Socket:
        socket: Socket = self._context.socket(kind)
        socket.linger = 0  # `close` grants more; a node that crashes must not hang on what it cannot deliver
        socket.sndbuf = self._bounds.buffer_bytes
        socket.rcvbuf = self._bounds.buffer_bytes
        socket.ipv6 = "[" in endpoint
        # TCP's own keep-alive: ZeroMQ's heartbeat gives up on a slow link while a tensor is under way, and what was
        # queued in the connection is lost with it.
        socket.tcp_keepalive = 1
        return socket
