"""An application to a run that goes on: a founder vouches for a key, and its owner asks for a free id."""

from __future__ import annotations

from msgspec import structs

from btard.node.config import Endpoint, Member, Secrets
from btard.node.crypto.keys import public_identity
from btard.node.crypto.signing import Signer
from btard.node.protocol.state_sync.admission import application_bytes, sponsorship_bytes
from btard.node.protocol.wire.messages import Application

Sponsor = tuple[int, bytes]
"""A founder's id and its signature for a key."""


def sponsorship(run: bytes, founder: int, secret: Secrets, candidate: Member) -> Sponsor:
    """A founder's word for a candidate.

    Args:
        run: digest of the genesis.
        founder: whose word it is.
        secret: the founder's.
        candidate: its public keys; its id does not matter.
    """
    signer = Signer(bytes.fromhex(secret.signing_seed))
    key = bytes.fromhex(candidate.signing_key)
    return founder, signer.sign(sponsorship_bytes(run, key, candidate.transport_key))


def apply(
    run: bytes, peer: int, secret: Secrets, address: Endpoint, sponsor: Sponsor | None, number: int = 0
) -> Application:
    """The application of whoever holds `secret`.

    Args:
        run: digest of the genesis.
        peer: the free id that it asks for.
        secret: the candidate's.
        address: where it is reached.
        sponsor: who vouches for it; None where the roster is open to anybody.
        number: how often this key has applied before.
    """
    member = public_identity(peer, secret)
    founder, vouched = sponsor if sponsor is not None else (None, b"")
    key, (control, bulk) = bytes.fromhex(member.signing_key), (address.control, address.bulk)
    unsigned = Application(peer, number, key, member.transport_key, control, bulk, founder, vouched, b"")
    signature = Signer(bytes.fromhex(secret.signing_seed)).sign(application_bytes(run, unsigned))
    return structs.replace(unsigned, signature=signature)
