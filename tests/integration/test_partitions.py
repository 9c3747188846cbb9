"""Real processes on the two sides of a network that is cut: nobody is banned, and all of them end in agreement."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from btard.node.storage.journal import Record, read
from tests.launching import PATIENCE_S, launched

pytestmark = pytest.mark.sockets

CUT = ("run", "--peers", "6", "--task", "quadratic:dimension=40", "--batch-size", "2", "--delivery-bound", "200ms",
       "--gradient-bound", "500ms", "--probation", "2", "--scenario", "cut.scn", "--run-dir", "run",
       "--timeout", "100s")  # fmt: skip


def output(where: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and words of a command."""
    with launched(where, *arguments) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said


def summary(where: Path) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode((where / "run" / "summary.json").read_bytes())
    return made


def journals(where: Path) -> list[list[Record]]:
    return [read(where / "run" / "nodes" / str(node) / "journal.jsonl")[0] for node in range(6)]


def digests(of: list[list[Record]]) -> dict[int, set[str]]:
    """State digests of each step, over all nodes and all their lives."""
    found: dict[int, set[str]] = defaultdict(set)
    for journal in of:
        for record in journal:
            if record["event"] == "committed":
                found[record["step"]].add(record["state_digest"])
    return found


def said(journal: list[Record], event: str) -> list[Record]:
    return [record for record in journal if record["event"] == event]


def test_two_of_six_that_are_cut_off_halt_and_come_back_when_they_are_started_again(tmp_path: Path) -> None:
    """The four go on; the two ban nobody, keep their state, and serve their probation once the network is whole."""
    (tmp_path / "cut.scn").write_text("from 1s to 16s partition 0,1,2,3 | 4,5\nat 17s restart 4,5\n")
    code, told = output(tmp_path, *CUT, "--steps", "110", "--delay", "25ms")
    assert code == 0, told
    score, kept = summary(tmp_path), journals(tmp_path)
    assert score["agreement"] and score["bans"] == [], told
    assert sorted(row["peer"] for row in score["gone"]) == sorted(row["peer"] for row in score["returned"]) == [4, 5]
    for journal in kept[4:]:
        ends = [record["event"] for record in journal if record["event"] in ("halted", "resumed", "finished")]
        assert ends == ["halted", "resumed", "finished"], told
        assert said(journal, "banned") == [], "whoever is cut off removes nobody"
        (halted,), (resumed,) = said(journal, "halted"), said(journal, "resumed")
        assert halted["step"] == resumed["step"], "it goes on from the state in which it halted"
        assert halted["problem"].endswith("do not answer, and no quorum removes them"), told
    assert [said(journal, "halted") for journal in kept[:4]] == [[]] * 4
    found = digests(kept)
    assert set(found) == set(range(111)) and all(len(each) == 1 for each in found.values())


def test_two_halves_both_halt_and_a_resumed_run_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """No side has a quorum: no step, no ban, no removal, no word that would bind a half for ever."""
    (tmp_path / "cut.scn").write_text("from 1s to 10s partition 0,1,2 | 3,4,5\n")
    code, told = output(tmp_path, *CUT, "--steps", "24", "--delay", "10ms")
    assert code == 1, told
    before = journals(tmp_path)
    assert [len(said(journal, "halted")) for journal in before] == [1] * 6, told
    assert all(said(journal, "banned") == [] for journal in before)
    assert summary(tmp_path)["outcome"] == "failed" and summary(tmp_path)["gone"] == []
    reached = max(digests(before))
    assert reached < 20, told
    code, told = output(tmp_path, "resume", "run")
    assert code == 0, told
    score, after = summary(tmp_path), journals(tmp_path)
    assert score["outcome"] == "finished" and score["agreement"] and score["bans"] == score["gone"] == []
    assert [event["action"] for event in score["scenario"]].count("begins") == 1, told
    assert all(len(said(journal, "finished")) == 1 for journal in after), told
    found = digests(after)
    assert set(found) == set(range(25)) and all(len(each) == 1 for each in found.values())
    assert all(found[step] == each for step, each in digests(before).items())
    assert output(tmp_path, "verify", "run")[0] == 0
