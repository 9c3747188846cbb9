"""A portable gradient of mnist_cnn against torch's: `python -m tests.portable.speed [PAIRS]`.

Both run alternately in one process on one thread; the figure is the ratio of CPU times within a pair. Nothing is gated.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from btard.node.kernels import portable
from btard.node.training.models import lenet
from tests.portable.digests import inputs

BATCH = 256


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of one call."""
    began_s = time.process_time()
    work()
    return 1000 * (time.process_time() - began_s)


def main(pairs: int) -> None:
    """Print the medians and the median ratio with its range."""
    torch.set_num_threads(1)
    x, images, targets, channels, hidden = inputs(BATCH)
    kept = lenet.Dropout(channels, hidden)
    for width in portable.widths():
        ours = partial(portable.lenet_gradient, x, images, targets, channels, hidden, width)
        pairs_ms = [(cpu_ms(ours), cpu_ms(partial(lenet.gradient, x, images, targets, kept))) for _ in range(pairs)]
        ratios = sorted(mine_ms / its_ms for mine_ms, its_ms in pairs_ms)
        mine_ms, its_ms = (statistics.median(each) for each in zip(*pairs_ms, strict=True))
        print(
            f"vectors of {width}: {mine_ms:.1f} ms, torch {its_ms:.1f} ms; ratio {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}), {pairs} pairs"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
