"""An approval: a member's signature over the digest of a genesis. A run of several owners begins with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from btard.node.config import Member, RunConfig, Secrets
from btard.node.crypto.signing import Signer, verify
from btard.node.errors import ConfigError
from btard.node.genesis.files import read, write
from btard.node.genesis.genesis import GENESIS_BYTES, Genesis, genesis_digest, genesis_roster
from btard.node.protocol.wire.encoding import digest

APPROVALS = "approvals.json"
"""File of all members' approvals, in a run directory and in each member's own."""
APPROVAL_BYTES = 1000
"""Largest approval."""


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One member's consent to a run: digest of the genesis, signing key and signature, in hex."""

    genesis: str
    signing_key: str
    signature: str


def approve(genesis: Genesis, secret: Secrets) -> Approval:
    """The approval of whoever holds `secret`."""
    signer = Signer(bytes.fromhex(secret.signing_seed))
    signature = signer.sign(_signed(bytes.fromhex(genesis.digest)))
    return Approval(genesis.digest, signer.public.hex(), signature.hex())


def decode_approval(data: bytes, name: str) -> Approval:
    """Read an approval; `name` names its file in a message.

    Raises:
        ConfigError: it is none.
    """
    try:
        if len(data) > APPROVAL_BYTES:
            raise ValueError(f"it has more than {APPROVAL_BYTES} bytes")
        return msgspec.json.decode(data, type=Approval)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no approval ({error}); `btard-node approve` makes one") from error


def _signed(genesis: bytes) -> bytes:
    """What an approval's signature covers."""
    return b"btard/1/approve\x00" + digest("approval", genesis)


class Approvals:
    """The members' approvals of one genesis, as they come in.

    Args:
        run_id, run, members: what the genesis covers.
        path: file in which they are kept, as far as they are there; what is in it is read.

    Raises:
        ConfigError: the file holds something else.
    """

    def __init__(self, run_id: str, run: RunConfig, members: Sequence[Member], path: Path) -> None:
        self.digest = genesis_digest(run_id, run, members)
        self.signatures: dict[int, bytes] = {}
        self._signed = _signed(self.digest)
        self._keys = genesis_roster(members).keys
        self._path = path
        data = read(path, GENESIS_BYTES)
        try:
            kept = msgspec.json.decode(data, type=list[Approval]) if data is not None else []
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} holds no approvals ({error}); remove it, and approve again") from error
        for approval in kept:
            self.add(approval, str(path))

    @property
    def missing(self) -> frozenset[int]:
        """Members whose approval is not here."""
        return frozenset(range(len(self._keys))) - self.signatures.keys()

    def add(self, approval: Approval, name: str) -> None:
        """Take an approval from a file, `name` in messages.

        Raises:
            ConfigError: it is of another genesis, of no member, or not signed by it.
        """
        if approval.genesis != self.digest.hex():
            raise ConfigError(
                f"{name} approves genesis {approval.genesis[:16]}, this one is {self.digest.hex()[:16]}; "
                "each run has approvals of its own"
            )
        peers = {key.hex(): peer for peer, key in enumerate(self._keys)}
        if (peer := peers.get(approval.signing_key)) is None:
            raise ConfigError(f"{name} is of no member of the run: its key is {approval.signing_key[:16]}")
        try:
            signature = bytes.fromhex(approval.signature)
        except ValueError:
            signature = b""
        if self.take(peer, signature) is None:
            raise ConfigError(f"{name}: the signature of peer {peer} is not valid; ask its owner to approve again")

    def take(self, peer: int, signature: bytes) -> bool | None:
        """Take a member's signature: True if it is new, False if it was here, None if it is not valid."""
        if self.signatures.get(peer) == signature:
            return False
        if not 0 <= peer < len(self._keys) or not verify(self._keys[peer], self._signed, signature):
            return None
        self.signatures[peer] = signature
        return True

    def keep(self) -> None:
        """Write them down, for a later start and for whoever verifies the run.

        Raises:
            BackendError: the file cannot be written.
        """
        listed = [
            Approval(self.digest.hex(), self._keys[peer].hex(), signature.hex())
            for peer, signature in sorted(self.signatures.items())
        ]
        write(self._path, listed)


def approvals_of(genesis: Genesis, directory: Path) -> Approvals:
    """The approvals of a genesis that are kept in a directory; errors as for `Approvals`."""
    return Approvals(genesis.run_id, genesis.run, genesis.members, directory / APPROVALS)
