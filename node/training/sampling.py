"""Randomness of a gradient: generators derived from a seed, never the process-wide one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

XI_BYTES = 32
"""Of a batch's seed; a peer's id may follow, whose shard the batch comes from."""

_seeded = 0


class Shards:
    """The training examples that batches are drawn from.

    Args:
        size: how many there are.
        places: those of each peer, int64 `[P]`; empty: everybody draws from all.
    """

    def __init__(self, size: int, places: Sequence[Tensor] = ()) -> None:
        self.size, self.places = size, tuple(places)

    def draw(self, seed: bytes, count: int, generator: torch.Generator) -> Tensor:
        """Places of a batch, int64 `[count]`, with replacement; from all where the seed names no peer."""
        owner = seed[XI_BYTES:]
        if not self.places or not owner:
            return torch.randint(self.size, (count,), generator=generator)
        shard = self.places[int.from_bytes(owner, "little")]
        return shard[torch.randint(len(shard), (count,), generator=generator)]


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
