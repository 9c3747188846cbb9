"""The one place that hashes: domain-separated BLAKE3 over canonical bytes and over tensors."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:  # message types must not cost an import of torch: `btard-launch attacks` reads them
    from torch import Tensor

DIGEST_BYTES = 32
_length = struct.Struct("<Q").pack


def digest(domain: str, *fields: bytes) -> bytes:
    """32-byte BLAKE3 of length-prefixed fields under a domain tag, so that no two inputs share a preimage."""
    framed = [_tag(domain)]
    for field in fields:
        framed += (_length(len(field)), field)
    return blake3(b"".join(framed)).digest()  # in one piece, since hashing costs more by the call


def expand(domain: str, seed: bytes, length: int) -> bytes:
    """`length` bytes of the BLAKE3 extendable output of (domain, seed); a prefix of every longer output."""
    hasher = blake3(struct.pack("<Q", len(domain)) + domain.encode() + seed)
    return hasher.digest(length=length)


def tensor_bytes(values_P: Tensor) -> memoryview:
    """The bytes of a contiguous float32 CPU tensor, without a copy (little-endian hosts only)."""
    if values_P.requires_grad:
        values_P = values_P.detach()
    return values_P.numpy().data.cast("B") if values_P.numel() else memoryview(b"")


def tensor_digest(domain: str, fields: Iterable[bytes], values_P: Tensor) -> bytes:
    """Digest of a tensor bound to the fields that say whose it is, and to its shape."""
    shape = struct.pack(f"<{values_P.dim()}Q", *values_P.shape)
    framed = [_tag(domain)]
    for field in (*fields, shape):
        framed += (_length(len(field)), field)
    hasher = blake3(b"".join(framed))
    hasher.update(tensor_bytes(values_P))
    return hasher.digest()


@lru_cache(maxsize=256)
def _tag(domain: str) -> bytes:
    """A domain after its length; there are as many as the code names."""
    name = domain.encode()
    return _length(len(name)) + name


number: Callable[[int], bytes] = struct.Struct("<q").pack
"""An integer as eight little-endian bytes, for use as a digest field."""
