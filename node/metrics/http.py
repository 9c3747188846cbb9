"""Serves metrics over HTTP, `/metrics` in Prometheus's text format, and where asked a node's public files, `/files`.

A scrape takes milliseconds; whoever takes longer must hold up neither a scrape nor the end of the process. So a request
has one time limit for all its bytes, in both directions, there are eight threads, and whoever comes when all are taken
takes the place of the one that has been sending its request for longest. Larger files are asked for in ranges of bytes.
"""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from socketserver import TCPServer
from threading import Condition, Lock, Thread
from time import monotonic
from types import MappingProxyType

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.utils import floatToGoString

from btard.node.config import split_address
from btard.node.errors import BackendError, DataError
from btard.node.storage.public_files import PublicFiles
from btard.node.transport import descriptors

REQUEST_S = 5.0
"""Longest time that one request may take, from its first byte to the last of the answer."""
THREADS = 8
HEAD_BYTES = 8192
"""Largest request, its headers included."""
_WAITING = 8
"""Connections that the kernel keeps for us until there is a thread."""
_CLOSE_S = 1.0
"""Longest wait at the end for answers under way, and for threads whose connection was cut."""
_AGAIN_S = 0.1
"""Pause after a connection could not be accepted."""
_CHUNK_BYTES = 1 << 18
_RANGE = re.compile("bytes=([0-9]{1,15})-([0-9]{0,15})")


