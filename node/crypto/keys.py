"""A peer's keys: fresh ones, those that a seed determines, and the file that they are kept in."""

from __future__ import annotations

import contextlib
import os
import secrets as system_random
from pathlib import Path

import msgspec
import zmq
from blake3 import blake3
from zmq.utils import z85

from btard.node.config import Member, Secrets
from btard.node.crypto.signing import Signer
from btard.node.errors import BackendError, ConfigError


def fresh() -> Secrets:
    """A peer's keys, from the system's random numbers."""
    return _secrets(system_random.token_bytes(32), 0)


def generate(protocol_seed: int, peers: int) -> tuple[tuple[Member, ...], tuple[Secrets, ...]]:
    """The identities of peers 0 .. `peers - 1` that a seed determines: what all may know, and what each keeps secret.

    Args:
        protocol_seed: repeats a run exactly, its randomness included. Whoever knows it knows every secret, so it
            is for experiments under one hand.
        peers: how many.

    Raises:
        ConfigError: the seed does not fit into 128 bits.
    """
    try:
        root = protocol_seed.to_bytes(16, "little", signed=True)
    except OverflowError as error:
        raise ConfigError(f"--protocol-seed {protocol_seed} does not fit into 128 bits; use a smaller one") from error
    secrets = tuple(_secrets(root, peer) for peer in range(peers))
    return tuple(public_identity(peer, secret) for peer, secret in enumerate(secrets)), secrets


def public_identity(peer: int, secret: Secrets) -> Member:
    """The genesis entry that belongs to `secret`."""
    return Member(
        id=peer,
        signing_key=Signer(bytes.fromhex(secret.signing_seed)).public.hex(),
        transport_key=zmq.curve_public(secret.transport_secret.encode()).decode(),
    )


def write(path: Path, secret: Secrets) -> None:
    """Store one node's secrets, readable by its owner alone; a crash leaves the old file or the new one.

    Raises:
        BackendError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        # The mode is set at creation: a chmod afterwards would leave an instant in which anyone can read.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(secret))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise BackendError(f"cannot write the key file {path}: {error.strerror}; check the run directory") from error


def load(path: Path) -> Secrets:
    """Read one node's secrets.

    Raises:
        ConfigError: the file is missing or does not hold three keys of the right length.
    """
    try:
        secret = msgspec.json.decode(path.read_bytes(), type=Secrets)
        lengths = (
            len(bytes.fromhex(secret.signing_seed)),
            len(z85.decode(secret.transport_secret.encode())),
            len(bytes.fromhex(secret.randomness_seed)),
        )
    except OSError as error:
        raise ConfigError(f"cannot read the key file {path}: {error.strerror}; start the run anew") from error
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is not a key file ({error}); start the run anew") from error
    if lengths != (32, 32, 32):
        raise ConfigError(f"{path} holds keys of {lengths} bytes instead of 32 each; start the run anew")
    return secret


def _secrets(root: bytes, peer: int) -> Secrets:
    return Secrets(
        signing_seed=_derive("signing", root, peer).hex(),
        transport_secret=z85.encode(_derive("transport", root, peer)).decode(),
        randomness_seed=_derive("randomness", root, peer).hex(),
    )


def _derive(purpose: str, root: bytes, peer: int) -> bytes:
    """32 secret bytes; different purposes and peers give independent ones."""
    return blake3(root + peer.to_bytes(8, "little"), derive_key_context=f"btard 1 keys: {purpose}").digest()
