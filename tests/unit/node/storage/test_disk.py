"""What the kernel is asked for beside what is written: that it forgets large files once the disk has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from btard.node.storage.disk import Disk

LARGE = bytes(range(256)) * (3 << 12)
"""3 MiB, of which the kernel's cache is rid after a sync."""
SMALL = LARGE[: 1000 * 512]


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that the kernel is told to forget."""
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("this system has no posix_fadvise")
    told, really = [], os.posix_fadvise

    def fadvise(file: int, start: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        told.append((start, size))
        really(file, start, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", fadvise)
    return told


def written(disk: Disk, path: Path, *batches: bytes) -> None:
    file = disk.open(str(path))
    for batch in batches:
        disk.write(file, batch)
        disk.sync(file)
    disk.close(file)
    assert path.read_bytes() == b"".join(batches)


def test_a_large_file_leaves_the_cache_but_for_the_page_that_goes_on(
    tmp_path: Path, forgotten: list[tuple[int, int]]
) -> None:
    written(Disk(), tmp_path / "ledger", LARGE, SMALL[:512], LARGE)
    page = os.sysconf("SC_PAGESIZE")
    assert forgotten == [(0, len(LARGE)), (0, (2 * len(LARGE) + 512) // page * page)]


def test_a_file_system_need_not_take_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    written(Disk(), tmp_path / "ledger", LARGE, LARGE)


def test_small_files_stay_in_it(tmp_path: Path, forgotten: list[tuple[int, int]]) -> None:
    written(Disk(), tmp_path / "ledger", SMALL, SMALL)
    assert forgotten == []
    written(Disk(waits=False), tmp_path / "other", LARGE)
    assert forgotten == []
