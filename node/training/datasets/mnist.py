"""MNIST as uint8 tensors, read from the prepared IDX files; every byte is checked before it is used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from btard.node.errors import DataError
from btard.node.training.datasets import repair

PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081  # of the training images scaled to [0, 1]
CLASSES = 10


@dataclass(frozen=True, slots=True)
class IdxFile:
    """One file of the data set: its name, shape, and the MD5 of its uncompressed bytes.

    Source: LeCun, Cortes, Burges, "The MNIST database": 2 zero bytes, type 8 (uint8), number of axes, then each axis
    as a big-endian 32-bit integer, then the values in row-major order.
    """

    name: str
    shape: tuple[int, ...]
    md5: str

    @property
    def header(self) -> bytes:
        """The bytes before the values."""
        return bytes((0, 0, 8, len(self.shape))) + np.array(self.shape, dtype=">u4").tobytes()


TRAIN_IMAGES = IdxFile("train-images-idx3-ubyte", (60_000, 28, 28), "6bbc9ace898e44ae57da46a324031adb")
TRAIN_LABELS = IdxFile("train-labels-idx1-ubyte", (60_000,), "a25bea736e30d166cdddb491f175f624")
TEST_IMAGES = IdxFile("t10k-images-idx3-ubyte", (10_000, 28, 28), "2646ac647ad5339dbf082846283269ea")
TEST_LABELS = IdxFile("t10k-labels-idx1-ubyte", (10_000,), "27ae3e4e09519cfbb04c329615203637")
_DIGESTS: dict[tuple[object, ...], str] = {}
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


@dataclass(frozen=True, slots=True)
class Mnist:
    """The whole data set on the CPU: images uint8 `[items, 28, 28]`, labels uint8 `[items]`.

    The tensors map the files copy-on-write: workers on one machine share one copy in memory.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def raw_directory(data_directory: Path) -> Path:
    """Where the IDX files lie: as torchvision's `MNIST(root=data_directory)` expects them."""
    return data_directory / "MNIST" / "raw"


def load(data_directory: Path) -> Mnist:
    """Read the prepared data set.

    Raises:
        DataError: a file is missing, truncated or corrupt; the message names it and the repair command.
    """
    directory = raw_directory(data_directory)
    try:
        return Mnist(*(torch.from_numpy(verify(directory / file.name, file)) for file in FILES))
    except DataError as error:
        raise DataError(f"{error}; {repair('mnist', data_directory)}") from error


def check(data_directory: Path) -> None:
    """Verify that the prepared data set is complete, byte for byte.

    Raises:
        DataError: a file is missing, truncated or corrupt; the message names it and the repair command.
    """
    load(data_directory)


def verify(path: Path, file: IdxFile) -> npt.NDArray[np.uint8]:
    """The values of one IDX file, mapped copy-on-write, after a check of its size and digest.

    Raises:
        DataError: missing, truncated or corrupt.
    """
    expected = len(file.header) + prod(file.shape)
    try:
        found = path.stat()
        if found.st_size != expected:
            raise DataError(f"{path} has {found.st_size} bytes instead of {expected}: truncated or not MNIST")
        values = np.memmap(path, dtype=np.uint8, mode="c")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    # A sweep builds the task of hundreds of cells in one process: the same file is digested once.
    if _md5(values.data, path, found.st_ino, found.st_mtime_ns) != file.md5:
        raise DataError(f"{path} is corrupt (its MD5 is not {file.md5})")
    return np.asarray(values[len(file.header) :]).reshape(file.shape)


def _md5(content: memoryview, *known_by: object) -> str:
    """The MD5 of a file's content, remembered by what tells that the file is still the same."""
    if known_by not in _DIGESTS:
        _DIGESTS[known_by] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return _DIGESTS[known_by]
