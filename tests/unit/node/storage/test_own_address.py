"""How often a node has moved outlives it, and a number is on the disk before it is signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from btard.node.config import Endpoint
from btard.node.errors import BackendError, CheckpointError
from btard.node.storage.disk import Disk
from btard.node.storage.own_address import FILE, counter

A, B = Endpoint("tcp://a:1", "tcp://a:2"), Endpoint("tcp://b:1", "tcp://a:2")


def test_a_start_elsewhere_counts_and_one_at_the_same_address_does_not(tmp_path: Path) -> None:
    assert [counter(tmp_path, each, Disk()) for each in (A, A, B, B, A)] == [0, 0, 1, 1, 2]


def test_the_number_is_synced_with_its_name(tmp_path: Path) -> None:
    disk = Disk()
    counter(tmp_path, A, disk)
    assert disk.syncs == 2
    counter(tmp_path, A, disk)
    assert disk.syncs == 2, "nothing has changed"
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_half_a_file_of_a_crash_is_written_over(tmp_path: Path) -> None:
    counter(tmp_path, A, Disk())
    (tmp_path / f"{FILE}.tmp").write_bytes(b"x" * 1000)
    assert counter(tmp_path, B, Disk()) == 1
    assert counter(tmp_path, B, Disk()) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"counter":"1"}'])
def test_a_damaged_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"address.json does not say how often .*; restore it from a copy$"):
        counter(tmp_path, A, Disk())


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"^cannot write .*address.json: No such file or directory; free the disk$"):
        counter(tmp_path / "nowhere", A, Disk())
