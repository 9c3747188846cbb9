"""The story of a run in words, from its journals."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from launcher import verification
from launcher.story import REASONS, tell
from node import audit
from node.journal import Journal
from node.protocol.tribunal import REASONS as KNOWN


def test_every_reason_has_its_sentence() -> None:
    assert set(REASONS) == set(KNOWN)


def test_a_quiet_run_has_no_story(tmp_path: Path) -> None:
    assert list(tell(tmp_path, [0, 1])) == ["nothing was disputed and nobody was accused"]


def test_a_dispute_is_told_in_order(tmp_path: Path) -> None:
    for node in (0, 1):
        with Journal(tmp_path / "nodes" / str(node) / "journal.jsonl", node) as journal:
            journal.append("suspected", step=4, attempt=0, phase="AGG", peer=5)
            journal.append("disputed", step=4, attempt=0, cause="peer 5 is silent in AGG")
            journal.append("resolved", step=4, attempt=0, outcome="retry", removals=[5])
            journal.append("banned", step=4, attempt=0, peer=5, reason="silent", accuser=None, removed=True,
                           evidence="00", path="nodes/0/evidence/x")  # fmt: skip
            journal.append("voided", step=4, attempt=0, removals=[5])
    lines = list(tell(tmp_path, [0, 1]))
    assert [line.split(": ", 1)[0] for line in lines] == ["step 4"] * len(lines)
    order = ["missed the AGG of peer 5", "a dispute began at peers 0, 1", "froze the attempt", "the attempt is void",
             "peer 5 was removed (silent)", "started again"]  # fmt: skip
    assert [any(words in line for line in lines) for words in order] == [True] * len(order)
    places = [next(place for place, line in enumerate(lines) if words in line) for words in order]
    assert places == sorted(places)


def test_an_undo_step_is_told_once(tmp_path: Path) -> None:
    for node in (0, 1):
        with Journal(tmp_path / "nodes" / str(node) / "journal.jsonl", node) as journal:
            journal.append("accused", step=5, attempt=0, kind="history", accused=4, part=None, accuser=None)
            journal.append("undone", step=5, attempt=0, suspects=[4], lies=[[3, 4], [4, 4]], to_step=3, lost=2,
                           older=True)  # fmt: skip
    assert list(tell(tmp_path, [0, 1])) == [
        "step 5: somebody said that what peer 4, removed before, contributed to an earlier step is false (undo); "
        "everyone recomputed it",
        "step 5: what peer 4 had contributed was recomputed: 2 false; the parameters before step 3 stand again, 2 "
        "steps lost; the first lie may be older than the window",
    ]


@pytest.mark.parametrize(
    ("fine", "said", "code"),
    [
        ((), "no bans: nothing to verify", 0),
        ((True,), "1 finding, 0 wrong", 0),
        ((True, False), "2 findings, 1 wrong", 1),
    ],
)
def test_findings_are_counted(
    fine: tuple[bool, ...], said: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "genesis.json").touch()
    found = [audit.Finding("ban of peer 1", each, "transcript", "as peer 0 said") for each in fine]
    monkeypatch.setattr(audit, "check_run", lambda *_: found)
    console = Console(file=io.StringIO(), width=200)
    assert verification.show(console, tmp_path) == code
    assert console.file.getvalue().splitlines()[-1] == said  # type: ignore[attr-defined]
