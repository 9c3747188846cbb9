"""The transport over real sockets: what strangers and liars do not get."""

from __future__ import annotations

import socket as tcp
import struct
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any

import msgspec
import pytest
import torch
import zmq

from btard.node.config import WIRE_VERSION, Endpoint
from btard.node.crypto.signing import Signer
from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.transport import framing
from btard.node.transport.address_records import signing_bytes
from btard.node.transport.addresses import Resolver
from btard.node.transport.arrivals import Arrival, BulkArrival
from btard.node.transport.sockets import PIECE_BYTES
from tests.transports import (
    ANYWHERE,
    KEY,
    MEMBERS,
    ONE_PORT,
    SECRETS,
    WATCHDOG_S,
    controls,
    mesh,
    pump,
    raw_bulk,
    raw_peer,
    start,
)
from tests.workers import FOR_EVER_S

PORTS = pytest.mark.parametrize("listen", [ANYWHERE, ONE_PORT], ids=["two ports", "one port"])


@PORTS
@pytest.mark.parametrize("key", [zmq.curve_keypair()[1].decode(), None], ids=["unknown key", "no key"])
def test_strangers_do_not_get_in(stack: ExitStack, key: str | None, listen: Endpoint) -> None:
    nodes = mesh(stack, listen=listen)
    stranger = raw_peer(stack, nodes[0], key)
    stranger.send(framing.encode_control(b"let me in"))
    stranger.send_multipart([header(nodes[1]._tokens.to(0)), bytes(8)])
    if key is not None:
        pump(nodes, lambda _: nodes[0].counters.dropped["stranger"] > 0)
    nodes[1].send_control(0, b"honest")
    seen = pump(nodes, lambda seen: len(seen[0]) > 0)
    assert controls(seen[0]) == [(1, b"honest")]


@pytest.mark.parametrize("claimed", [b"1", b"peer-1", MEMBERS[1].transport_key.encode()], ids=["id", "name", "key"])
def test_a_member_that_claims_anothers_routing_id_speaks_under_its_own_key(stack: ExitStack, claimed: bytes) -> None:
    nodes = mesh(stack)
    liar = raw_peer(stack, nodes[0], SECRETS[2].transport_secret, routing_id=claimed)
    liar.send(framing.encode_control(b"I am 1"))
    seen = pump(nodes, lambda seen: len(seen[0]) > 0)
    nodes[1].send_control(0, b"so am I")
    seen[0] += pump(nodes, lambda seen: len(seen[0]) > 0)[0]
    assert controls(seen[0]) == [(2, b"I am 1"), (1, b"so am I")]


def test_two_connections_under_one_key_and_routing_id_are_both_heard(stack: ExitStack) -> None:
    nodes = mesh(stack)
    for word in (b"first", b"second"):
        raw_peer(stack, nodes[0], SECRETS[2].transport_secret, routing_id=b"same").send(framing.encode_control(word))
    seen = pump(nodes, lambda seen: len(seen[0]) == 2)
    assert sorted(controls(seen[0])) == [(2, b"first"), (2, b"second")]


TOKEN = bytes(range(32))


def address(peer: int, number: int, url: str) -> framing.AddressRecord:
    """As peer 2 can sign it."""
    unsigned = framing.AddressRecord(b"", peer, number, url, "", b"")
    signer = Signer(bytes.fromhex(SECRETS[2].signing_seed))
    return msgspec.structs.replace(unsigned, signature=signer.sign(signing_bytes(unsigned)))


