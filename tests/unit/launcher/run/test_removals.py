"""Honest peers that a run removed: which of them need an explanation, and what is said of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from btard.launcher import exits
from btard.launcher.monitor import summary_table
from btard.launcher.monitor.state import Return, RunState
from btard.launcher.run import removals
from btard.launcher.run.summary import BanRow, Ending, Failure, Happened, Summary, summarise


def row(peer: int, reason: str, byzantine: bool = False) -> BanRow:
    return BanRow(7, peer, reason, None, "evidence/x", "00", byzantine)


def summary(**fields: Any) -> Summary:
    made = summarise("run", RunState(6, frozenset({4, 5})), {}, Ending("finished", 1.0))
    return msgspec.structs.replace(made, **fields)


def failure(peer: int, exit_code: int | None) -> Failure:
    return Failure(peer, exit_code, None, ())


CASES: list[tuple[str, Summary, list[int]]] = [
    ("an attacker banned", summary(bans=[row(4, "gradient", True)], gone=[]), []),
    ("an honest peer banned", summary(bans=[row(2, "gradient")], gone=[]), [2]),
    ("an honest peer banned, though the scenario paused it",
     summary(bans=[row(2, "gradient")], gone=[], scenario=[Happened("pause", (2,), 1.0, "")]), [2]),
    ("gone without a cause", summary(bans=[], gone=[row(3, "silent")]), [3]),
    ("its process ended by itself", summary(bans=[], gone=[row(3, "silent")], failures=[failure(3, 1)]), [3]),
    ("killed from outside", summary(bans=[], gone=[row(3, "silent")], failures=[failure(3, -9)]), []),
    ("its container killed", summary(bans=[], gone=[row(3, "silent")], failures=[failure(3, 137)]), []),
    ("killed by the scenario",
     summary(bans=[], gone=[row(3, "silent")], scenario=[Happened("kill", (3,), 1.0, "")]), []),
    ("another one killed by the scenario",
     summary(bans=[], gone=[row(3, "silent")], scenario=[Happened("kill", (2,), 1.0, "")]), [3]),
    ("a link changed by the scenario",
     summary(bans=[], gone=[row(3, "silent")], scenario=[Happened("begins", (), 1.0, "")]), []),
    ("gone and back", summary(bans=[], gone=[row(3, "silent")], returned=[Return(9, 3, "x")]), []),
    ("eliminated", summary(bans=[], gone=[], eliminated=[row(1, "eliminated"), row(4, "eliminated", True)]), []),
]  # fmt: skip


@pytest.mark.parametrize(("made", "peers"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_honest_peers_that_need_an_explanation(made: Summary, peers: list[int]) -> None:
    assert list(removals.unexplained(made)) == peers


def test_the_table_names_the_likely_cause() -> None:
    lines = dict(summary_table.rows(summary(bans=[row(2, "gradient")], gone=[], eliminated=[row(1, "eliminated")])))
    assert "btard-launch check FILE.py" in lines["honest, yet removed"]
    assert "nobody can tell which" in lines["honest, eliminated"]


@pytest.mark.parametrize(
    ("outcome", "violated", "removed", "code"),
    [
        ("finished", False, True, 1),
        ("finished", True, True, 4),
        ("finished", False, False, 0),
        ("timeout", False, True, 5),
    ],
)
def test_exit_codes(outcome: str, violated: bool, removed: bool, code: int) -> None:
    assert exits.of_run(outcome, None, violated, removed) == code
