"""Endpoints and host names: how they are written, and a resolver that never holds up the message loop.

Keys say who a peer is; an address says only where it listens, and may change with every start. ZeroMQ must not resolve
names itself: its one I/O thread would stand still for seconds at every name that a stopped container has taken along.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from threading import Condition, Thread
from typing import TypeAlias

from btard.node.config import Endpoint

ENDPOINT_LIMIT_BYTES = 300
"""Longest endpoint: a DNS name has at most 253 characters."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

LookUp: TypeAlias = Callable[[str], Sequence[str]]
"""All addresses of a host name, the preferred one first; raises OSError where there is none."""

_ENDPOINT = re.compile(r"tcp://(?:\[([0-9A-Fa-f:.%\w]+)\]|([\w.-]+)):(\d{1,5})", re.ASCII)


def split(endpoint: str) -> tuple[str, int] | None:
    """Host (without brackets) and port of `tcp://HOST:PORT` or `tcp://[IPV6]:PORT`; None if it is neither."""
    found = _ENDPOINT.fullmatch(endpoint) if len(endpoint) <= ENDPOINT_LIMIT_BYTES else None
    if found is None or not 0 < int(found[3]) < 1 << 16 or (found[1] is not None and not _is_number(found[1])):
        return None
    return found[1] or found[2], int(found[3])


def join(host: str, port: int) -> str:
    """The endpoint of a host, in brackets where it is an IPv6 address."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def host_names(endpoint: Endpoint) -> tuple[str, ...]:
    """Host names that have to be resolved before the endpoint can be dialled; none in what is no endpoint."""
    hosts = [found[0] for found in map(split, endpoint.urls) if found is not None]
    return tuple(dict.fromkeys(host for host in hosts if not _is_number(host)))


def look_up(host: str) -> Sequence[str]:
    """The system's answer: addresses of both families, in its order of preference (RFC 6724)."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why the names of a peer have no address at present."""

    problem: str


@dataclass(eq=False, slots=True)
class _Search:
    """A peer that is looked for, how often it has been, and how long to wait until the next time."""

    endpoint: Endpoint
    pause_s: float
    attempts: int = 0


class Resolver:
    """Looks for peers by name, each in a daemon thread of its own while it is looked for.

    A name is looked up at once, and then ever more rarely until `settle`: it may not resolve yet, still have the
    address of a container that is gone, or have several addresses, which are handed over in turn. A look-up that never
    returns holds up its own peer alone, and no second one is begun beside it.

    Args:
        look_up: what answers.
        pauses_s: the first pause between two look-ups, and the longest; each is twice the one before. Also the shortest
            time between two answers about a peer, so that a peer that keeps moving does not keep us busy.
    """

    def __init__(
        self, look_up: LookUp = look_up, pauses_s: tuple[float, float] = (FIRST_PAUSE_S, LONGEST_PAUSE_S)
    ) -> None:
        self._look_up, self._pauses_s = look_up, pauses_s
        self._changed = Condition()
        self._searches: dict[int, _Search] = {}
        self._threads: set[int] = set()
        self._answers: dict[int, Endpoint | Unresolved] = {}
        self._latest: dict[int, Endpoint] = {}
        self._settled: dict[int, Endpoint] = {}
        self._closed = False
        self.descriptor, self._wake = os.pipe()
        """Readable when there are answers."""
        for end in (self.descriptor, self._wake):
            os.set_blocking(end, False)

    def follow(self, peer: int, endpoint: Endpoint) -> None:
        """Look for a peer at an endpoint from now on, and at none that was given before."""
        with self._changed:
            self._searches[peer] = _Search(endpoint, self._pauses_s[0])
            self._answers.pop(peer, None)
            self._changed.notify_all()
            if peer not in self._threads:
                self._threads.add(peer)
                Thread(target=self._search, args=(peer,), name=f"names of peer {peer}", daemon=True).start()

    def settle(self, peer: int) -> None:
        """The peer has answered at the address that was handed over last: look for it no more."""
        with self._changed:
            if self._searches.pop(peer, None) is not None and peer in self._latest:
                self._settled[peer] = self._latest[peer]
            self._changed.notify_all()

    def answers(self) -> dict[int, Endpoint | Unresolved]:
        """The latest answer on each peer since the last call: an endpoint without names, or why there is none."""
        with self._changed:
            with suppress(BlockingIOError):
                os.read(self.descriptor, 1 << 16)
            found, self._answers = self._answers, {}
        return found

    def close(self) -> None:
        """Look for nobody any more; a look-up that is under way ends by itself, unheard."""
        with self._changed:
            self._closed = True
            self._searches.clear()
            self._changed.notify_all()
            os.close(self.descriptor)
            os.close(self._wake)

    def _search(self, peer: int) -> None:
        first_s, longest_s = self._pauses_s
        while True:
            with self._changed:
                search = self._searches.get(peer)
                if search is None:
                    self._threads.discard(peer)
                    return
            answer = _numbered(search, self._look_up, self._settled.get(peer))
            with self._changed:
                if self._searches.get(peer) is search:
                    self._answers[peer] = answer
                    if isinstance(answer, Endpoint):
                        self._latest[peer] = answer
                    with suppress(BlockingIOError):  # full: it is readable anyway
                        os.write(self._wake, b"!")
                self._changed.wait_for(lambda: self._closed, first_s)
                self._changed.wait_for(partial(self._is_over, peer, search), search.pause_s - first_s)
                search.attempts, search.pause_s = search.attempts + 1, min(2 * search.pause_s, longest_s)

    def _is_over(self, peer: int, search: _Search) -> bool:
        return self._searches.get(peer) is not search


def _numbered(search: _Search, look_up: LookUp, settled: Endpoint | None) -> Endpoint | Unresolved:
    """The endpoint with one address in place of each name; where a name has several, first the one at which the peer
    has answered before, and another one at each attempt."""
    known = [split(each) for each in settled.urls] if settled is not None else []
    before = [each[0] for each in known if each is not None]
    found = []
    for each in search.endpoint.urls:
        host, port = split(each) or ("", 0)
        try:
            addresses = (host,) if _is_number(host) else sorted(look_up(host), key=lambda each: each not in before)
            found.append(join(addresses[search.attempts % len(addresses)], port))
        # UnicodeError: a label of 64 characters
        except (OSError, UnicodeError, IndexError, ZeroDivisionError) as error:
            return Unresolved(f"its name {host!r} does not resolve ({error})")
    return Endpoint(*found)


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