BAD_CONTROL = {
    "empty": ([b""], "control_malformed"),
    "kind only": ([b"\x01"], "control_malformed"),
    "unknown kind": ([b"\x07hello"], "control_malformed"),
    "two frames": ([framing.encode_control(b"a"), b"b"], "control_malformed"),
    "many frames": ([b""] * 1000, "control_malformed"),
    "other version": ([b"\x02\x63whatever"], "control_malformed"),
    "garbage greeting": ([b"\x02\x02\xc1\xc1"], "control_malformed"),
    "short token": ([framing.encode_greeting(framing.Greeting("run", b"x"))], "control_malformed"),
    "long greeting": ([framing.encode_greeting(framing.Greeting("r" * 2000, TOKEN))], "control_malformed"),
    "another run": ([framing.encode_greeting(framing.Greeting("older", TOKEN))], "greeting_of_another_run"),
    "garbage address": ([b"\x04\xc1\xc1"], "control_malformed"),
    "long address": ([framing.encode_address(address(2, 1, "tcp://" + "a" * 1000))], "control_malformed"),
    "an address that is none": ([framing.encode_address(address(2, 1, "tcp://a:0"))], "address_malformed"),
    "a stranger's address": ([framing.encode_address(address(7, 1, "tcp://a:1"))], "address_of_a_stranger"),
    "a forged address": ([framing.encode_address(address(1, 9, "tcp://a:1"))], "address_forged"),
    "a byte too long": ([framing.encode_control(bytes(4001))], "control_malformed"),
}


@PORTS
@pytest.mark.parametrize(("frames", "reason"), BAD_CONTROL.values(), ids=BAD_CONTROL)
def test_bad_control_frames_of_a_member_are_counted_and_nothing_else(
    stack: ExitStack, frames: list[bytes], reason: str, listen: Endpoint
) -> None:
    nodes = mesh(stack, limits=framing.Limits(control_bytes=4000, bulk_bytes=4000), listen=listen)
    if len(frames) > 1 and not listen.bulk:
        reason = "bulk_malformed"
    liar = raw_peer(stack, nodes[0], SECRETS[2].transport_secret)
    liar.send_multipart(frames)
    liar.send(framing.encode_control(b"still here"))
    seen = pump(nodes, lambda seen: len(seen[0]) > 0)
    assert controls(seen[0]) == [(2, b"still here")]
    assert nodes[0].counters.dropped == {reason: 1}
    assert nodes[0].greeted == {1}


def test_a_wrong_version_or_run_is_remembered_in_words(stack: ExitStack) -> None:
    node = start(stack, 0)
    for me, frame in ((1, b"\x02\x63x"), (2, framing.encode_greeting(framing.Greeting("older", TOKEN)))):
        raw_peer(stack, node, SECRETS[me].transport_secret).send(frame)
    pump([node], lambda _: len(node.refusals) == 2)
    assert f"wire version 99 and we speak {WIRE_VERSION}" in node.refusals[1]
    assert node.refusals[2] == "it belongs to run 'older' and we to 'run'"


def test_a_member_that_keeps_moving_keeps_nobody_busy(stack: ExitStack) -> None:
    """One record of it is kept, the newest; it is dialled at most once in a pause, which here is for ever."""
    patient = start(stack, 0, resolver=Resolver(pauses_s=(FOR_EVER_S, FOR_EVER_S)))
    patient.connect({2: Endpoint("tcp://127.0.0.1:1", "tcp://127.0.0.1:1")})
    liar = raw_peer(stack, patient, SECRETS[2].transport_secret)
    for number in range(1, 301):
        liar.send(framing.encode_address(address(2, number, f"tcp://127.0.0.1:{number}")))
    liar.send(framing.encode_control(b"the end"))
    seen = pump([patient], lambda seen: len(seen[0]) > 0)
    assert controls(seen[0]) == [(2, b"the end")]
    assert patient.counters.received_messages[2, "address"] == 300
    assert patient.counters.sent_messages[2, "probe"] <= 1
    assert patient.counters.sent_messages[2, "greeting"] <= 2
    assert patient.counters.sent_messages[2, "address"] == 0, "nobody is shown its own record"


