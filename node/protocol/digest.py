"""The one place that hashes: domain-separated BLAKE3 over canonical bytes and over tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:  # message types must not cost an import of torch: `btard-launch attacks` reads them
    from torch import Tensor

DIGEST_BYTES = 32


def digest(domain: str, *fields: bytes) -> bytes:
    """32-byte BLAKE3 of length-prefixed fields under a domain tag, so that no two inputs share a preimage."""
    hasher = blake3()
    for field in (domain.encode(), *fields):
        hasher.update(struct.pack("<Q", len(field)))
        hasher.update(field)
    return hasher.digest()


def expand(domain: str, seed: bytes, length: int) -> bytes:
    """`length` bytes of the BLAKE3 extendable output of (domain, seed); a prefix of every longer output."""
    hasher = blake3(struct.pack("<Q", len(domain)) + domain.encode() + seed)
    return hasher.digest(length=length)


def tensor_bytes(values_P: Tensor) -> memoryview:
    """The bytes of a contiguous float32 CPU tensor, without a copy (little-endian hosts only)."""
    return values_P.detach().numpy().data.cast("B") if values_P.numel() else memoryview(b"")


def tensor_digest(domain: str, fields: Iterable[bytes], values_P: Tensor) -> bytes:
    """Digest of a tensor bound to the fields that say whose it is, and to its shape."""
    hasher = blake3()
    shape = struct.pack(f"<{values_P.dim()}Q", *values_P.shape)
    for field in (domain.encode(), *fields, shape):
        hasher.update(struct.pack("<Q", len(field)))
        hasher.update(field)
    hasher.update(tensor_bytes(values_P))
    return hasher.digest()


def number(value: int) -> bytes:
    """An integer as eight little-endian bytes, for use as a digest field."""
    return struct.pack("<q", value)
