"""Digests of what the portable kernels compute on several processor models; `python -m tests.portable.digests`.

A small C program (driver.c) has the kernels and is run by this processor and by qemu's models of others. It ends with
1 if two digests differ, with 2 if something that it needs is missing.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from blake3 import blake3
from torch import Tensor

from btard.node import kernels
from btard.node.kernels import portable
from btard.node.training.models import lenet

DRIVER = Path(__file__).parent / "driver.c"
X86, ARM = "cc", "aarch64-linux-gnu-gcc"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the driver is run.

    Args:
        name: for people.
        compiler: what it is compiled with, and how.
        emulator: what goes in front of it.
        width: of vectors; None: the widest there.
    """

    name: str
    compiler: tuple[str, ...]
    emulator: tuple[str, ...] = ()
    width: int | None = None

    def missing(self) -> str | None:
        """The first of its programs that is not here."""
        return next((each for each in (self.compiler[0], *self.emulator[:1]) if shutil.which(each) is None), None)


def _emulated(model: str) -> Place:
    return Place(f"x86_64 {model}", (X86,), ("qemu-x86_64", "-cpu", model))


PLACES = (
    Place("this processor", (X86,)),
    Place("this processor, vectors of 4", (X86,), width=4),
    Place("this processor, compiled without optimisation", (X86, "-O0")),
    *map(_emulated, ("Conroe", "Nehalem", "SandyBridge", "Haswell", "Skylake-Server", "EPYC-Milan", "max")),
    Place("aarch64 Cortex-A57", (ARM,), ("qemu-aarch64", "-cpu", "cortex-a57")),
    Place("aarch64 Neoverse-N1", (ARM,), ("qemu-aarch64", "-cpu", "neoverse-n1")),
    Place("aarch64 max", (ARM,), ("qemu-aarch64", "-cpu", "max")),
)


def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Parameters, images, targets and dropout's factors, made of integers: no library's arithmetic is in them."""

    def drawn(count: int, purpose: str) -> Tensor:
        data = blake3(purpose.encode(), derive_key_context="btard 2026 tests portable").digest(length=4 * count)
        return torch.frombuffer(bytearray(data), dtype=torch.int32)

    sizes = [math.prod(layer.shape[1:]) if len(layer.shape) > 1 else 16 for layer in lenet.LAYOUT]
    parameters_D = drawn(lenet.DIMENSION, "parameters").bitwise_right_shift(7).float() * 2.0**-24
    for layer, size in zip(lenet.LAYOUT, sizes, strict=True):
        parameters_D[layer.start : layer.stop] *= 2.0 ** -round(math.log2(size) / 2)
    images_B = (drawn(784 * batch, "images").bitwise_right_shift(8).float() * 2.0**-22).view(batch, 1, 28, 28)
    targets_B = drawn(batch, "targets").long().remainder(10)
    masks = [drawn(units * batch, f"mask {units}").remainder(2).float().mul(2).view(units, batch) for units in (20, 50)]
    return parameters_D, images_B, targets_B, masks[0], masks[1]


def recorded(batch: int) -> bytes:
    """The inputs as the driver reads them."""
    return batch.to_bytes(8, "little") + b"".join(each.numpy().tobytes() for each in inputs(batch))


def computed(place: Place, given: bytes, directory: Path) -> tuple[int, bytes]:
    """(width of its vectors, everything that the driver computes there).

    Raises:
        subprocess.CalledProcessError: the compiler or the driver failed.
    """
    program = directory / "-".join(["driver", *(Path(each).name for each in place.compiler)])
    if not program.exists():
        flags = [*kernels.FLAGS, "-static", "-w", f"-I{kernels.FOLDER}", *place.compiler[1:]]
        subprocess.run([place.compiler[0], *flags, str(DRIVER), "-o", str(program), "-lm"], check=True)
    words = [str(place.width)] if place.width is not None else []
    done = subprocess.run([*place.emulator, str(program), *words], input=given, capture_output=True, check=True)
    # qemu warns there of features that it does not emulate; the driver's word is the last.
    return int(done.stderr.split()[-1]), done.stdout


def digests(batch: int, places: tuple[Place, ...] = PLACES) -> Iterator[tuple[Place, int, str]]:
    """Place, width of vectors and digest of the results, for each place."""
    given = recorded(batch)
    with TemporaryDirectory() as directory:
        for place in places:
            width, result = computed(place, given, Path(directory))
            yield place, width, blake3(result).hexdigest(length=16)


def main() -> int:
    """Print one line for each place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256, help="images of the gradient (256)")
    batch = parser.parse_args().batch
    lacking = sorted({missing for place in PLACES if (missing := place.missing()) is not None})
    if lacking:
        print(f"not here: {', '.join(lacking)}; apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
        return 2
    seen = set()
    for place, width, digest in digests(batch):
        print(f"{place.name:48} vectors of {width}  {digest}", flush=True)
        seen.add(digest)
    _, loss = portable.lenet_gradient(*inputs(batch))
    print(f"{'equal' if len(seen) == 1 else 'DIFFERENT'} on {len(PLACES)} places; batch {batch}, loss {loss:.4f}")
    return len(seen) != 1


if __name__ == "__main__":
    sys.exit(main())