@pytest.mark.parametrize(
    ("listen", "frames"),
    [(ANYWHERE, [1_000_000]), (ONE_PORT, [1_000_000]), (ONE_PORT, [50, 1_000_000])],
    ids=["two ports", "one port", "a tensor in one piece"],
)
def test_a_frame_beyond_the_limit_ends_its_connection_unread(
    stack: ExitStack, listen: Endpoint, frames: list[int]
) -> None:
    nodes = mesh(stack, limits=framing.Limits(control_bytes=1000), listen=listen)
    liar = raw_peer(stack, nodes[0], SECRETS[2].transport_secret)
    liar.send_multipart([bytes(size) for size in frames])
    # libzmq reconnects the liar, which loses what it had sent; the later message shows that the node lives on.
    end = monotonic() + WATCHDOG_S
    heard: list[tuple[int, bytes]] = []
    while not heard:
        assert monotonic() < end
        liar.send(framing.encode_control(b"small"))
        heard += controls(nodes[0].poll(0.01))
    assert set(heard) == {(2, b"small")}
    assert not nodes[0].counters.dropped


def test_who_has_proved_no_key_is_not_let_announce_a_tensor(stack: ExitStack) -> None:
    """At the one port a frame of the handshake is no longer than a control message or a piece may be: who announces a
    longer one is cut off at once, while an older connection that announced as much as it may is still waited for."""
    (node,) = mesh(stack, peers=1, limits=framing.Limits(control_bytes=1000, bulk_bytes=1 << 30), listen=ONE_PORT)
    _, port = node.bound.control.rsplit(":", 1)
    lines = []
    for announced in (PIECE_BYTES, 2 * PIECE_BYTES):
        line = stack.enter_context(tcp.create_connection(("127.0.0.1", int(port)), WATCHDOG_S))
        line.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32))
        line.sendall(b"\x06" + struct.pack(">Q", announced) + bytes(100))
        lines.append(line)
    with suppress(ConnectionResetError):
        while lines[1].recv(1000):
            continue
    lines[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        while lines[0].recv(1000):
            continue


def test_a_crowd_of_strangers_at_the_one_port_is_shed_and_members_go_on(stack: ExitStack) -> None:
    """Idle ones, ones that speak no ZeroMQ, and ones with a key of nobody; all come from the members' own address."""
    nodes = mesh(stack, listen=ONE_PORT)
    _, port = nodes[0].bound.control.rsplit(":", 1)
    crowd = [stack.enter_context(tcp.create_connection(("127.0.0.1", int(port)), WATCHDOG_S)) for _ in range(200)]
    for line in crowd[::2]:
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")
    for _ in range(5):
        raw_peer(stack, nodes[0], zmq.curve_keypair()[1].decode()).send(b"hello")
    said = 0

    def talk(seen: list[list[Arrival]]) -> bool:
        nonlocal said
        if len(seen[0]) == 2 * said:
            nodes[1].send_control(0, b"%d" % said)
            nodes[1].send_bulk(0, KEY, torch.full((50_000,), float(said)))
            said += 1
        dropped = nodes[0].counters.dropped
        return said > 20 and dropped["connection_closed"] >= 40 and dropped["stranger"] >= 5

    seen = pump(nodes, talk)[0]
    assert [int(word) for _, word in controls(seen)] == list(range(len(controls(seen))))
    assert {*nodes[0].counters.dropped} == {"connection_closed", "stranger"}


def header(token: bytes = TOKEN, key: BulkKey = KEY) -> bytes:
    return framing.encode_bulk_header(token, key)


BAD_BULK = {
    "garbage header": ([b"\xc1\xc1", bytes(8)], "bulk_malformed"),
    "empty header": ([b"", bytes(8)], "bulk_malformed"),
    "long header": ([bytes(500), bytes(8)], "bulk_malformed"),
    "one frame": ([header()], "bulk_malformed"),
    "three frames": ([header(), bytes(8), bytes(8)], "bulk_malformed"),
    "half a float": ([header(), bytes(6)], "bulk_malformed"),
    "negative step": ([header(key=BulkKey(-1, 0, BulkKind.PART, 1, 2)), bytes(8)], "bulk_malformed"),
    "huge part": ([header(key=BulkKey(1, 0, BulkKind.PART, 1, 2**31)), bytes(8)], "bulk_malformed"),
    "unknown token": ([header(bytes(32)), bytes(8)], "bulk_unknown_token"),
    "not expected": ([header(), bytes(12)], "bulk_unexpected"),
    "too large": ([header(), bytes(2004)], "bulk_unexpected"),
}


@PORTS
@pytest.mark.parametrize(("frames", "reason"), BAD_BULK.values(), ids=BAD_BULK)
def test_bad_bulk_is_counted_and_nothing_else(
    stack: ExitStack, frames: list[bytes], reason: str, listen: Endpoint
) -> None:
    nodes = mesh(stack, limits=framing.Limits(bulk_bytes=2000), listen=listen)
    if len(frames) == 1 and not listen.bulk:
        reason = "control_malformed"
    nodes[0].accept_bulk = lambda via, key, size_bytes: size_bytes != 12
    member = raw_peer(stack, nodes[0], SECRETS[2].transport_secret)
    member.send(framing.encode_greeting(framing.Greeting("run", TOKEN)))
    pump(nodes, lambda _: nodes[0].greeted == {1, 2})
    bulk = raw_bulk(stack, nodes[0]) if listen.bulk else raw_peer(stack, nodes[0], SECRETS[2].transport_secret)
    bulk.send_multipart(frames)
    bulk.send_multipart([header(), bytes(8)])
    (arrival,) = pump(nodes, lambda seen: len(seen[0]) > 0)[0]
    assert isinstance(arrival, BulkArrival)
    assert (arrival.via, arrival.tensor.tolist()) == (2, [0.0, 0.0])
    assert nodes[0].counters.dropped == {reason: 1}


def test_a_token_belongs_to_whoever_brought_it_first(stack: ExitStack) -> None:
    node = start(stack, 0)
    greeting = framing.encode_greeting(framing.Greeting("run", TOKEN))
    for me in (1, 2):
        raw_peer(stack, node, SECRETS[me].transport_secret).send(greeting)
        pump([node], lambda _: bool(node.greeted))
    pump([node], lambda _: node.counters.dropped["greeting_with_a_foreign_token"] == 1)
    assert node.greeted == {1}


@pytest.mark.parametrize("options", [{"encrypt_bulk": True}, {"listen": ONE_PORT}], ids=["two ports", "one port"])
def test_encrypted_bulk_takes_a_token_from_its_owner_only(stack: ExitStack, options: dict[str, Any]) -> None:
    node, other = start(stack, 0, **options), start(stack, 1, **options)
    raw_peer(stack, node, SECRETS[2].transport_secret).send(framing.encode_greeting(framing.Greeting("run", TOKEN)))
    pump([node], lambda _: node.greeted == {2})
    other._tokens._to[0] = TOKEN  # peer 1 has stolen the token that peer 2 shares with peer 0
    other.connect({0: node.bound})
    other.send_bulk(0, KEY, torch.zeros(4))
    pump([node, other], lambda _: node.counters.dropped["bulk_foreign_token"] == 1)
    assert node.counters.refused[1, "bulk_foreign_token"] == 1


@PORTS
def test_bytes_that_are_not_zeromq_disturb_nobody(stack: ExitStack, listen: Endpoint) -> None:
    nodes = mesh(stack, listen=listen)
    for endpoint in nodes[0].bound.urls:
        scanner = tcp.create_connection(("127.0.0.1", int(endpoint.rsplit(":", 1)[1])))
        stack.callback(scanner.close)
        scanner.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(10_000))
    nodes[1].send_control(0, b"honest")
    assert controls(pump(nodes, lambda seen: len(seen[0]) > 0)[0]) == [(1, b"honest")]
