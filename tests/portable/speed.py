"""Portable gradients against torch's: `python -m tests.portable.speed [PAIRS]`.

Both run alternately in one process on one thread; the figure is the ratio of CPU times within a pair. Nothing is gated.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from functools import partial

import torch

from btard.node.kernels import portable
from btard.node.training.models import lenet, transformer
from tests.portable.digests import SHAPE, inputs, windows

IMAGES, WINDOWS = 256, 64
LARGE = transformer.Shape(characters=71, context=128, width=256, blocks=4)


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of one call."""
    began_s = time.process_time()
    work()
    return 1000 * (time.process_time() - began_s)


def compare(name: str, ours: Callable[[int], object], torchs: Callable[[], object], pairs: int) -> None:
    """Print the medians and the median ratio with its range, for each width of vectors."""
    for width in portable.widths():
        pairs_ms = [(cpu_ms(partial(ours, width)), cpu_ms(torchs)) for _ in range(pairs)]
        ratios = sorted(mine_ms / its_ms for mine_ms, its_ms in pairs_ms)
        mine_ms, its_ms = (statistics.median(each) for each in zip(*pairs_ms, strict=True))
        print(
            f"{name}, vectors of {width}: {mine_ms:.1f} ms, torch {its_ms:.1f} ms; ratio "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {pairs} pairs",
            flush=True,
        )


def main(pairs: int) -> None:
    """Compare mnist_cnn, transformer_lm, and a larger one with a tenth of the pairs."""
    torch.set_num_threads(1)
    given = inputs(IMAGES)
    compare(
        f"mnist_cnn, {IMAGES} images",
        lambda width: portable.lenet_gradient(*given, width),
        partial(lenet.gradient, *given[:3], lenet.Dropout(*given[3:])),
        pairs,
    )
    for shape, count, times in ((SHAPE, WINDOWS, pairs), (LARGE, 8, -(-pairs // 10))):
        compare(
            f"transformer_lm, {count} windows of {shape.context}, width {shape.width}, {shape.blocks} blocks",
            partial(portable.transformer_gradient, astuple(shape), *windows(count, shape)),
            partial(transformer.gradient, shape, shape.layout(), *windows(count, shape)),
            times,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