class MetricsEndpoint:
    """A listening `/metrics`, from construction until `close`.

    Args:
        address: HOST:PORT; port 0 lets the system choose.
        registry: what is served.
        files: what is served as `/files` besides; None: nothing.
        labels: that every series has besides its own.

    Raises:
        ConfigError: the address is not HOST:PORT.
        BackendError: it cannot be bound.
    """

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        files: PublicFiles | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        try:
            self._server = _Server(split_address(address), registry, files, labels)
        except OSError as error:
            advice = "use another port, or 0 to let the system choose"
            raise BackendError(f"cannot serve metrics on {address}: {error.strerror}; {advice}") from error
        self._thread = Thread(target=self._server.serve, name="metrics", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, with the port that the system chose."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    @property
    def last_scrape(self) -> int:
        """A file descriptor that can be read once the scrapes that `end` asked for were answered."""
        return self._server.scraped

    @property
    def scraped_ever(self) -> bool:
        """True once anybody has asked: there is a Prometheus that may want the last values."""
        return self._server.answered > 0

    def end(self, scrapes: int = 1) -> None:
        """The values are final from now on, and wanted by so many more scrapes.

        A scraper has kept what it was given when it comes again: two are for one that is about to be ended.
        """
        self._server.wanted = scrapes

    def close(self) -> None:
        """Stop serving; a second call does nothing."""
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join()
            self._server.server_close()


class _Server(TCPServer):
    """The server behind an exposition."""

    allow_reuse_address = True
    request_queue_size = _WAITING

    def __init__(
        self, where: tuple[str, int], registry: CollectorRegistry, files: PublicFiles | None, labels: Mapping[str, str]
    ) -> None:
        if ":" in where[0]:
            self.address_family = socket.AF_INET6
        self.registry, self.files, self.labels, self.wanted, self.answered = registry, files, labels, 0, 0
        self.collecting = Lock()
        """Held while the values are read: not all that is asked for them may be asked twice at once."""
        self.scraped, self._wake = os.pipe()
        self._stopped, self._stop = os.pipe()
        self._open: dict[socket.socket, bool] = {}
        """The requests in the order in which they came: true once the answer is under way."""
        self._changed, self._ending = Condition(), False
        super().__init__(where, _Request)  # closes all again if it cannot bind
        self.socket.setblocking(False)  # a client that has gone again before it is accepted must not hold us up

    def serve(self) -> None:
        """Accept requests until `stop`; between two of them the thread sleeps (`serve_forever` would wake to look)."""
        ready, stopping = select.poll(), select.poll()
        ready.register(self.fileno(), select.POLLIN)
        for each in (ready, stopping):
            each.register(self._stopped, select.POLLIN)
        while self._stopped not in dict(ready.poll()):
            try:
                with descriptors.reserve:
                    request, client = self.socket.accept()
            except OSError:  # it has gone again, or no descriptor is left
                stopping.poll(1000 * _AGAIN_S)
                continue
            if self._admit(request):
                Thread(target=self._answer, args=(request, client), name="scrape", daemon=True).start()

    def _admit(self, request: socket.socket) -> bool:
        """Wait for a thread, and end a slow request for it; false if we are about to end ourselves."""
        with self._changed:
            while len(self._open) >= THREADS and not self._ending:
                _cut(next((other for other, answering in self._open.items() if not answering), next(iter(self._open))))
                self._changed.wait(_AGAIN_S)
            if not self._ending:
                self._open[request] = False
                return True
        request.close()
        return False

    def _answer(self, request: socket.socket, client: object) -> None:
        try:
            with suppress(OSError):  # a client that hangs up in the middle concerns nobody
                self.finish_request(request, client)
        finally:
            with self._changed:
                del self._open[request]
                self._changed.notify_all()
            self.shutdown_request(request)

    def answering(self, request: socket.socket) -> bool:
        """A request is complete; returns whether the values that it is going to be told are final."""
        with self._changed:
            self._open[request] = True
            return self.wanted > 0

    def served(self, final: bool) -> None:
        """A scrape was answered; `final`: with the last values."""
        with self._changed:
            self.answered += 1
            if final:
                self.wanted -= 1
                if self.wanted == 0 and self._wake >= 0:
                    os.write(self._wake, b"\0")

    def stop(self) -> None:
        """End `serve` and all requests; answers under way have a moment more."""
        os.write(self._stop, b"\0")
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            for request, answering in self._open.items():
                if not answering:
                    _cut(request)
            self._changed.wait_for(lambda: not self._open, _CLOSE_S)
            for request in self._open:
                _cut(request)
            self._changed.wait_for(lambda: not self._open, _CLOSE_S)

    def server_close(self) -> None:
        """Stop listening."""
        super().server_close()
        with self._changed:
            ends = self.scraped, self._wake, self._stopped, self._stop
            self._wake = -1
            for end in ends:
                os.close(end)


def _cut(request: socket.socket) -> None:
    """End a connection under its thread's hands."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Request(BaseHTTPRequestHandler):
    """One request."""

    server: _Server

    def handle(self) -> None:
        """Read all of it, then answer."""
        self._until_s = monotonic() + REQUEST_S
        head = self._read()
        if len(head) > HEAD_BYTES:
            self.requestline, self.request_version, self.command = "", "HTTP/1.1", ""
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"at most {HEAD_BYTES} bytes are read")
        elif head:
            self.rfile = BytesIO(head)
            self.handle_one_request()

    def _read(self) -> bytes:
        """The request's head; nothing if it does not come in time."""
        head = b""
        while len(head) <= HEAD_BYTES and not head.endswith((b"\r\n\r\n", b"\n\n")):
            self._hurry()
            more = self.connection.recv(HEAD_BYTES + 1 - len(head))
            if not more:
                return b""
            head += more
        return head

    def _hurry(self) -> None:
        """Let whatever comes next take what is left of the time.

        Raises:
            TimeoutError: nothing is.
        """
        left_s = self._until_s - monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.connection.settimeout(left_s)  # `sendall` takes it for all it sends

    def do_GET(self) -> None:
        """Answer a scrape, or whoever collects files."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif self.server.files is None:
            self.send_error(HTTPStatus.NOT_FOUND, "only /metrics is here")
        elif path == "/files":
            self.server.answering(self.connection)
            self._send(msgspec.json.encode(self.server.files.listed()), "application/json")
        elif path.startswith("/files/"):
            self.server.answering(self.connection)
            self._file(self.server.files, path.removeprefix("/files/"))
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "only /metrics and /files are here")

    def _metrics(self) -> None:
        final = self.server.answering(self.connection)  # before collecting: one under way may lack the last values
        with self.server.collecting:
            body = text(self.server.registry, self.server.labels)
        self._send(body, CONTENT_TYPE_PLAIN_0_0_4)
        self.server.served(final)

    def _file(self, files: PublicFiles, name: str) -> None:
        """Answer with a file, or the range of it that was asked for (RFC 9110, section 14)."""
        try:
            descriptor = files.open(name)
        except (FileNotFoundError, DataError):
            self.send_error(HTTPStatus.NOT_FOUND, "no such public file; /files lists them")
            return
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            first, end = 0, size
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            if asked is not None:
                first = int(asked[1])
                end = min(size, int(asked[2]) + 1) if asked[2] else size
                if first >= end:
                    self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"it has {size} bytes")
                    return
            status = HTTPStatus.OK if asked is None else HTTPStatus.PARTIAL_CONTENT
            ranges = {} if asked is None else {"Content-Range": f"bytes {first}-{end - 1}/{size}"}
            self._head(status, end - first, {"Content-Type": "application/octet-stream", **ranges})
            while first < end and (piece := os.pread(file.fileno(), min(_CHUNK_BYTES, end - first), first)):
                self._hurry()
                self.wfile.write(piece)
                first += len(piece)

    def _send(self, body: bytes, kind: str) -> None:
        self._head(HTTPStatus.OK, len(body), {"Content-Type": kind})
        self._hurry()
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, length: int, headers: Mapping[str, str]) -> None:
        self._hurry()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line for each scrape helps nobody."""


def text(registry: CollectorRegistry, labels: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """All that a registry collects, in Prometheus's text format 0.0.4; `labels` come first in each series.

    prometheus_client's own encoder checks and escapes every name of every sample again: on 430 series that takes 4 ms
    of the worker's processor at each scrape, and this 1.3 ms. Names here are declared once and checked when made.
    """
    lines: list[str] = []
    common = [f'{label}="{_escaped(value)}"' for label, value in labels.items()]
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines.append(f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n")
        for sample in family.samples:
            named = ",".join(common + [f'{label}="{_escaped(value)}"' for label, value in sample.labels.items()])
            where = f"{sample.name}{{{named}}}" if named else sample.name
            value = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
            lines.append(f"{where} {value}\n")
    return "".join(lines).encode()


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value
