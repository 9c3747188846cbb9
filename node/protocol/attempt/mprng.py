"""Shared randomness by commit and reveal, and everything that is drawn from it.

Source: Gorbunov et al. 2021, appendix A.2 (MPRNG, multi-party random number generator), with the reveal after every
gradient and every aggregate is fixed, so that neither can be chosen with r in hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from btard.node.protocol.wire.encoding import DIGEST_BYTES, digest, expand, number

_INT16_SCALE = 1.0 / math.sqrt((2.0**32 - 1.0) / 12.0)
"""Reciprocal of the standard deviation of a uniform 16-bit integer (variance (2^32 - 1) / 12)."""


@dataclass(frozen=True, slots=True)
class Share:
    """One peer's contribution to the randomness of an attempt: `x`, blinded by `salt` until REVEAL."""

    x: bytes
    salt: bytes


def share(secret_seed: bytes, step: int, attempt: int) -> Share:
    """The share of a peer: a function of its secret seed, so that a run with the same secrets repeats exactly."""
    both = digest("share", secret_seed, number(step), number(attempt))
    return Share(digest("share x", both), digest("share salt", both))


def commitment(run: bytes, step: int, attempt: int, peer: int, opened: Share) -> bytes:
    """What COMMIT carries: `H(run, step, attempt, id, x, salt)`. Naming the peer makes a copy useless."""
    return digest("randomness", run, number(step), number(attempt), number(peer), opened.x, opened.salt)


def opens(commitment_: bytes, run: bytes, step: int, attempt: int, peer: int, opened: Share) -> bool:
    """True if `opened` is what `commitment_` committed to."""
    well_formed = len(opened.x) == DIGEST_BYTES and len(opened.salt) == DIGEST_BYTES
    return well_formed and commitment(run, step, attempt, peer, opened) == commitment_


def combine(step: int, attempt: int, xs: Sequence[bytes]) -> bytes:
    """`r = H(all x)`, in roster order; the run's name stays out of it, so that equal secrets repeat a run."""
    return digest("r", number(step), number(attempt), *xs)


def batch_seed(data_seed: int, previous_r: bytes, step: int, peer: int, shards: bool = False) -> bytes:
    """`xi_i = H("batch", data seed, r of the step before, step, id)`: everything random in one gradient; where
    each peer has a shard of the data, its id follows in two bytes, little-endian."""
    xi = digest("batch", number(data_seed), previous_r, number(step), number(peer))
    return xi + peer.to_bytes(2, "little") if shards else xi


def projection(r: bytes, length: int) -> Tensor:
    """The random direction z of the checksums.

    Args:
        r: the step's randomness.
        length: entries of the largest part; every part uses a prefix.

    Returns:
        `[length]` float32 with zero mean (up to 2^-17) and unit variance: uniform 16-bit integers from the
        BLAKE3 output of r. Not +-1: the sparse error (e, -e) would then pass with probability one half.
    """
    raw = bytearray(expand("z", r, 2 * length))
    integers = torch.frombuffer(raw, dtype=torch.int16) if length else torch.empty(0, dtype=torch.int16)
    return integers.to(torch.float32).mul_(_INT16_SCALE)


def permutation(r: bytes, items: Sequence[int]) -> tuple[int, ...]:
    """A uniformly random order of `items`: sorted by a 256-bit digest each, so that no modulus biases it."""
    return tuple(sorted(items, key=lambda item: digest("permutation", r, number(item))))


def happens(r: bytes, domain: str, item: int, probability: float) -> bool:
    """A coin that lands true with `probability`, one per (r, domain, item); 64 bits of resolution."""
    if probability >= 1.0:
        return True
    drawn = int.from_bytes(digest("coin " + domain, r, number(item))[:8], "little")
    return drawn < int(probability * 2.0**64)
