"""A peer that speaks the wire by hand: pyzmq, msgpack, BLAKE3 and Ed25519 alone, nothing of the program it attacks.

What it knows of the format is written down here once more, from docs/spec alone; tests/test_spec.py holds it to the
specification's test vectors, so that a change of the wire shows.
"""

from __future__ import annotations

import os
import socket as tcp
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq
from blake3 import blake3
from nacl.signing import SigningKey

WIRE_VERSION = 7
HELLO, COMMIT, SUSPECT, VIEW, OUTCOME, JOIN = 0, 1, 13, 14, 15, 16
OVERSIZE_BYTES = 4 << 20
ZMTP_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\x00" + bytes(31)
ZMTP_READY = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"


def pack(value: object) -> bytes:
    """MessagePack."""
    return msgspec.msgpack.encode(value)


def hashed(*fields: bytes) -> bytes:
    """BLAKE3 of fields, each after its length."""
    return blake3(b"".join(struct.pack("<Q", len(field)) + field for field in fields)).digest()


@dataclass
class RawPeer:
    """Takes a member's place with its keys.

    Args:
        me: its genesis id.
        run_id: name of the run.
        signing_seed, transport_secret: its own secret keys.
        transport_keys: public CURVE keys of the others.
        claimed: the routing id that its connections claim: somebody else's.
    """

    me: int
    run_id: str
    signing_seed: bytes
    transport_secret: bytes
    transport_keys: Mapping[int, bytes]
    claimed: bytes = b"\x00\x00\x00\x00\x01"
    run: bytes = b""
    roster: bytes = b""
    fingerprint: bytes = b""
    heard: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.key = SigningKey(self.signing_seed)
        self.token = os.urandom(32)
        self.inbox = self._socket(zmq.PULL)
        self.inbox.curve_server = True
        self.inbox.curve_secretkey = self.transport_secret
        self.tensors = self._socket(zmq.PULL)
        self.lines: dict[int, zmq.Socket[bytes]] = {}
        self.spare: dict[int, zmq.Socket[bytes]] = {}
        self.bulk: dict[int, zmq.Socket[bytes]] = {}

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        socket.linger = 0
        return socket

    def connect(self, addresses: Mapping[int, tuple[str, ...]]) -> None:
        """Lines to the others, who have one port or two, and a greeting on each."""
        for peer, (control, *bulk) in addresses.items():
            for lines in (self.lines, self.spare, self.bulk):
                lines[peer] = line = self._socket(zmq.PUSH)
                if lines is self.bulk and bulk:
                    line.connect(*bulk)
                    continue
                line.curve_secretkey = self.transport_secret
                line.curve_publickey = zmq.curve_public(self.transport_secret)
                line.curve_serverkey = self.transport_keys[peer]
                line.routing_id = self.claimed
                line.connect(control)
            self.lines[peer].send(self.greeting(self.token))

    def listen(self) -> None:
        """Take what has come; the first HELLO tells the names of the run and the roster."""
        while self.inbox.poll(0):
            frame, *pieces = self.inbox.recv_multipart()
            if frame[:2] != b"\x01\x00" or pieces:
                continue
            body = msgspec.msgpack.decode(frame[2:])[0]
            if len(self.heard) < 64:
                self.heard.append(frame)
            tag, slot, *rest = msgspec.msgpack.decode(body)
            if tag == "hello":
                self.run, self.roster, self.fingerprint = slot[0], slot[1], rest[2]
        while self.tensors.poll(0):
            self.tensors.recv_multipart()

    def greeting(self, token: bytes) -> bytes:
        """The frame with which a line begins."""
        return bytes((2, WIRE_VERSION)) + pack([self.run_id, token])

    # --- honest words -----------------------------------------------------------------------------------------

    def slot(self, phase: int, step: int = 0, sender: int | None = None) -> list[Any]:
        """[run, roster, step, attempt, phase, sender]."""
        return [self.run, self.roster, step, 0, phase, self.me if sender is None else sender]

    def signed(self, body: Sequence[object]) -> list[bytes]:
        """A body and our signature."""
        data, (tag, slot, prefix, *rest) = pack(body), body
        place = pack([slot, prefix, rest[:2] if tag == "suspect" else None])
        covered = b"btard/2/message\x00" + hashed(b"message", place, hashed(b"body", data))
        return [data, self.key.sign(covered).signature]

    def message(self, body: Sequence[object]) -> bytes:
        """The control frame of a signed message."""
        return b"\x01\x00" + pack(self.signed(body))

    def hello(self) -> bytes:
        """HELLO with the others' own words."""
        return self.message(["hello", self.slot(HELLO), [], self.run, self.fingerprint])

    # --- the arsenal ------------------------------------------------------------------------------------------

    def control_attacks(self) -> Iterator[list[bytes]]:
        """Frames for a control line, one message each, for ever different."""
        view = ["view", self.slot(VIEW), []]
        while True:
            noise = os.urandom(48)
            yield [noise]
            yield [b""]
            yield [b"\x01"]
            yield [b"\x07" + noise]
            yield [b"\x01\x09" + noise]
            yield [self.greeting(os.urandom(32))]
            yield [self.greeting(self.token)]  # again ours: else all of its tensors were a stranger's
            yield [b"\x02\x09" + noise]
            yield [b"\x04" + noise]
            yield [b"\x04" + pack([self.run, self.me, 2**31 - 1, "tcp://127.0.0.1:1", "", noise + noise[:16]])]
            yield [b"\x01\x00" + noise, noise, noise]
            yield [b"\x01\x00" + b"\x91" * 4000]
            yield [b"\x01\x00" + b"\xdd\xff\xff\xff\xff"]
            yield [b"\x01\x00" + pack([b"\x9f" * 1000, noise])]
            yield [self.message(["commit", self.slot(COMMIT, sender=0), [], [], noise[:32]])]
            yield [self.message(["commit", self.slot(COMMIT, step=1), [], [], noise[:32]])]
            yield [self.message(["commit", self.slot(COMMIT, step=2**63), [], [], noise[:32]])]
            yield [b"\x01\x00" + pack([pack(["suspect", self.slot(SUSPECT), [], 1, 2**40]), bytes(64)])]
            yield [self.message(["outcome", self.slot(OUTCOME), [], noise[:32], [[0, "close", None]]])]
            yield [self.message([*view, [[noise, bytes(64)]] * 200])]
            yield [self.message([*view, [self.signed([*view, [[noise, noise]]])]])]
            yield [b"\x01\x01" + pack([self.signed([*view, [[noise, noise]]]), [[0, bytes(64)], [1, bytes(64)]]])]
            yield [b"\x01\x01" + pack([self.signed([*view, []]), [[peer, bytes(64)] for peer in range(500)]])]
            yield [b"\x01\x02" + pack([0, 0, "aggregate", 0, 0])]
            yield [b"\x01\x02" + pack([2**63, -(2**62), "publication", 2**63, -1])]
            yield [b"\x01\x03" + bytes(8)]
            yield [b"\x01\x04" + noise]
            yield [b"\x01\x04" + pack([[[], []], [0, None, [[noise, bytes(64)]] * 50, []]])]
            yield [self.message(["join", self.slot(JOIN, step=1), [], noise[:32]])]
            yield from ([frame] for frame in self.heard)

    def bulk_attacks(self, largest: int) -> Iterator[list[bytes]]:
        """Messages for a bulk line."""
        while True:
            for owner in range(4):
                for token in (os.urandom(32), self.token):
                    for kind in ("part", "aggregate", "publication"):
                        yield [pack([token, [0, 0, kind, owner, 0]]), os.urandom(largest)]
            yield [pack([self.token, [0, 0, "part", self.me, 2**70 % 2**63]]), bytes(3)]
            yield [os.urandom(128), b""]
            yield [b""]
            yield [bytes(1), bytes(1), bytes(1), bytes(1)]
            yield [pack([self.token, [0, 0, "part", self.me, 0]]), bytes(largest), bytes(largest)]

    def oversized(self) -> Iterator[list[bytes]]:
        """Beyond the largest control message: the receiver cuts the connection, and we open it again."""
        while True:
            yield [b"\x01\x00" + bytes(OVERSIZE_BYTES)]

    def suspicions(self) -> Iterator[bytes]:
        """Valid SUSPECTs of everyone in every phase."""
        for named in range(1, 13):
            for peer in self.lines:
                yield self.message(["suspect", self.slot(SUSPECT), [], named, peer])

    def close(self) -> None:
        """End all lines."""
        self.context.destroy(linger=0)


def endless(address: str) -> tcp.socket:
    """A plain ZMTP connection that has shaken hands; its owner sends frames that promise more."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    line = tcp.create_connection((host, int(port)), timeout=10)
    line.sendall(ZMTP_GREETING + ZMTP_READY)
    return line


def more_frame(size: int) -> bytes:
    """One frame of a multi-part message that is not the last."""
    return b"\x03" + struct.pack(">Q", size) + bytes(size)
