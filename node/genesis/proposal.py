"""A proposal: one peer's public keys and address, signed by itself, for whoever assembles a genesis."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import msgspec
from zmq.utils import z85

from btard.node.config import WIRE_VERSION, Endpoint, Secrets
from btard.node.crypto import keys
from btard.node.crypto.signing import Signer, verify
from btard.node.errors import ConfigError
from btard.node.protocol.wire.encoding import digest

PROPOSAL_BYTES = 1000
"""Largest proposal."""
_KEY, _SIGNATURE = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{128}")
_PREFIX = b"btard/1/proposal\x00"
_URL = re.compile(r"tcp://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a peer wants to be known by.

    Args:
        wire_version: that it speaks.
        signing_key: Ed25519, 64 hex digits.
        transport_key: CURVE, 40 characters of Z85.
        control, bulk: where others reach it, `tcp://HOST:PORT`; the second empty where it has but one port.
        signature: by the signing key over all of them, 128 hex digits.
    """

    wire_version: int
    signing_key: str
    transport_key: str
    control: str
    bulk: str
    signature: str

    @property
    def address(self) -> Endpoint:
        """Where others reach the peer."""
        return Endpoint(self.control, self.bulk)

    def problem(self) -> str | None:
        """What is wrong with it; None: its owner signed it, and this release can take part with it."""
        if self.wire_version != WIRE_VERSION:
            return f"it speaks wire version {self.wire_version}, this release {WIRE_VERSION}; install the same release"
        again = "ask its owner to propose again"
        # One way to write each key, or two members could have the same one.
        if not (_KEY.fullmatch(self.signing_key) and _SIGNATURE.fullmatch(self.signature)):
            return f"its signing key or signature is no lower-case hexadecimal of its length; {again}"
        if not is_transport_key(self.transport_key):
            return f"its transport key is no CURVE key; {again}"
        if not are_addresses(self.address.urls):
            named = ", ".join(repr(url[:80]) for url in self.address.urls)
            return f"its address is {named} in place of one tcp://HOST:PORT or two different ones; {again}"
        if not verify(bytes.fromhex(self.signing_key), _signed(self), bytes.fromhex(self.signature)):
            return f"its signature is not valid for what it says; {again}"
        return None


def propose(secret: Secrets, address: Endpoint) -> Proposal:
    """The proposal of whoever holds `secret`, to be reached at `address`."""
    member = keys.public_identity(0, secret)
    unsigned = Proposal(WIRE_VERSION, member.signing_key, member.transport_key, address.control, address.bulk, "")
    signature = Signer(bytes.fromhex(secret.signing_seed)).sign(_signed(unsigned))
    return msgspec.structs.replace(unsigned, signature=signature.hex())


def decode_proposal(data: bytes, name: str) -> Proposal:
    """Read a proposal and check its signature.

    Args:
        data: JSON.
        name: of the file, for messages.

    Raises:
        ConfigError: it is none, or not its owner's.
    """
    if len(data) > PROPOSAL_BYTES:
        raise ConfigError(f"{name} is no proposal: it has more than {PROPOSAL_BYTES} bytes")
    try:
        proposal = msgspec.json.decode(data, type=Proposal)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no proposal ({error}); `btard-node propose` makes one") from error
    if problem := proposal.problem():
        raise ConfigError(f"{name}: {problem}")
    return proposal


def endpoint(text: str, option: str) -> Endpoint:
    """The address in `tcp://HOST:PORT`, or both in `tcp://HOST:PORT,tcp://HOST:PORT`: control, then bulk; the same one
    twice is one.

    Raises:
        ConfigError: it is written otherwise; `option` names it in the message.
    """
    urls = text.split(",")
    if len(urls) == 2 and urls[0] == urls[1]:
        urls.pop()
    if not are_addresses(urls):
        raise ConfigError(
            f"{option} {text!r} is not one address, nor two; write tcp://HOST:7400, or tcp://HOST:7400,tcp://HOST:7401"
        )
    return Endpoint(*urls)


def are_addresses(urls: Sequence[str]) -> bool:
    """True for one, or for two different ones, of control and bulk socket."""
    ports = [int(match[1]) for url in urls if (match := _URL.fullmatch(url))]
    return 0 < len(set(urls)) == len(urls) == len(ports) <= 2 and all(0 < port < 65536 for port in ports)


def is_transport_key(text: str) -> bool:
    """True for a CURVE key in Z85, written the one way that there is."""
    try:
        return len(text) == 40 and z85.encode(z85.decode(text.encode())).decode() == text
    except (ValueError, KeyError, struct.error):
        return False


def _signed(proposal: Proposal) -> bytes:
    """What the signature covers: every other field."""
    fields = (getattr(proposal, name) for name in proposal.__struct_fields__ if name != "signature")
    return _PREFIX + digest("proposal", *(str(value).encode() for value in fields))
