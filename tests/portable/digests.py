"""Digests of what the portable kernels compute on several processor models; `python -m tests.portable.digests`.

A small C program (driver.c) has the kernels and is run by this processor and by qemu's models of others. It ends with
1 if two digests differ, with 2 if something that it needs is missing.
"""

from __future__ import annotations

import argparse
import math
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from blake3 import blake3
from torch import Tensor

from btard.node.kernels import building, portable
from btard.node.training.models import lenet, transformer

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


SHAPE = transformer.Shape(characters=71, context=64, width=64, blocks=2)
"""What transformer_lm has by default."""


def _drawn(count: int, purpose: str) -> Tensor:
    data = blake3(purpose.encode(), derive_key_context="btard 2026 tests portable").digest(length=4 * count)
    return torch.frombuffer(bytearray(data), dtype=torch.int32)


def _parameters(count: int) -> Tensor:
    return _drawn(count, "parameters").bitwise_right_shift(7).float() * 2.0**-24


def windows(batch: int, shape: transformer.Shape = SHAPE) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters, characters and those that follow of a transformer, made of integers as well."""
    layout = shape.layout()
    parameters_D = _parameters(layout[-1].stop)
    for layer in layout:
        layer.view(parameters_D).mul_(2.0**-3).add_(float(layer.name.endswith(".scale")))
    text_BT = _drawn(batch * (shape.context + 1), "text").long().remainder(shape.characters).view(batch, -1)
    return parameters_D, text_BT[:, :-1].contiguous(), text_BT[:, 1:].contiguous()


def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Parameters, images, targets and dropout's factors, made of integers: no library's arithmetic is in them."""

    sizes = [math.prod(layer.shape[1:]) if len(layer.shape) > 1 else 16 for layer in lenet.LAYOUT]
    parameters_D = _parameters(lenet.DIMENSION)
    for layer, size in zip(lenet.LAYOUT, sizes, strict=True):
        parameters_D[layer.start : layer.stop] *= 2.0 ** -round(math.log2(size) / 2)
    images_B = (_drawn(784 * batch, "images").bitwise_right_shift(8).float() * 2.0**-22).view(batch, 1, 28, 28)
    targets_B = _drawn(batch, "targets").long().remainder(10)
    masks = [
        _drawn(units * batch, f"mask {units}").remainder(2).float().mul(2).view(units, batch) for units in (20, 50)
    ]
    return parameters_D, images_B, targets_B, masks[0], masks[1]


def recorded(batch: int, shape: transformer.Shape = SHAPE) -> bytes:
    """The inputs as the driver reads them; a window of text for 64 images."""
    count = -(-batch // 64)
    images, texts = (
        b"".join(each.numpy().tobytes() for each in given) for given in (inputs(batch), windows(count, shape))
    )
    sizes = struct.pack("<7Q", count, *astuple(shape), shape.layout()[-1].stop)
    return batch.to_bytes(8, "little") + images + sizes + texts


def computed(place: Place, given: bytes, directory: Path, driver: Path = DRIVER) -> tuple[int, bytes]:
    """(width of its vectors, everything that a driver computes there).

    Raises:
        subprocess.CalledProcessError: the compiler or the driver failed.
    """
    program = directory / "-".join([driver.stem, *(Path(each).name for each in place.compiler)])
    if not program.exists():
        flags = [*building.FLAGS, "-static", "-w", f"-I{building.FOLDER}", *place.compiler[1:]]
        subprocess.run([place.compiler[0], *flags, str(driver), "-o", str(program), "-lm"], check=True)
    words = [str(place.width)] if place.width is not None else []
    done = subprocess.run([*place.emulator, str(program), *words], input=given, capture_output=True, check=True)
    # qemu warns there of features that it does not emulate; the driver's word is the last.
    return int(done.stderr.split()[-1]), done.stdout


def digests(
    batch: int, places: tuple[Place, ...] = PLACES, shape: transformer.Shape = SHAPE
) -> Iterator[tuple[Place, int, str]]:
    """Place, width of vectors and digest of the results, for each place."""
    given = recorded(batch, shape)
    with TemporaryDirectory() as directory:
        for place in places:
            width, result = computed(place, given, Path(directory))
            yield place, width, blake3(result).hexdigest(length=16)


def main() -> int:
    """Print one line for each place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256, help="images of a gradient, and 64 times the windows (256)")
    batch = parser.parse_args().batch
    lacking = sorted({missing for place in PLACES if (missing := place.missing()) is not None})
    if lacking:
        print(f"not here: {', '.join(lacking)}; apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
        return 2
    seen = set()
    for place, width, digest in digests(batch):
        print(f"{place.name:48} vectors of {width}  {digest}", flush=True)
        seen.add(digest)
    losses = (
        portable.lenet_gradient(*inputs(batch))[1],
        portable.transformer_gradient(astuple(SHAPE), *windows(-(-batch // 64)))[1],
    )
    print(
        f"{'equal' if len(seen) == 1 else 'DIFFERENT'} on {len(PLACES)} places; batch {batch}, "
        f"loss of mnist_cnn {losses[0]:.4f}, of transformer_lm {losses[1]:.4f}"
    )
    return len(seen) != 1


if __name__ == "__main__":
    sys.exit(main())
