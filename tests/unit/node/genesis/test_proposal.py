"""Proposals: signed by their owner, small, and refused by the name of their file where they are not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from btard.node.config import WIRE_VERSION, Endpoint
from btard.node.crypto import keys
from btard.node.crypto.signing import Signer
from btard.node.errors import ConfigError
from btard.node.genesis.proposal import PROPOSAL_BYTES, Proposal, decode_proposal, endpoint, propose
from btard.node.protocol.wire.encoding import digest

_, (SECRET, OTHER) = keys.generate(0, 2)
HOST = Endpoint("tcp://host.example:7400", "tcp://host.example:7401")
MINE, THEIRS = propose(SECRET, HOST), propose(OTHER, Endpoint("tcp://10.0.0.2:7400", "tcp://10.0.0.2:7401"))


def encoded(proposal: Proposal, **changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(proposal, **changes))


def test_a_proposal_is_read_back() -> None:
    assert decode_proposal(encoded(MINE), "mine") == MINE
    assert MINE.address == HOST


def test_a_proposal_may_name_one_port() -> None:
    alone = propose(SECRET, Endpoint(HOST.control))
    assert decode_proposal(encoded(alone), "mine").address == Endpoint(HOST.control)


def test_a_proposal_holds_nothing_secret_and_is_small() -> None:
    data = encoded(MINE)
    for secret in msgspec.structs.astuple(SECRET):
        assert secret.encode() not in data
    host = f"tcp://{'h' * 253}:65535"
    longest = msgspec.json.format(encoded(propose(SECRET, Endpoint(host, host[:-1]))), indent=2)
    assert len(data) < len(longest) <= PROPOSAL_BYTES <= 1024


@pytest.mark.parametrize("name", [name for name in Proposal.__struct_fields__ if name != "wire_version"])
def test_a_field_of_another_proposal_is_noticed(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^mine: its signature is not valid for what it says; ask its owner"):
        decode_proposal(encoded(MINE, **{name: getattr(THEIRS, name)}), "mine")


def test_another_version_is_named() -> None:
    with pytest.raises(ConfigError, match=rf"^mine: it speaks wire version {WIRE_VERSION + 1}, this release"):
        decode_proposal(encoded(MINE, wire_version=WIRE_VERSION + 1), "mine")


def signed_anew(**changes: Any) -> Proposal:
    """A proposal as a hostile owner may sign it."""
    changed = msgspec.structs.replace(MINE, **changes)
    fields = (str(getattr(changed, name)).encode() for name in Proposal.__struct_fields__ if name != "signature")
    signature = Signer(bytes.fromhex(SECRET.signing_seed)).sign(b"btard/1/proposal\x00" + digest("proposal", *fields))
    return msgspec.structs.replace(changed, signature=signature.hex())


HOSTILE = {
    "a key written otherwise": ({"signing_key": MINE.signing_key.upper()}, "no lower-case hexadecimal"),
    "a key with blanks": ({"signing_key": f"{MINE.signing_key[:2]} {MINE.signing_key[2:]}"}, "no lower-case hex"),
    "a transport key that is none": ({"transport_key": "#" * 40}, "no CURVE key"),
    "a short transport key": ({"transport_key": MINE.transport_key[:35]}, "no CURVE key"),
    "an address that is none": ({"control": "ipc:///tmp/socket"}, "address"),
    "the same twice": ({"bulk": MINE.control}, "address is .* in place of one tcp://HOST:PORT or two different ones"),
    "no address": ({"control": "", "bulk": ""}, "address is '' in place of one"),
    "a port for tensors alone": ({"control": ""}, "address is '', 'tcp"),
}


@pytest.mark.parametrize(("changes", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_what_its_owner_should_not_have_signed_is_refused(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^mine: its .*{problem}"):
        decode_proposal(msgspec.json.encode(signed_anew(**changes)), "mine")


MALFORMED = {
    "no JSON": b"{",
    "no proposal": b"[]",
    "a field too many": encoded(MINE)[:-1] + b',"id":3}',
    "too large": b" " * PROPOSAL_BYTES + encoded(MINE),
    "nested too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_other_files_are_refused_by_their_name(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^notes.txt is no proposal"):
        decode_proposal(data, "notes.txt")


ADDRESSES = [
    "tcp://h:0",
    "tcp://h:1,",
    "tcp://h:1,tcp://h:1,tcp://h:1",
    "tcp://h:1,tcp://h:0",
    "tcp://h:1,tcp://h:65536",
    "tcp://*:1,tcp://*:2",
    "h:1,h:2",
    "tcp://h:1,tcp://h:2,tcp://h:3",
    "tcp://a b:1,tcp://h:2",
    "",
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses_are_one_or_two(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^--address .* is not one address, nor two; write tcp://HOST:7400, or tcp://"
    ):
        endpoint(text, "--address")


@pytest.mark.parametrize("text", ["tcp://h:1", "tcp://h:1,tcp://h:1"])
def test_one_address_is_one_port_also_where_it_is_written_twice(text: str) -> None:
    assert endpoint(text, "--address") == Endpoint("tcp://h:1")


def test_an_address_may_be_of_ipv6() -> None:
    assert endpoint("tcp://[2001:db8::1]:7400,tcp://h:7401", "--address").control == "tcp://[2001:db8::1]:7400"
