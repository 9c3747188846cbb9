"""`python -m tests.gpu` prints the table of docs/benchmarks.md: gradients on the CPU and on the GPU."""

from __future__ import annotations

import sys

import torch

from btard.node.training import environment
from tests.gpu.gradients import CASES, PEERS, at_once, distance


def main() -> int:
    """Print one line per case; 1 if bits differed."""
    differing = 0
    print(f"{environment.environment('cuda').device}; {torch.cuda.get_device_properties(0).total_memory >> 30} GiB")
    print(f"{'task, batch':58} {'CPU ms':>8} {'GPU ms':>8} {'six, ms':>8} {'MiB':>6}  distance GPU to CPU")
    for task, batch_size in CASES:
        (cpu,) = at_once(task, batch_size, "cpu", 1, 6)
        (alone,) = at_once(task, batch_size, "cuda", 1, 60)
        six = at_once(task, batch_size, "cuda", PEERS, 60)
        same = {alone.digests, *(each.digests for each in six)}
        differing += len(same) - 1
        slowest = max(each.seconds for each in six)
        print(f"{f'{task}, {batch_size}':58} {cpu.seconds * 1e3:8.2f} {alone.seconds * 1e3:8.2f} {slowest * 1e3:8.2f} "
              f"{alone.peak_bytes >> 20:6}  {distance(alone.first_D, cpu.first_D):.1e}"
              f"{'' if len(same) == 1 else '  BITS DIFFER'}", flush=True)  # fmt: skip
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
