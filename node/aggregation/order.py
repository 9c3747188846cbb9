"""Coordinate-wise order by a sorting network: exact, branch-free and the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Comparator:
    """Puts the smaller of two wires on `low`, the larger on `high`; a half that nobody reads is left out."""

    low: int
    high: int
    keep_low: bool
    keep_high: bool


def ordered(block_NB: Tensor, first: int, stop: int) -> list[Tensor]:
    """Places `first` to `stop - 1` of every column in ascending order, each as a `[B]` tensor (not to be changed).

    Args:
        block_NB: float32 `[N, B]`, finite.

    Source: K. E. Batcher's merge exchange, as Knuth, TAOCP vol. 3, 5.2.2 M, pruned to what is read.
    """
    wires: list[Tensor] = list(block_NB)
    for step in _selection_network(len(wires), first, stop):
        low, high = wires[step.low], wires[step.high]
        if step.keep_low:
            wires[step.low] = torch.minimum(low, high)
        if step.keep_high:
            wires[step.high] = torch.maximum(low, high)
    return wires[first:stop]


def middle(block_NB: Tensor) -> Tensor:
    """Median of every column; for even N the average of the two middle values, rounded once.

    Args:
        block_NB: float32 `[N, B]`, finite.

    Returns:
        float32 `[B]`, a fresh tensor.
    """
    count = block_NB.shape[0]
    return median_of(ordered(block_NB, (count - 1) // 2, count // 2 + 1))


def median_of(middle_wires: list[Tensor]) -> Tensor:
    """The median from the middle one or two places, a fresh tensor."""
    if len(middle_wires) == 1:
        return middle_wires[0].clone()
    # Halving first cannot overflow and is exact for all but subnormal numbers.
    return (middle_wires[0] * 0.5).add_(middle_wires[1] * 0.5)


@cache
def comparators(count: int) -> tuple[tuple[int, int], ...]:
    """The (low, high) wires of the network that brings the middle values of `count` to the middle wires."""
    return tuple((step.low, step.high) for step in _selection_network(count, (count - 1) // 2, count // 2 + 1))


@cache
def _selection_network(count: int, first: int, stop: int) -> tuple[Comparator, ...]:
    """The comparators that bring places `first` to `stop - 1` of `count` values to their wires."""
    wanted = set(range(first, stop))
    kept: list[Comparator] = []
    for low, high in reversed(_sorting_network(count)):
        keep_low, keep_high = low in wanted, high in wanted
        if keep_low or keep_high:
            kept.append(Comparator(low, high, keep_low, keep_high))
            wanted |= {low, high}
    return tuple(reversed(kept))


def _sorting_network(count: int) -> list[tuple[int, int]]:
    """Batcher's merge exchange for any `count`, as pairs (wire of the smaller, wire of the larger)."""
    pairs: list[tuple[int, int]] = []
    top = 1 << max(count - 1, 0).bit_length() - 1 if count > 1 else 0
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(count - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    return pairs
