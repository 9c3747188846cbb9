"""CIFAR-10 as uint8 tensors, read from the batches in which its authors and torchvision keep it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from btard.node.errors import DataError
from btard.node.training.datasets import repair
from btard.node.training.datasets.arrays_pickle import load_arrays

CLASSES = 10
PIXEL_MEAN = (0.4914, 0.4822, 0.4465)  # of the training images scaled to [0, 1], by channel
PIXEL_STD = (0.2470, 0.2435, 0.2616)
_SHAPE = (3, 32, 32)


@dataclass(frozen=True, slots=True)
class Batch:
    """One file of the data set and the MD5 of its bytes.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images": a pickle of a dictionary whose
    `data` holds one image per row, channel by channel and row by row, and whose `labels` is a list.
    """

    name: str
    md5: str


TRAIN = (
    Batch("data_batch_1", "c99cafc152244af753f735de768cd75f"),
    Batch("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
    Batch("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
    Batch("data_batch_4", "634d18415352ddfa80567beed471001a"),
    Batch("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
)
TEST = (Batch("test_batch", "40351d587109b95175f43aff81a1287e"),)


@dataclass(frozen=True, slots=True)
class Cifar10:
    """The data set on the CPU: images uint8 `[items, 3, 32, 32]`, labels uint8 `[items]`."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def raw_directory(data_directory: Path) -> Path:
    """Where the batches lie: as torchvision's `CIFAR10(root=data_directory)` expects them."""
    return data_directory / "cifar-10-batches-py"


def load(data_directory: Path) -> Cifar10:
    """Read the data set.

    Raises:
        DataError: a file is missing or corrupt; the message names it and the repair command.
    """
    directory = raw_directory(data_directory)
    try:
        train, test = (_join([read(directory / batch.name, batch) for batch in part]) for part in (TRAIN, TEST))
    except DataError as error:
        raise DataError(f"{error}; {repair('cifar10', data_directory)}") from error
    return Cifar10(*train, *test)


def check(data_directory: Path) -> None:
    """Verify that the data set is complete, byte for byte.

    Raises:
        DataError: a file is missing or corrupt; the message names it and the repair command.
    """
    load(data_directory)


def read(path: Path, batch: Batch) -> tuple[Tensor, Tensor]:
    """Images and labels of one file, after a check of its digest; nothing but arrays and plain values is unpickled.

    Raises:
        DataError: missing, corrupt, or not in this format.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if found != batch.md5:
                raise DataError(f"{path} is corrupt (its MD5 is not {batch.md5})")
            file.seek(0)
            content = load_arrays(file)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return _tensors(content, path)


def _tensors(content: Any, path: Path) -> tuple[Tensor, Tensor]:
    try:
        images, labels = np.asarray(content["data"]), np.asarray(content["labels"])
        fits = images.dtype == np.uint8 and images.shape == (len(labels), 3 * 32 * 32) and labels.ndim == 1
        if not fits or len(labels) == 0 or labels.min() < 0 or labels.max() >= CLASSES:
            raise ValueError("images and labels do not belong together")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a CIFAR-10 batch: {error}") from error
    return torch.from_numpy(images.copy()).view(-1, *_SHAPE), torch.from_numpy(labels.astype(np.uint8))


def _join(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])
