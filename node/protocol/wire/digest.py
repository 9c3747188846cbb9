"""The one place that hashes: domain-separated BLAKE3 over canonical bytes and over tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:  # message types must not cost an import of torch: `btard-launch attacks` reads them
    from torch import Tensor

DIGEST_BYTES = 32
_LENGTH = struct.Struct("<Q")


def digest(domain: str, *fields: bytes) -> bytes:
    """32-byte BLAKE3 of length-prefixed fields under a domain tag, so that no two inputs share a preimage."""
    return blake3(_framed(domain, *fields)).digest()


def expand(domain: str, seed: bytes, length: int) -> bytes:
    """`length` bytes of the BLAKE3 extendable output of (domain, seed); a prefix of every longer output."""
    hasher = blake3(struct.pack("<Q", len(domain)) + domain.encode() + seed)
    return hasher.digest(length=length)


def tensor_bytes(values_P: Tensor) -> memoryview:
    """The bytes of a contiguous float32 CPU tensor, without a copy (little-endian hosts only)."""
    return values_P.detach().numpy().data.cast("B") if values_P.numel() else memoryview(b"")


def tensor_digest(domain: str, fields: Iterable[bytes], values_P: Tensor) -> bytes:
    """Digest of a tensor bound to the fields that say whose it is, and to its shape."""
    shape = struct.pack(f"<{values_P.dim()}Q", *values_P.shape)
    hasher = blake3(_framed(domain, *fields, shape))
    hasher.update(tensor_bytes(values_P))
    return hasher.digest()


def _framed(domain: str, *fields: bytes) -> bytes:
    """The domain and the fields, each after its length; in one piece, since hashing costs more by the call."""
    return b"".join([_LENGTH.pack(len(field)) + field for field in (domain.encode(), *fields)])


def number(value: int) -> bytes:
    """An integer as eight little-endian bytes, for use as a digest field."""
    return struct.pack("<q", value)
