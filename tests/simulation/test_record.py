"""The record of searches: lines are added, never changed, and its columns are held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation.record import FILE, Entry, append, commit

ENTRY = Entry("2026-01-31", "0123456789", "guided n=6", "1..3", 20, 0, 60, 0, 7)
HEADER = "date,commit,kind,seeds,runs,states,hostile_steps,violations,cpu_s"


def test_lines_are_added(tmp_path: Path) -> None:
    file = tmp_path / "soak.csv"
    append(ENTRY, file)
    append(replace(ENTRY, kind="soak", seeds="0..100"), file)
    assert file.read_text().splitlines() == [
        HEADER,
        "2026-01-31,0123456789,guided n=6,1..3,20,0,60,0,7",
        "2026-01-31,0123456789,soak,0..100,20,0,60,0,7",
    ]


def test_a_file_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "soak.csv"
    file.write_text("date,seed\n")
    with pytest.raises(ValueError, match="has the columns"):
        append(ENTRY, file)
    assert file.read_text() == "date,seed\n"


def test_the_record_has_the_columns_of_an_entry() -> None:
    assert FILE.read_text().splitlines()[0] == HEADER


def test_the_commit_is_named() -> None:
    name = commit().rstrip("+")
    assert len(name) >= 10
    int(name, 16)
