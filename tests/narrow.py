"""A narrow way to a port: a TCP relay that lets so many bytes a second through on each connection."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress
from threading import Event, Thread
from time import monotonic

_BEAT_S = 0.05


class Narrow:
    """Copies what clients send to `there`, and at once what comes back, until `close`.

    Args:
        there: HOST, port.
        rate: bytes per second, one way, of each connection.
        enough: so many bytes of all connections together set `reached`.
    """

    def __init__(self, there: tuple[str, int], rate: float, enough: int) -> None:
        self.reached = Event()
        self._there, self._share, self._left = there, int(rate * _BEAT_S), enough
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._woken, self._wake = socket.socketpair()
        self._sockets = [self._listener, self._woken, self._wake]
        self._resting: list[tuple[socket.socket, socket.socket]] = []
        for each in (self._listener, self._woken):
            self._selector.register(each, selectors.EVENT_READ)
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = Thread(target=self._run, name="narrow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections."""
        self._wake.send(b"x")
        self._thread.join()
        for each in self._sockets:
            each.close()

    def _run(self) -> None:
        """In each beat every connection may pass on its share; whoever has done so rests until the next."""
        beat_s = monotonic()
        while True:
            for key, _ in self._selector.select(max(0.0, beat_s - monotonic()) if self._resting else None):
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    self._join()
                else:
                    self._copy(key.fileobj, *key.data)  # type: ignore[arg-type]
            if monotonic() >= beat_s:
                beat_s = monotonic() + _BEAT_S
                for near, far in self._resting:
                    self._selector.register(near, selectors.EVENT_READ, (far, True))
                self._resting.clear()

    def _join(self) -> None:
        near = self._listener.accept()[0]
        self._sockets.append(near)
        try:
            far = socket.create_connection(self._there)
        except OSError:  # nobody listens there any more
            near.shutdown(socket.SHUT_RDWR)
            return
        self._sockets.append(far)
        self._selector.register(near, selectors.EVENT_READ, (far, True))
        self._selector.register(far, selectors.EVENT_READ, (near, False))

    def _copy(self, source: socket.socket, to: socket.socket, slow: bool) -> None:
        data = b""
        with suppress(OSError):
            data = source.recv(self._share if slow else 1 << 16)
            to.sendall(data)
        if not data or slow:
            self._selector.unregister(source)
        if not data:
            for end in (source, to):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        elif slow:
            self._resting.append((source, to))
            self._left -= len(data)
            if self._left <= 0:
                self.reached.set()
