"""The story of a run in words, from its journals."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from btard.launcher.verify import verification
from btard.launcher.verify.explanation import tell
from btard.node.storage.journal import Journal
from btard.node.verify import audit


def test_a_quiet_run_has_no_story(tmp_path: Path) -> None:
    assert list(tell(tmp_path, [0, 1])) == ["nothing was disputed and nobody was accused"]


def test_a_dispute_is_told_in_order(tmp_path: Path) -> None:
    for node in (0, 1):
        with Journal(tmp_path / "nodes" / str(node) / "journal.jsonl", node) as journal:
            journal.append("suspected", step=4, attempt=0, phase="AGG", peer=5)
            journal.append("disputed", step=4, attempt=0, cause="peer 5 is silent in AGG")
            journal.append("resolved", step=4, attempt=0, outcome="retry", removals=[5])
            journal.append("banned", step=4, attempt=0, peer=5, reason="silent", accuser=None, removed=True,
                           standing="gone", evidence="0" * 64, path="nodes/0/evidence/x")  # fmt: skip
            journal.append("voided", step=4, attempt=0, removals=[5])
    lines = list(tell(tmp_path, [0, 1]))
    assert [line.split(": ", 1)[0] for line in lines] == ["step 4"] * len(lines)
    order = ["missed the AGG of peer 5", "a dispute began at peers 0, 1", "froze the attempt", "the attempt is void",
             "or its view in the dispute: gone, not banned", "started again"]  # fmt: skip
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


def test_steps_of_which_the_same_is_told_are_told_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "nodes" / "0" / "journal.jsonl", 0) as journal:
        for step in (3, 4, 5, 9):
            journal.append("suspected", step=step, attempt=0, phase="AGG", peer=5)
        journal.append("suspected", step=10, attempt=0, phase="AGG", peer=4)
        journal.append("suspected", step=11, attempt=1, phase="AGG", peer=4)
    missed = "peer 0 missed the AGG of peer {} at the deadline and asked the others for it"
    assert list(tell(tmp_path, [0])) == [
        f"steps 3 to 9 (4 of them): {missed.format(5)}",
        f"step 10: {missed.format(4)}",
        f"step 11, attempt 2: {missed.format(4)}",
    ]


def ban(peer: int, reason: str, step: int = 4) -> dict[str, object]:
    return {"event": "banned", "step": step, "attempt": 0, "peer": peer, "reason": reason, "accuser": None,
            "removed": True, "standing": "banned", "evidence": "0" * 64, "path": "nodes/0/evidence/x"}  # fmt: skip


def accused(kind: str, peer: int, accuser: int | None) -> dict[str, object]:
    return {"event": "accused", "step": 4, "attempt": 0, "kind": kind, "accused": peer, "part": None,
            "accuser": accuser}  # fmt: skip


RETRY = {"event": "resolved", "step": 4, "attempt": 0, "outcome": "retry", "removals": [5]}
BACK = {"event": "returned", "step": 3, "attempt": 0, "peer": 1, "evidence": "0" * 64, "path": "nodes/0/evidence/y"}
VERDICTS: list[tuple[str, list[dict[str, object]], str]] = [
    ("guilty", [accused("gradient", 1, 2), ban(1, "gradient")], "everyone judged it: guilty"),
    ("acquitted", [accused("gradient", 1, 2), ban(2, "false_accusation")],
     "everyone judged it: not guilty, and peer 2 falls for saying so"),
    ("acquitted, and the accuser falls for worse", [accused("gradient", 1, 2), ban(2, "aggregate")],
     "everyone judged it: not guilty"),
    ("acquitted of what nobody accused", [accused("averaging:V2", 1, None), ban(3, "checksum")],
     "everyone judged it: not guilty"),
    ("out before", [ban(1, "silent", step=2), accused("gradient", 1, 2)], "moot: peer 1 had its verdict already"),
    ("out before, and back since", [ban(1, "silent", step=2), BACK, accused("gradient", 1, 2), ban(1, "gradient")],
     "everyone judged it: guilty"),
    ("out before, and the accuser lied", [ban(1, "silent", step=2), accused("gradient", 1, 2),
                                          ban(2, "false_accusation")],
     "everyone judged it: not guilty, and peer 2 falls for saying so"),
    ("a dispute came first", [accused("gradient", 1, 2), RETRY, ban(5, "silent")],
     "moot: a dispute ended the attempt before the verdict"),
    ("the accused fell in the dispute", [accused("gradient", 5, 2), RETRY, ban(5, "silent")],
     "moot: a dispute ended the attempt before the verdict"),
    ("the bytes were withheld", [accused("averaging:V2", 1, None), ban(3, "withheld")],
     "moot: what would have decided it was withheld"),
    ("nobody falls", [accused("gradient", 1, 2)], "moot: it stayed undecided, and peer 2 answers for nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "verdict"), [row[1:] for row in VERDICTS], ids=[row[0] for row in VERDICTS])
def test_a_moot_charge_is_no_acquittal(told: list[dict[str, object]], verdict: str, tmp_path: Path) -> None:
    for node in (0, 6):
        with Journal(tmp_path / "nodes" / str(node) / "journal.jsonl", node) as journal:
            for record in told:
                journal.append(**{**record, "path": f"nodes/{node}/x"} if "path" in record else record)  # type: ignore[arg-type]
    (line,) = [line for line in tell(tmp_path, [0, 6]) if "said that" in line or "everyone saw that" in line]
    assert line.endswith(f"; {verdict}")


def test_records_that_break_the_rules_are_left_out_of_the_story(tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "0" / "journal.jsonl"
    with Journal(path, 0) as journal:
        journal.append("disputed", step=4, attempt=0, cause="x")
        journal.append("anything", attempt=0, phases=["HELD"])
    with path.open("ab") as file:
        file.write(b'{"time": 1, "node": 0, "event": "banned", "step": "text"}\n')
    assert [line.split(":")[0] for line in tell(tmp_path, [0])] == ["step 4", "step 4"]


@pytest.mark.parametrize(
    ("kinds", "said", "code"),
    [
        ((), "0 findings: 0 recomputed, 0 believed on signatures, 0 wrong, 1 not checked", 0),
        (("transcript",), "1 finding: 1 recomputed, 0 believed on signatures, 0 wrong, 1 not checked", 0),
        (("recomputation", "damage"), "2 findings: 1 recomputed, 0 believed on signatures, 1 wrong, 1 not checked", 1),
        (("majority", "quorum", "certificate", "summary"),
         "4 findings: 1 recomputed, 3 believed on signatures, 0 wrong, 1 not checked", 0),
        (("majority", "undecided"), "1 finding: 0 recomputed, 1 believed on signatures (1 of them for lack of a "
         "recomputation), 0 wrong, 2 not checked", 0),
    ],
)  # fmt: skip
def test_findings_are_counted(
    kinds: tuple[str, ...], said: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "genesis.json").touch()
    found = [audit.Finding("ban of peer 1", kind != "damage", kind, "as peer 0 said", checked=kind != "undecided")
             for kind in kinds]  # fmt: skip
    report = verification.Report("00", (*found, audit.unchecked("roles", "nothing says so")), ())
    monkeypatch.setattr(verification, "verify", lambda *_: report)
    console = Console(file=io.StringIO(), width=200)
    assert verification.show(console, tmp_path) == code
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert printed[-1] == said
    assert printed[-2] == "not checked: roles: nothing says so"
