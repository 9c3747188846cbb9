"""CenteredClip against fifty plain torch iterations, six rows of a million: `python -m tests.clip_speed [PAIRS]`.

Both run alternately in one process on one thread; the figure is the ratio of CPU times within a pair. Nothing is gated.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from btard.node.aggregation import centered_clip

PEERS, DIMENSION, ITERATIONS, RADIUS = 6, 1_000_000, 50, 5.0


def plain(rows_NP: torch.Tensor) -> torch.Tensor:
    """The iteration of Karimireddy et al. 2021 as one writes it down: v += mean of the clipped differences."""
    value_P = torch.zeros(rows_NP.shape[1])
    for _ in range(ITERATIONS):
        differences_NP = rows_NP - value_P
        weights_N = (RADIUS / differences_NP.norm(dim=1)).clamp(max=1.0)
        value_P = value_P + (weights_N[:, None] * differences_NP).mean(0)
    return value_P


def cpu_ms(work: Callable[[torch.Tensor], torch.Tensor], rows_NP: torch.Tensor) -> float:
    """CPU milliseconds of one call."""
    began_s = time.process_time()
    work(rows_NP)
    return 1000 * (time.process_time() - began_s)


def main(pairs: int) -> None:
    """Print the medians and the ratio with its range."""
    torch.set_num_threads(1)
    rows_NP = torch.randn(PEERS, DIMENSION, generator=torch.Generator().manual_seed(0)) * 0.01
    found = []
    for pair in range(-1, pairs):
        order = (centered_clip, plain) if pair % 2 else (plain, centered_clip)
        took = {work: cpu_ms(work, rows_NP) for work in order}
        found += [(took[centered_clip], took[plain])] if pair >= 0 else []  # the first compiles and settles memory
    ratios = [theirs / ours for ours, theirs in found]
    ours, theirs = (statistics.median(each) for each in zip(*found, strict=True))
    print(f"centered_clip {ours:.1f} ms, {ITERATIONS} plain iterations {theirs:.0f} ms, "
          f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}), {pairs} pairs")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
