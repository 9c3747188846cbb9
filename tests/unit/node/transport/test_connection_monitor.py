"""What lines tell of themselves: real sockets that connect, break and are refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from time import monotonic

import pytest
import zmq

from btard.node.config import Endpoint
from btard.node.crypto import keys
from btard.node.transport.connection_monitor import ConnectionMonitor
from btard.node.transport.transport import Transport

pytestmark = pytest.mark.sockets
ANYWHERE = Endpoint("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
MEMBERS, SECRETS = keys.generate(0, 2)
PATIENCE_S = 20.0


def made(me: int, listen: Endpoint = ANYWHERE) -> Transport:
    return Transport(me, SECRETS[me], MEMBERS, listen, run_id="lines")


def until(done: Callable[[], object], *transports: Transport) -> None:
    end = monotonic() + PATIENCE_S
    while not done():
        assert monotonic() < end
        for each in transports:
            each.poll(0.01)


def test_a_line_that_breaks_and_comes_back_is_counted_and_timed() -> None:
    with closing(made(0)) as ours:
        lines = ours.lines()
        with closing(made(1)) as other:
            where = other.bound
            ours.connect({1: where})
            other.connect({0: ours.bound})
            until(lambda: ours.greeted and other.greeted, ours, other)
            lines.look()
            assert dict(lines.reconnects) == {1: 0}
            assert 0 < lines.rtt_s()[1] < 1
            assert lines.queued_bytes()[1] >= 0
        with closing(made(1, where)) as again:
            until(lambda: lines.look() or lines.reconnects[1] >= 2, ours, again)
        before = lines.rtt_s()
    assert lines.rtt_s().keys() == before.keys(), "the last figures stay when the transport is closed"
    assert lines.queued_bytes() == {1: 0}


def test_a_stranger_at_the_door_is_counted_by_reason() -> None:
    public, secret = zmq.curve_keypair()
    with closing(made(0)) as ours, zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        lines: ConnectionMonitor = ours.lines()
        stranger.linger = 0
        stranger.curve_publickey, stranger.curve_secretkey = public, secret
        stranger.curve_serverkey = MEMBERS[0].transport_key.encode()
        stranger.connect(ours.bound.control)
        until(lambda: lines.look() or sum(lines.handshake_failures.values()), ours)
        assert set(lines.handshake_failures) == {"no_detail", "protocol", "auth"}
        assert lines.handshake_failures["auth"] >= 1
