"""Ed25519 signatures: one signer, one strict verifier."""

from __future__ import annotations

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from btard.node.errors import LocalProtocolError

PUBLIC_KEY_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64
_REMEMBERED = 8
"""Signatures of one's own that are kept: a message comes back before two more phases are over."""


class Signer:
    """One peer's signing key.

    Args:
        seed: the 32-byte secret seed of RFC 8032.

    Raises:
        LocalProtocolError: the seed has another length.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"an Ed25519 seed has {SEED_BYTES} bytes, not {len(seed)}; generate keys anew")
        self.public, self._secret = crypto_sign_seed_keypair(seed)
        self._made: dict[bytes, bytes] = {}

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of `message`; the same message always gets the same one."""
        made = crypto_sign(message, self._secret)[:SIGNATURE_BYTES]
        while len(self._made) >= _REMEMBERED:
            del self._made[next(iter(self._made))]
        self._made[message] = made
        return made

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """As `verify`; what was signed here a moment ago, and comes back as one's own message does, is looked up."""
        if public == self.public and self._made.get(message) == signature:
            return True
        return verify(public, message, signature)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """True if `signature` is valid for `message` under `public`; never raises on bytes from a peer.

    Strict, as libsodium is: a scalar S beyond the group order, a non-canonical key and keys or R of small order are
    refused. A lax verifier anywhere would let peers disagree on whether a message is signed at all.

    Source: RFC 8032, section 5.1.7.
    """
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except CryptoError:
        return False
    return True
