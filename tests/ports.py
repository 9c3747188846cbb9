"""Ports that stay a test's own until it listens on them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """Ports of 127.0.0.1 that are bound and on which nobody listens.

    Nobody else is given them meanwhile, and whoever connects is refused. A program that sets SO_REUSEADDR, as libzmq
    does, may listen on them all the same.
    """
    with ExitStack() as stack:
        holders = [stack.enter_context(_held(0)) for _ in range(count)]
        yield [holder.getsockname()[1] for holder in holders]


@contextmanager
def held_range(count: int) -> Iterator[list[int]]:
    """The same, one after the other, for a program that counts them itself."""
    while True:
        with ExitStack() as stack:
            (first,) = stack.enter_context(held_ports(1))
            try:
                for port in range(first + 1, first + count):
                    stack.enter_context(_held(port))
            except OSError:  # one of them is somebody's
                continue
            yield list(range(first, first + count))
            return


@contextmanager
def _held(port: int) -> Iterator[socket.socket]:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        yield holder
