"""The journal: whole lines or none, through crashes and full disks."""

from __future__ import annotations

import enum
import resource
import tracemalloc
from itertools import count
from pathlib import Path

import pytest

from btard.node.errors import BackendError, DataError, LocalProtocolError
from btard.node.storage.journal import Journal, read, records


def write(path: Path, *events: str) -> None:
    with Journal(path, 3, clock=count(100).__next__) as journal:
        for event in events:
            journal.append(event, step=1)


def test_a_line_per_event(tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "3" / "journal.jsonl"  # the directories are made
    with Journal(path, 3, clock=lambda: 12.3456789) as journal:
        journal.append("committed", step=7, validators={1: 2}, active=(0, 1), loss=0.5)
        assert path.read_bytes().endswith(b"}\n")  # without waiting for close
    assert path.read_text() == (
        '{"time":12.345679,"node":3,"event":"committed","step":7,"validators":{"1":2},"active":[0,1],"loss":0.5}\n'
    )


def test_what_an_earlier_life_has_written_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for digest in ("first", "again"):
        with Journal(path, 3) as journal:
            journal.append_once("committed", step=4, attempt=0, digest=digest)
            journal.append_once("banned", step=4, attempt=0, peer=1)
            journal.append_once("banned", step=4, attempt=0, peer=2)
            journal.append("resumed", step=4)
    with Journal(path, 3) as journal:
        journal.append_once("committed", step=4, attempt=1)
        journal.append_once("committed", step=5, attempt=0)
        journal.append_once("committed", step=5, attempt=0)
    told = [(record["event"], record["step"], record.get("attempt"), record.get("peer")) for record in read(path)[0]]
    assert told == [
        ("committed", 4, 0, None), ("banned", 4, 0, 1), ("banned", 4, 0, 2), ("resumed", 4, None, None),
        ("resumed", 4, None, None), ("committed", 4, 1, None), ("committed", 5, 0, None), ("committed", 5, 0, None),
    ]  # fmt: skip
    assert read(path)[0][0]["digest"] == "first"


def test_of_a_long_life_only_the_newest_steps_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, 3) as journal:
        for step in range(2000):
            journal.append_once("committed", step=step, attempt=0, parameter_digest="ab" * 32)
    tracemalloc.start()
    try:
        with Journal(path, 3) as journal:
            kept, most = tracemalloc.get_traced_memory()
            for step in (1997, 1998, 1999, 2000):
                journal.append_once("committed", step=step, attempt=0)
    finally:
        tracemalloc.stop()
    assert [record["step"] for record in records(path)] == list(range(2001))
    assert kept < most < path.stat().st_size, "the whole journal was in memory"


def test_records_come_one_by_one_up_to_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert list(records(path)) == []
    write(path, "a", "b")
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"nonsense\n" + b'{"time": 1.0, "no')
    found = records(path)
    assert [next(found)["event"], next(found)["event"]] == ["a", "b"]
    with pytest.raises(DataError, match=f"{path} is damaged at byte {whole}"):
        next(found)


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert read(path) == ([], 0)
    write(path, "a", "b")
    records, offset = read(path)
    assert [record["event"] for record in records] == ["a", "b"]
    assert read(path, offset) == ([], offset)
    write(path, "c")
    records, end = read(path, offset)
    assert [record["event"] for record in records] == ["c"]
    assert end == path.stat().st_size


@pytest.mark.parametrize("cut", [1, 5, 30], ids=lambda n: f"{n} bytes missing")
def test_a_torn_last_line_waits_and_is_dropped_on_restart(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, "a", "b")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    records, offset = read(path)
    assert [record["event"] for record in records] == ["a"]
    write(path, "c")
    records, _ = read(path, offset)
    assert [record["event"] for record in records] == ["c"]


@pytest.mark.parametrize("size", [10, 200_000], ids=["short", "longer than a block"])
def test_a_file_of_one_torn_line_starts_anew(tmp_path: Path, size: int) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"x" * size)
    write(path, "a")
    assert [record["event"] for record in read(path)[0]] == ["a"]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b"\n",
        b'{"node": 1, "event": "bound"}\n',
        b'{"time": "noon", "node": 1}\n',
    ],
    ids=["text", "bytes", "list", "empty", "no time", "words for a time"],
)
def test_a_damaged_line_is_named_with_its_place(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, "a")
    place = path.stat().st_size
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(DataError, match=f"{path} is damaged at byte {place}"):
        read(path)


def test_a_full_disk_is_one_clear_line_and_leaves_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path, 3) as journal:
        journal.append("first")
        # The kernel writes the first part of a line that crosses the limit, as it does on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
        try:
            with pytest.raises(BackendError) as error:
                journal.append("second", text="x" * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(error.value) == f"cannot write the journal {path}: File too large; free the disk and run again"
        journal.append("third")
    assert [record["event"] for record in read(path)[0]] == ["first", "third"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device")
def test_no_space_left_is_said() -> None:
    with Journal(Path("/dev/full"), 0) as journal, pytest.raises(BackendError, match="No space left on device"):
        journal.append("bound")


def test_a_path_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="Is a directory"):
        Journal(tmp_path, 0)
    with pytest.raises(DataError, match="Is a directory"):
        read(tmp_path)


class Colour(enum.Enum):
    RED = object()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [({"time": 1}, "reserved field 'time'"), ({"node": 1}, "reserved field 'node'"), ({"x": Colour.RED}, "not JSON")],
    ids=["time", "node", "not JSON"],
)
def test_our_own_mistakes_are_loud(tmp_path: Path, fields: dict[str, object], problem: str) -> None:
    with Journal(tmp_path / "journal.jsonl", 0) as journal, pytest.raises(LocalProtocolError, match=problem):
        journal.append("committed", **fields)


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", 0)
    journal.close()
    journal.close()
    with pytest.raises(LocalProtocolError, match="closed journal"):
        journal.append("late")
