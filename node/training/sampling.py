"""Randomness of a gradient: generators derived from a seed, never the process-wide one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from blake3 import blake3

_seeded = 0


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


@contextmanager
def drawing_from(seed: bytes, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python from `seed`; afterwards they go on where they were."""
    global _seeded
    number = int.from_bytes(blake3(seed, derive_key_context="btard 2025 training module draws").digest(8), "little")
    python, legacy = random.getstate(), np.random.get_state()
    _seeded += 1
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
            _seeded -= 1


def seeded() -> bool:
    """True inside `drawing_from`: what the global generators give repeats."""
    return _seeded > 0
