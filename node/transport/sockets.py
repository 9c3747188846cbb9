"""ZeroMQ sockets as the transport needs them, and the gate that decides which keys come in.

One PULL socket listens at each port, and one PUSH socket leads to each port of a peer, or two to its only one. PULL
has no routing ids: a sender is known by the CURVE key it proved, never by a name it chose. A ROUTER would add nothing,
since nobody answers on a connection, and libzmq 4.3.5 aborts the process when a peer claims the id that the next
connection is going to get.
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
_MORE = zmq.NOBLOCK | zmq.SNDMORE
PIECE_BYTES = 128 << 10
"""Largest frame of a tensor on a line to a peer's only port: no larger than a control message of two peers, so whoever
has proved no key gets no more room there than at a control port. Encrypting costs no more than in one piece."""
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
        self._users = {str(peer): peer for peer in members}
        self._dropped = dropped
        self.socket: Socket = context.socket(zmq.REP)
        self.socket.bind(_ZAP_ENDPOINT)

    def admit(self, peer: int, key: bytes) -> None:
        """Let a newcomer's key in. Its connections are known by the key, not by the id alone, which may be another's
        later: what comes over a line of one that has been dismissed is nobody's."""
        user = f"{peer} {key.decode()}"
        self._allowed[z85.decode(key)] = user.encode()
        self._users[user] = peer

    def dismiss(self, peer: int, key: bytes) -> None:
        """Let a newcomer's key in no more."""
        del self._allowed[z85.decode(key)], self._users[f"{peer} {key.decode()}"]

    def peer_of(self, frame: zmq.Frame) -> int | None:
        """The peer whose key the frame's connection has proved; None without CURVE, or of one that was dismissed."""
        try:
            return self._users.get(str(frame.get("User-Id")))
        except zmq.ZMQError:
            return None

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
    """What comes in at one port.

    Args:
        frames: frames of one message.
        frame_bytes: a connection that announces a larger frame is closed before anything is allocated.
        message_bytes: all frames of one message.
        backlog: messages read ahead from one connection; beyond it the sender waits and nothing is lost.
        buffer_bytes: asked of the kernel for each connection.
    """

    frames: int
    frame_bytes: int
    message_bytes: int
    backlog: int
    buffer_bytes: int


class Listener:
    """A socket that listens at one port; with an identity, every connection has to prove a key that the gate lets in.

    Raises:
        TransportError: `endpoint` cannot be bound.
    """

    def __init__(self, context: Context, identity: Identity | None, bounds: Bounds, endpoint: str) -> None:
        self.bounds, self.encrypted = bounds, identity is not None
        self.socket = _socket(context, zmq.PULL, endpoint, bounds.buffer_bytes)
        self.socket.rcvhwm = bounds.backlog
        self.socket.maxmsgsize = bounds.frame_bytes + _CURVE_OVERHEAD_BYTES
        if identity is not None:
            self.socket.curve_server = True
            self.socket.curve_secretkey = identity.secret
            self.socket.zap_domain = _ZAP_DOMAIN
            self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it a missing gate lets everyone in
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.socket.close(linger=0)
            busy = error.errno == errno.EADDRINUSE
            advice = "stop what listens there or use port *" if busy else "use tcp://<address of this host>:<port or *>"
            raise TransportError(
                f"cannot listen on {endpoint!r}: {zmq.strerror(error.errno or 0)}; {advice}"
            ) from error

    @property
    def bound(self) -> str:
        """Where it listens, with the port that the system chose."""
        endpoint = self.socket.getsockopt(zmq.LAST_ENDPOINT)
        return endpoint.rstrip(b"\0").decode() if isinstance(endpoint, bytes) else str(endpoint)

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
                if len(frames) <= self.bounds.frames:
                    frames.append(frame)
                    left -= len(frame)
                more = frame.more
            yield frames
            if left <= 0:
                return

    def close(self) -> None:
        """Stop listening."""
        self.socket.close(linger=0)


@dataclass(frozen=True, slots=True)
class _Line:
    """What leads to a peer; `only`: to its only port, beside another line for other messages."""

    endpoint: str
    only: bool
    socket: Socket


