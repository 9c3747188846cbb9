"""Randomness of a gradient: generators derived from a seed, never the process-wide one."""

from __future__ import annotations

import torch
from blake3 import blake3


def generator_from(seed: bytes, purpose: str) -> torch.Generator:
    """A CPU generator that depends on `(seed, purpose)` alone; two purposes give unrelated streams.

    Torch's Mersenne Twister takes 32 bits of a seed: enough here, since the seeds are themselves outputs of a hash
    that no peer can steer, so two equal batches in one run are a coincidence without consequence.
    """
    digest = blake3(seed, derive_key_context=f"btard 2025 training {purpose}").digest(length=4)
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little"))
    return generator


def generator_from_int(seed: int, purpose: str) -> torch.Generator:
    """`generator_from` for an integer seed that a user chose."""
    return generator_from(str(seed).encode(), purpose)
