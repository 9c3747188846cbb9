"""Gradients of each task in processes like the workers', on the CPU and on the GPU: their bits, times and distance."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pytest
import torch
from blake3 import blake3
from torch import Tensor

from btard.launcher.backends.local import context, server_environment, without_main
from btard.launcher.options import syntax
from btard.launcher.run import data
from btard.launcher.run.experiment import gpu_share
from btard.node.build import task_of
from btard.node.config import RunConfig
from btard.node.training import environment
from tests import cifar

PEERS = 6
CASES = (
    ("mnist_cnn", 256),
    ("transformer_lm", 64),
    ("transformer_lm:context_length=128,width=256,blocks=4", 64),
    ("cifar10_resnet18:width=16", 64),
    ("cifar10_resnet18", 64),
)
"""Tasks and batch sizes."""
_WARM = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """What one process computed.

    Args:
        digests: of each gradient.
        fingerprint: of the process.
        first_D: the first gradient.
        seconds: of one gradient, the median after the first three.
        peak_bytes: of the GPU's memory, as torch counts it.
    """

    digests: tuple[bytes, ...]
    fingerprint: bytes
    first_D: Tensor
    seconds: float
    peak_bytes: int


def compute(task: str, batch_size: int, device: str, share: float | None, count: int) -> Measured:
    """`count` gradients in this process, each of parameters that the ones before it led to."""
    environment.pin(device, share)
    run = RunConfig(task=syntax.plugin(task), batch_size=batch_size, device=device)  # type: ignore[arg-type]
    with _data(task) as where:
        made = task_of(run, where)
    parameters_D, digests, durations, first_D = made.initial(0), [], [], None
    for step in range(count):
        began = time.perf_counter()
        gradient_D, _ = made.gradient(parameters_D, blake3(step.to_bytes(4, "little")).digest())
        durations.append(time.perf_counter() - began)
        first_D = gradient_D.clone() if first_D is None else first_D
        digests.append(blake3(gradient_D.numpy().tobytes()).digest())
        parameters_D = parameters_D - 0.01 * gradient_D
    assert first_D is not None
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return Measured(tuple(digests), environment.fingerprint(device), first_D, median(durations[_WARM:]), peak)


@contextmanager
def _data(task: str) -> Iterator[Path]:
    """The data directory; 100 images in CIFAR-10's format stand for the whole set, which no machine of ours has."""
    if not task.startswith("cifar10"):
        yield data.directory(None)
        return
    with TemporaryDirectory() as where, pytest.MonkeyPatch.context() as patch:
        yield cifar.write(Path(where), 20, patch)


def at_once(task: str, batch_size: int, device: str, processes: int, count: int) -> Sequence[Measured]:
    """The same in several processes at the same time, each with its share of the card's memory."""
    share = gpu_share(PEERS) if device == "cuda" else None
    with ExitStack() as stack:
        stack.enter_context(server_environment())
        stack.enter_context(without_main())
        pools = [stack.enter_context(ProcessPoolExecutor(1, mp_context=context())) for _ in range(processes)]
        given = (task, batch_size, device, share, count)
        return [each.result() for each in [pool.submit(compute, *given) for pool in pools]]


def distance(ours_D: Tensor, theirs_D: Tensor) -> float:
    """Relative L2 distance, what `--recompute-tolerance` is compared with."""
    return float((ours_D.double() - theirs_D.double()).norm() / theirs_D.double().norm())