class Dialler:
    """One line to each peer.

    Args:
        context: of all sockets.
        identity: ours, which encrypted lines prove.
        encrypted: whether all of them are; those to a peer's only port always are.
        queue: messages that wait for one peer that does not read, or is not there yet.
        buffer_bytes: asked of the kernel for each line.
    """

    def __init__(self, context: Context, identity: Identity, *, encrypted: bool, queue: int, buffer_bytes: int) -> None:
        self._context, self._identity, self._encrypted = context, identity, encrypted
        self._queue, self._buffer_bytes = queue, buffer_bytes
        self._lines: dict[int, _Line] = {}
        self._held: dict[int, list[tuple[bytes, memoryview | None]]] = {}
        self._redialled: dict[int, float] = {}
        self.dialled: Callable[[int, Socket], None] | None = None
        """Told (peer, line) of every new line before it connects."""

    def hold(self, peer: int) -> None:
        """Keep what is for a peer that has no address yet, up to a queue of it, until it is dialled and `release`."""
        self._held[peer] = []

    def release(self, peer: int) -> None:
        """Send what was held for a peer, now that there is a line to it."""
        for message in self._held.pop(peer, ()):
            self.send(peer, *message)

    def dial(self, peer: int, peer_key: bytes, endpoint: str, *, only: bool = False) -> bool:
        """Open a line that connects, and reconnects, by itself; False if it stood already.

        At a new address the peer gets a new line; what waited on the old one is lost with it, a moment later.

        Args:
            peer: its genesis id.
            peer_key: its public CURVE key.
            endpoint: where it listens.
            only: it has no other port; large messages go there in pieces.

        Raises:
            TransportError: the endpoint is no address.
        """
        if peer in self._lines:
            standing = self._lines[peer]
            if (standing.endpoint, standing.only) == (endpoint, only):
                return False
            del self._lines[peer]
            standing.socket.close(linger=0)
        socket = _socket(self._context, zmq.PUSH, endpoint, self._buffer_bytes)
        socket.sndhwm = self._queue
        socket.reconnect_ivl = _RECONNECT_MS
        socket.reconnect_ivl_max = _RECONNECT_MAX_MS
        if self._encrypted or only:
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
        self._lines[peer] = _Line(endpoint, only, socket)
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
        if peer in self._held:
            self._held[peer].clear()
            return False
        line = self._lines.pop(peer)
        line.socket.close(linger=0)
        return self.dial(peer, peer_key, line.endpoint, only=line.only)

    def hang_up(self, peer: int) -> None:
        """Close the line to a peer that is none any more, if there is one; what waits is lost."""
        self._held.pop(peer, None)
        if peer in self._lines:
            self._lines.pop(peer).socket.close(linger=0)

    def has_line(self, peer: int) -> bool:
        """True if `dial` has opened a line to `peer`, or what is for it is held."""
        return peer in self._lines or peer in self._held

    def holds(self, peer: int) -> bool:
        """True if there is no line to `peer` yet, and what is for it is held."""
        return peer in self._held and peer not in self._lines

    def endpoint(self, peer: int) -> str | None:
        """Where the line to a peer leads, None before there is one."""
        return self._lines[peer].endpoint if peer in self._lines else None

    def send(self, to: int, head: bytes, payload: memoryview | None = None) -> bool:
        """Queue one message, the payload without a copy; False if the queue is full. Never blocks.

        Raises:
            LocalProtocolError: no line to `to`.
        """
        if self.holds(to):
            held = self._held[to]
            if len(held) < self._queue:
                held.append((head, payload))
                return True
            return False
        if to not in self._lines:
            raise LocalProtocolError(f"there is no line to peer {to}; connect to it first, and never to oneself")
        line = self._lines[to]
        try:
            if payload is None:
                line.socket.send(head, zmq.NOBLOCK)
            else:
                line.socket.send(head, _MORE)
                while line.only and len(payload) > PIECE_BYTES:
                    piece, payload = payload[:PIECE_BYTES], payload[PIECE_BYTES:]
                    line.socket.send(piece, _MORE, copy=False, track=False)
                line.socket.send(payload, zmq.NOBLOCK, copy=False, track=False)
        except zmq.Again:
            return False
        return True

    def close(self, linger_ms: int) -> None:
        """Close all lines; what waits on them may still leave for `linger_ms` while the context ends."""
        for line in self._lines.values():
            line.socket.close(linger=linger_ms)
        self._lines.clear()
        self._held.clear()


def _socket(context: Context, kind: int, endpoint: str, buffer_bytes: int) -> Socket:
    socket: Socket = context.socket(kind)
    socket.linger = 0  # `close` grants more; a node that crashes must not hang on what it cannot deliver
    socket.sndbuf = socket.rcvbuf = buffer_bytes
    socket.ipv6 = "[" in endpoint
    # TCP's own keep-alive: ZeroMQ's heartbeat gives up on a slow link while a tensor is under way, and what was
    # queued in the connection is lost with it.
    socket.tcp_keepalive = 1
    return socket
