"""A network that fails: TCP relays between chosen peers that fall silent, for ever, after a number of bytes."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Thread

from btard.node.config import Endpoint

_CHUNK_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Partition:
    """Cuts what flows from one peer to another; connections stay open and say nothing.

    Args:
        cut: (from, to) pairs of genesis ids.
        after_bytes: what passes over all of them together before; no peer chooses the instant, nor does a clock.
    """

    cut: tuple[tuple[int, int], ...]
    after_bytes: int

    def __call__(self, stack: ExitStack, bound: Mapping[int, Endpoint]) -> Mapping[int, Mapping[int, Endpoint]]:
        """Start the relays; returns where each peer is told that the others listen."""
        relay = _Relay(self.after_bytes)
        stack.callback(relay.close)
        told = {peer: dict(bound) for peer in bound}
        for sender, receiver in self.cut:
            there = bound[receiver]
            told[sender][receiver] = Endpoint(relay.before(there.control), relay.before(there.bulk))
        relay.start()
        return told


def between(one: Iterable[int], other: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Both directions of all pairs across two groups."""
    pairs = [(a, b) for a in one for b in other]
    return (*pairs, *((b, a) for a, b in pairs))


class _Relay:
    """One thread that copies bytes between sockets until the budget is spent."""

    def __init__(self, budget_bytes: int) -> None:
        self._left = budget_bytes
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._woken, self._wake = socket.socketpair()
        self._sockets += [self._woken, self._wake]
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = Thread(target=self._run, name="relay", daemon=True)

    def before(self, address: str) -> str:
        """An address that leads to `address`."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(listener)
        self._selector.register(listener, selectors.EVENT_READ, address)
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for each in self._sockets:
            each.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                match key.data:
                    case None:
                        return
                    case str(address):
                        self._join(key.fileobj, address)  # type: ignore[arg-type]
                    case socket.socket() as other:
                        self._copy(key.fileobj, other)  # type: ignore[arg-type]

    def _join(self, listener: socket.socket, address: str) -> None:
        near = listener.accept()[0]
        self._sockets.append(near)
        if self._left <= 0:
            return
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        far = socket.create_connection((host, int(port)))
        self._sockets.append(far)
        self._selector.register(near, selectors.EVENT_READ, far)
        self._selector.register(far, selectors.EVENT_READ, near)

    def _copy(self, near: socket.socket, far: socket.socket) -> None:
        try:
            data = near.recv(_CHUNK_BYTES) if self._left > 0 else b""
            if data:
                self._left -= len(data)
                far.sendall(data)
                return
        except OSError:
            pass
        self._selector.unregister(near)
