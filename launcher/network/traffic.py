"""The bytes that a step must move, from the protocol's own formula."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from btard.node.limits import ENTRY_BYTES

FLOAT_BYTES = ENTRY_BYTES["float32"]
HEADER_BYTES = 128
"""What a tensor's header has at most (node/transport/framing.py)."""
SMALL_BYTES = 20 * HEADER_BYTES
"""Parts smaller than this send more than 5 % beyond the formula, which counts tensors alone."""


def step_bytes(
    dimension: int, active: Sequence[int], contributors: Collection[int], entry_bytes: int = FLOAT_BYTES
) -> int:
    """Bulk bytes that all peers together send in one undisputed step.

    A contributor sends every part but the one it aggregates itself; every active aggregator sends its part to the
    `n_active - 1` others. A step without contributors (the last one) moves nothing.

    Args:
        dimension: D, entries of the gradient.
        active: the active roster, in order; the peer in place j aggregates part j.
        contributors: who computed a gradient.
        entry_bytes: of an entry on the wire (`RunConfig.entry_bytes`).

    Source: PROTOCOL section 1, "Cost": `2 d (n-1)/n` floats a step and peer.
    """
    if not contributors:
        return 0
    count = len(active)
    parts = sum(dimension - part_size(dimension, count, active.index(peer)) for peer in contributors)
    return entry_bytes * (parts + dimension * (count - 1))


def part_size(dimension: int, count: int, place: int) -> int:
    """Entries of part `place` of `count` contiguous parts whose sizes differ by at most one."""
    return (place + 1) * dimension // count - place * dimension // count


def run_bytes(dimension: int, peers: int, steps: int, validators: int, entry_bytes: int = FLOAT_BYTES) -> int:
    """Expected bulk bytes of a whole run without bans, with so many idle `validators` in each step but the first.

    Which peers validate is random; sizes of parts differ by at most one, so the first peers stand for all.
    """
    everyone = range(peers)
    first = step_bytes(dimension, everyone, everyone, entry_bytes)
    return first + (steps - 1) * step_bytes(dimension, everyone, everyone[validators:], entry_bytes)


def human(count: float) -> str:
    """Bytes for people: 1.5 MB, decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
