"""Journals and files of a run directory as a hostile node may leave them: one line each, and the rest is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from btard.node.errors import DataError
from btard.node.storage import records
from btard.node.storage.journal import Journal
from btard.node.storage.records import JournalReader, open_regular, read_regular

NAME = "nodes/3/journal.jsonl"


def line(**fields: object) -> bytes:
    return json.dumps({"time": 1.0, "node": 3, "event": "suspected", "step": 1, "attempt": 0, "phase": "AGG", "peer": 2,
                       **fields}).encode() + b"\n"  # fmt: skip


def journal(root: Path, content: bytes) -> JournalReader:
    (root / "nodes" / "3").mkdir(parents=True, exist_ok=True)
    (root / NAME).write_bytes(content)
    return JournalReader(root, NAME, 3, 6)


MALFORMED = [
    ("no record", b"true\n", "object"),
    ("no JSON", b'{"time": 1.0\n', "truncated"),
    ("no text", b'{"event": "\xff"}\n', "invalid"),
    ("no event", b'{"time": 1.0, "node": 3}\n', "no event"),
    ("an event that is a number", line(event=5), "no event"),
    ("another node's id", line(node=0), "of node 0, in the folder of node 3"),
    ("a node that is true", line(node=True), "of node True"),
    ("the launcher's name", line(node="launcher"), "of node launcher"),
    ("a step that is text", line(step="1"), "$.step"),
    ("a step below zero", line(step=-1), "$.step"),
    ("a field missing", line().replace(b'"attempt": 0, ', b""), "attempt"),
    ("a ban without its path", line(event="banned", reason="gradient", accuser=None, removed=True, standing="banned",
                                    evidence="0" * 64), "path"),
    ("a digest that is none", line(event="finished", bulk_bytes=0, control_bytes=0, publication_bytes=0,
                                   parameter_digest="xyz", path="p"), "parameter_digest"),
    ("a peer that is not in the roster", line(peer=6), "roster of 6"),
    ("a peer beyond every roster", line(peer=10**30), "$.peer"),
    ("a time that is text", line(time="now"), "$.time"),
    ("a number of a million digits", b'{"time": ' + b"9" * 10**6 + b"}\n", "record 2"),
    ("brackets without end", b'{"time": ' + b"[" * 10**6 + b"\n", "record 2"),
    ("an escape sequence", line(phase=["\x1b[2J\n"]), "$.phase"),
    ("longer than a record may be", b'{"event": "' + b"x" * (records.LINE_BYTES + 1) + b'"}\n', "longer than"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_malformed_record_is_named_and_the_rest_is_read(content: bytes, words: str, tmp_path: Path) -> None:
    reader = journal(tmp_path, line(step=7) + content + line(step=8))
    read = list(reader.look())
    assert [each.record["step"] for each in read] == [7, 8]
    assert [each.number for each in read] == [1, 3]
    (problem,) = reader.problems
    assert problem.startswith(f"{NAME}, record 2: ")
    assert words in problem
    assert problem.isprintable()


def test_records_are_typed(tmp_path: Path) -> None:
    (read,) = journal(tmp_path, line(step=7)).look()
    assert read.entry == records.Suspected(time=1.0, node=3, step=7, attempt=0, phase="AGG", peer=2)


def test_events_that_nobody_reads_need_what_every_record_has(tmp_path: Path) -> None:
    reader = journal(tmp_path, b'{"time": 1, "node": 3, "event": "dropped", "anything": [1]}\n')
    (read,) = reader.look()
    assert (read.event, read.record["anything"], reader.problems) == ("dropped", [1], [])


def test_a_torn_line_waits_for_its_rest(tmp_path: Path) -> None:
    whole = line()
    reader = journal(tmp_path, whole + whole[:20])
    assert len(list(reader.look())) == 1
    with (tmp_path / NAME).open("ab") as file:
        file.write(whole[20:])
    assert [each.number for each in reader.look()] == [2]
    assert list(reader.look()) == []
    assert reader.problems == []


def test_what_follows_a_line_without_end_is_read_when_it_ends(tmp_path: Path) -> None:
    reader = journal(tmp_path, b"x" * (3 * records.LINE_BYTES))
    assert list(reader.look()) == []
    with (tmp_path / NAME).open("ab") as file:
        file.write(b"x\n" + line())
    assert [each.number for each in reader.look()] == [2]
    (problem,) = reader.problems
    assert "record 1: it is longer" in problem


def test_a_sparse_journal_is_read_to_its_limit_without_filling_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "JOURNAL_BYTES", 3 * records.LINE_BYTES)
    reader = journal(tmp_path, line())
    os.truncate(tmp_path / NAME, 1 << 40)
    assert len(list(reader.look())) == 1
    assert list(reader.look()) == []
    (problem,) = reader.problems
    assert f"only its first {records.JOURNAL_BYTES} bytes" in problem


def test_the_problems_of_one_journal_are_not_endless(tmp_path: Path) -> None:
    reader = journal(tmp_path, b"{}\n" * 1000 + line())
    assert len(list(reader.look())) == 1
    assert (len(reader.problems), reader.refused) == (records.MAX_PROBLEMS + 1, 1000)
    assert "more malformed records" in reader.problems[-1]


def test_no_journal_is_no_problem(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path, NAME, 3)
    assert list(reader.look()) == []
    journal(tmp_path, line())
    assert len(list(reader.look())) == 1


def test_what_our_own_journal_writes_is_read(tmp_path: Path) -> None:
    with Journal(tmp_path / NAME, 3) as written:
        written.append("resumed", step=4, attempt=1, heard=20)
    reader = JournalReader(tmp_path, NAME, 3)
    (read,) = reader.look()
    assert isinstance(read.entry, records.Resumed)
    assert (read.entry.step, read.entry.heard, reader.problems) == (4, 20, [])


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def linked_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.symlink_to("/etc")


def folder(path: Path) -> None:
    path.mkdir()


PLACES: list[tuple[str, str, Callable[[Path], None]]] = [
    ("a FIFO", "folder/file", fifo),
    ("a symbolic link", "folder/file", link),
    ("behind a linked folder", "folder/hostname", linked_folder),
    ("a folder", "folder/file", folder),
    ("outside", "../hostname", lambda path: None),
    ("outside, by a detour", "folder/../../hostname", lambda path: None),
    ("absolute", "/etc/hostname", lambda path: None),
    ("a device", "/dev/zero", lambda path: None),
    ("nothing", "", lambda path: None),
    ("a name with NUL", "folder/\0", lambda path: None),
    ("a name that is too long", "x" * 5000, lambda path: None),
    ("half a surrogate pair", "\ud800", lambda path: None),
]


@pytest.mark.parametrize(("name", "make"), [row[1:] for row in PLACES], ids=[row[0] for row in PLACES])
def test_only_regular_files_inside_are_opened(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path.parent / "hostname").write_text("outside")
    make(tmp_path / "folder" / "file")
    with pytest.raises(DataError) as caught:
        open_regular(tmp_path, name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("make", [fifo, link, folder], ids=["FIFO", "link", "folder"])
def test_a_journal_that_is_no_file_is_one_problem(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "nodes" / "3").mkdir(parents=True)
    make(tmp_path / NAME)
    reader = JournalReader(tmp_path, NAME, 3)
    assert list(reader.look()) == list(reader.look()) == []
    assert len(reader.problems) == 1


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path, "file", 5) == b"12345"
    with pytest.raises(DataError, match="5 bytes are more than the 4"):
        read_regular(tmp_path, "file", 4)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path, "other", 4)


def test_a_directory_that_is_reached_through_a_link_is_the_callers_choice(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_bytes(b"1")
    (tmp_path / "alias").symlink_to("run")
    assert read_regular(tmp_path / "alias", "file", 1) == b"1"
