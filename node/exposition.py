"""Serves metrics over HTTP, one request at a time: `/metrics` in Prometheus's text format, nothing else."""

from __future__ import annotations

import os
import select
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.utils import floatToGoString

from node.config import split_address
from node.errors import BackendError

_REQUEST_S = 5.0
"""Longest time that one client may take: it holds up the others."""


class Exposition:
    """A listening `/metrics`, from construction until `close`.

    Args:
        address: HOST:PORT; port 0 lets the system choose.
        registry: what is served.

    Raises:
        ConfigError: the address is not HOST:PORT.
        BackendError: it cannot be bound.
    """

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        try:
            self._server = _Server(split_address(address), registry)
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


class _Server(HTTPServer):
    """The server behind an exposition."""

    timeout = 0  # a client that has gone again before it is accepted must not hold us up

    def __init__(self, where: tuple[str, int], registry: CollectorRegistry) -> None:
        if ":" in where[0]:
            self.address_family = socket.AF_INET6
        self.registry, self.wanted, self.answered = registry, 0, 0
        self.scraped, self._wake = os.pipe()
        self._stopped, self._stop = os.pipe()
        super().__init__(where, _Request)  # closes all again if it cannot bind

    def serve(self) -> None:
        """Answer requests until `stop`; between two of them the thread sleeps (`serve_forever` would wake to look)."""
        while self._stopped not in select.select([self.fileno(), self._stopped], [], [])[0]:
            self.handle_request()

    def stop(self) -> None:
        """End `serve`, after the request that is being answered."""
        os.write(self._stop, b"\0")

    def served(self, final: bool) -> None:
        """A scrape was answered; `final`: with the last values."""
        self.answered += 1
        if final:
            self.wanted -= 1
            if self.wanted == 0:
                os.write(self._wake, b"\0")

    def server_close(self) -> None:
        """Stop listening."""
        super().server_close()
        for end in (self.scraped, self._wake, self._stopped, self._stop):
            os.close(end)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle concerns nobody."""


class _Request(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = _REQUEST_S

    def do_GET(self) -> None:
        """Answer a scrape."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "only /metrics is here")
            return
        final = self.server.wanted > 0  # before collecting: a scrape under way at the end may lack the last values
        body = text(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.served(final)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line for each scrape helps nobody."""


def text(registry: CollectorRegistry) -> bytes:
    """All that a registry collects, in Prometheus's text format 0.0.4.

    prometheus_client's own encoder checks and escapes every name of every sample again: on 430 series that takes 4 ms
    of the worker's processor at each scrape, and this 1.3 ms. Names here are declared once and checked when made.
    """
    lines: list[str] = []
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines.append(f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n")
        for sample in family.samples:
            labels = ",".join([f'{label}="{_escaped(value)}"' for label, value in sample.labels.items()])
            where = f"{sample.name}{{{labels}}}" if labels else sample.name
            value = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
            lines.append(f"{where} {value}\n")
    return "".join(lines).encode()


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value
