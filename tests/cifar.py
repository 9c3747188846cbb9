"""CIFAR-10 batches in the bytes in which its authors wrote them: pickles of Python 2, protocol 2."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
import torch

from btard.node.training.datasets import cifar10


def _text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING


def _array(pixels: bytes, rows: int) -> bytes:
    """A C-contiguous uint8 array of rows of 3,072."""
    shape = b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", 3072) + b"\x86"
    dtype = (
        b"cnumpy\ndtype\n"
        + _text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + _text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _text(b"b") + b"\x87R"
    return start + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(pixels)) + pixels + b"tb"


def batch(images: torch.Tensor, labels: list[int]) -> bytes:
    """One file's bytes."""
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + b"".join(_text(b"image_%d.png" % place) for place in range(len(labels))) + b"e"
    pairs = (_text(b"data") + _array(images.numpy().tobytes(), len(labels)) + _text(b"labels") + numbers
             + _text(b"batch_label") + _text(b"a batch") + _text(b"filenames") + names)  # fmt: skip
    return b"\x80\x02}(" + pairs + b"u."


def write(directory: Path, items: int, patch: pytest.MonkeyPatch) -> Path:
    """A data directory with `items` random images in each of the six files, whose digests the reader is told."""
    folder = cifar10.raw_directory(directory)
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    made: dict[str, cifar10.Batch] = {}
    for file in (*cifar10.TRAIN, *cifar10.TEST):
        labels = torch.arange(items).remainder(10)
        images = torch.randint(256, (items, 3072), dtype=torch.uint8, generator=generator)
        images[:, :1024] = (25 * labels[:, None]).to(torch.uint8)  # red tells the class: something to learn
        data = batch(images, labels.tolist())
        (folder / file.name).write_bytes(data)
        made[file.name] = cifar10.Batch(file.name, hashlib.md5(data).hexdigest())
    patch.setattr(cifar10, "TRAIN", tuple(made[file.name] for file in cifar10.TRAIN))
    patch.setattr(cifar10, "TEST", tuple(made[file.name] for file in cifar10.TEST))
    return directory
