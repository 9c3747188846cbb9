"""Transports of one cluster in one process, and hand-written peers beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Any

import zmq

from btard.node.config import Endpoint
from btard.node.crypto import keys
from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.transport.arrivals import Arrival, ControlArrival
from btard.node.transport.transport import Transport

MEMBERS, SECRETS = keys.generate(0, 3)
ANYWHERE = Endpoint("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
ONE_PORT = Endpoint("tcp://127.0.0.1:*")
KEY = BulkKey(step=3, attempt=0, kind=BulkKind.PART, owner=1, part=2)
WATCHDOG_S = 30.0  # ends a test that hangs; no test depends on how long anything takes


def start(stack: ExitStack, me: int, listen: Endpoint = ANYWHERE, **options: Any) -> Transport:
    transport = Transport(me, SECRETS[me], MEMBERS, listen, **{"run_id": "run", **options})
    stack.callback(transport.close, 0)
    return transport


def pump(nodes: Sequence[Transport], done: Callable[[list[list[Arrival]]], bool]) -> list[list[Arrival]]:
    """Poll all nodes until `done` of what each has received; fails if that never comes."""
    seen: list[list[Arrival]] = [[] for _ in nodes]
    end = monotonic() + WATCHDOG_S
    while not done(seen):
        assert monotonic() < end, [(node.counters, node.refusals) for node in nodes]
        for node, arrivals in zip(nodes, seen, strict=True):
            arrivals += node.poll(0.01)
    return seen


def mesh(stack: ExitStack, peers: int = 2, **options: Any) -> list[Transport]:
    nodes = [start(stack, me, **options) for me in range(peers)]
    addresses = {node.me: node.bound for node in nodes}
    for node in nodes:
        node.connect(addresses)
    pump(nodes, lambda _: all(len(node.greeted) == peers - 1 for node in nodes))
    return nodes


def raw_peer(stack: ExitStack, target: Transport, key: str | None, routing_id: bytes = b"") -> zmq.Socket[bytes]:
    """A hand-written peer on the control port: a PUSH socket with any CURVE secret, or with none."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    socket = context.socket(zmq.PUSH)
    stack.callback(socket.close, 0)  # also keeps it: a socket that nobody holds is closed by the collector
    if routing_id:
        socket.routing_id = routing_id
    if key is not None:
        socket.curve_secretkey = key.encode()
        socket.curve_publickey = zmq.curve_public(key.encode())
        socket.curve_serverkey = MEMBERS[target.me].transport_key.encode()
    socket.connect(target.bound.control)
    return socket


def raw_bulk(stack: ExitStack, target: Transport) -> zmq.Socket[bytes]:
    """A stranger on the plain bulk port."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    socket = context.socket(zmq.PUSH)
    stack.callback(socket.close, 0)  # also keeps it: a socket that nobody holds is closed by the collector
    socket.connect(target.bound.bulk)
    return socket


def controls(arrivals: list[Arrival]) -> list[tuple[int, bytes]]:
    return [(arrival.via, arrival.data) for arrival in arrivals if isinstance(arrival, ControlArrival)]
