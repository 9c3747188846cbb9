"""What people see."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from btard.launcher.monitor import summary_table
from btard.launcher.monitor.live_view import LiveView, spark
from btard.launcher.monitor.state import NodeState, RunState
from btard.launcher.run import exit_report, plan
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.summary import Ending, Summary, summarise
from tests.unit.launcher.run.test_summary import banned, committed

ATTACKED = Experiment(task="quadratic", device="cpu", peers=3, steps=200, role=("2=noise",))


def watched(console: Console) -> RunState:
    made = plan.make(ATTACKED)
    state = RunState(3, frozenset({2}))
    monitor = LiveView(console)
    monitor.began(made, Path("/tmp/run"), state)
    for node in range(3):
        state.apply({"time": 0.0, "node": node, "event": "greeted", "peers": []})
    monitor.saw([])
    for node in range(3):
        state.apply(committed(node, 50))
        state.apply({"time": 0.0, "node": node, "event": "evaluated", "step": 50, "correct": 9, "count": 10})
    state.apply(banned(0, 101, 2))
    state.apply(committed(0, 102))
    monitor.saw([])
    monitor.saw([])
    monitor.ended()
    return state


def test_plain_lines_where_there_is_no_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    watched(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0].startswith("3 peers, quadratic, 200 steps, batch 256, rule centered_clip, tau 5, 1 validator")
    assert lines[1].startswith("undo 13 steps (")
    assert lines[2:4] == ["peer 2 attacks: noise from 100", "run directory /tmp/run"]
    assert lines[4].startswith("3 workers ready after")
    expected = "step 101: attacker 2 banned (gradient, accused by 0); evidence nodes/0/evidence/x"
    assert lines[5].startswith("step 50/200  test accuracy 0.9000")
    assert lines[6] == expected
    assert len(lines) == 7


def test_nothing_is_wider_than_a_terminal_of_80_columns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    state = watched(console)
    summary_table.show(console, summary_of(state, "finished"), Path("runs/20261129-010203-noise"))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    lines = [line for piece in text.split("\n") for line in piece.split("\r")]
    assert len(lines) > 20
    assert [line for line in lines if len(line) > 80] == []
    started = next(number for number, line in enumerate(lines) if line.startswith("3 peers, quadratic"))
    assert lines[started + 1].startswith("  ") and lines[started + 1].strip(), "what goes on is indented"
    banned_at = next(number for number, line in enumerate(lines) if line.startswith("banned  "))
    assert lines[banned_at + 1].startswith(" " * 22) and lines[banned_at + 1].strip()


def test_the_live_view_has_as_many_lines_at_every_step() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    state, monitor = RunState(3, frozenset({2})), LiveView(console)
    monitor.began(plan.make(msgspec.structs.replace(ATTACKED, steps=9000)), Path("/tmp/run"), state)
    heights = set()
    for step in (0, 50, 8950):
        for node in range(3):
            state.apply(committed(node, step))
            state.apply({"time": 0, "node": node, "event": "evaluated", "step": step, "correct": 9, "count": 10})
        lines = console.render_lines(monitor.view())
        heights.add(len(lines))
        assert "accuracy 0.9000" in "".join(segment.text for segment in lines[-1]), "nothing is cut off"
    assert heights == {5}


def test_a_wide_terminal_has_accuracy_and_events_beside_the_table() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    state, monitor = RunState(3, frozenset({2})), LiveView(console)
    monitor.began(plan.make(ATTACKED), Path("/tmp/run"), state)
    before = console.render_lines(monitor.view())
    for step, correct in ((50, 1), (100, 9)):
        for node in range(3):
            state.apply(committed(node, step))
            state.apply({"time": 0, "node": node, "event": "evaluated", "step": step, "correct": correct, "count": 10})
    state.apply(banned(0, 100, 2))
    monitor.saw([])
    lines = ["".join(segment.text for segment in line).rstrip() for line in console.render_lines(monitor.view())]
    assert lines[0].endswith("accuracy 0.10 ▁█ 0.9000") and lines[0].startswith("node")
    assert lines[1].endswith("step 100: attacker 2 banned (gradient, accused by 0)")
    assert len(lines) == len(before) == 5, "as many lines as before anything happened"


def test_a_curve_of_many_values_keeps_its_ends() -> None:
    assert spark([0.5], 9) == "▅"
    assert spark([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 9) == "▁▂▄▅▇█"
    assert spark([1.0, *[0.5] * 500, 0.0], 7) == "█▅▅▅▅▅▁"


def test_one_who_looks_late_tells_times_by_the_journals_and_in_the_order_of_steps() -> None:
    """The observer in a container sees its first hundred steps in one look; an attacker's clock counts for nothing."""
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    state = RunState(3, frozenset({2}))
    monitor = LiveView(console, since=1000.0)
    monitor.began(plan.make(ATTACKED), Path("/tmp/run"), state)
    records = [{"time": 1020.0 + node, "node": node, "event": "greeted", "peers": []} for node in range(2)]
    records.append({"time": 9e9, "node": 2, "event": "greeted", "peers": []})
    for step, at in ((50, 1031.0), (100, 1041.0), (102, 1042.0)):
        records += [{**committed(node, step), "time": 0.0 if node == 2 else at} for node in (2, 0, 1)]
        records += [{"time": at, "node": node, "event": "evaluated", "step": step, "correct": 9, "count": 10}
                    for node in range(3) if step != 102]  # fmt: skip
    records.append(banned(0, 60, 2))
    for record in records:
        state.apply(record)
    monitor.saw(records)
    monitor.saw([])
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[4] == "3 workers ready after 21.0 s"
    assert lines[5] == "step 50/200  test accuracy 0.9000  10 s, 200 ms a step"
    assert lines[6].startswith("step 60: attacker 2 banned")
    assert lines[7:] == ["step 100/200  test accuracy 0.9000  20 s, 200 ms a step"]


def test_the_command_that_checks_a_run_names_the_files_it_was_made_with(tmp_path: Path) -> None:
    console, state = Console(file=io.StringIO(), width=400), watched(Console(file=io.StringIO()))
    own = Experiment(task="quadratic", imports=("elsewhere/my rule.py",))
    summary_table.show(console, summary_of(state, "finished"), tmp_path, own)
    line = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    words = shlex.split(line.removeprefix("check the evidence with: "))
    assert words == ["btard-launch", "verify", str(tmp_path), "--import", str(tmp_path / "imports" / "my rule.py")]


@pytest.mark.parametrize("colour", [True, False])
def test_a_live_table_on_a_terminal(colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="standard")
    watched(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "honest" in text
    assert "noise" in text
    assert "step 102/200" in text
    assert ("\x1b[33m" in text) is colour


def test_what_a_resumed_run_holds_already_is_not_told_again() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    state = RunState(3, frozenset({2}))
    for node in range(3):
        for step in (50, 100):
            state.apply({"time": 0.0, "node": node, "event": "evaluated", "step": step, "correct": 9, "count": 10})
        state.apply(committed(node, 100))
    state.apply(banned(0, 60, 2))
    monitor = LiveView(console)
    monitor.began(plan.make(ATTACKED), Path("/tmp/run"), state)
    monitor.saw([])
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line for line in lines if line.startswith("step ")] == [], "told in the run's earlier life"
    state.apply(committed(0, 101))
    state.apply(banned(0, 101, 1))
    monitor.saw([])
    told = [line for line in console.file.getvalue().splitlines() if line.startswith("step ")]  # type: ignore[attr-defined]
    assert [line.split("  ")[0].split(" (")[0] for line in told] == ["step 100/200", "step 101: HONEST peer 1 banned"]


def test_an_attack_that_starts_too_late_is_pointed_out() -> None:
    console = Console(file=io.StringIO(), width=200)
    made = plan.make(Experiment(task="quadratic", device="cpu", steps=50, attack="noise", byzantine=1))
    LiveView(console).began(made, Path("/tmp/run"), RunState(6))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "warning: peer 5 never attacks: its first step 100 is not below --steps 50" in text


def summary_of(state: RunState, outcome: str, problem: str | None = None) -> Summary:
    return summarise("run", state, plan.make(ATTACKED).roles, Ending(outcome, 3.0, problem, 0.5, 64))


def test_the_final_table(tmp_path: Path) -> None:
    state = watched(Console(file=io.StringIO()))
    console = Console(file=io.StringIO(), width=40)
    summary_table.show(console, summary_of(state, "finished"), tmp_path)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = dict(summary_table.rows(summary_of(state, "finished")))
    assert rows["final test accuracy"] == "0.5000"
    assert rows["attacked"] == "peer 2: noise from 100"
    assert rows["banned"].startswith("peer 2 at step 101 for gradient, accused by peer 0, after")
    assert rows["honest peers banned"] == "none"
    assert "% of the formula's" in rows["bytes"]
    assert f"check the evidence with: btard-launch verify {tmp_path}" in text
    assert rows["banned"] in text, "lines are not broken: they are meant for grep, too"


def test_bad_news_is_said_plainly() -> None:
    state = RunState(3, frozenset({2}))
    for record in (committed(0, 0), committed(1, 0, digest="bb"), banned(0, 1, 1)):
        state.apply(record)
    rows = dict(summary_table.rows(summary_of(state, "failed", "node 0 died")))
    assert rows["outcome"] == "failed: node 0 died"
    assert rows["agreement"].startswith("BROKEN")
    assert rows["honest peers banned"] == "peer 1"
    assert rows["attackers not found"] == "peer 2"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "ended with exit code 1"),
        (-9, "was killed by SIGKILL"),
        (-99, "was killed by signal 99"),
        (None, "was stopped"),
    ],
)
def test_how_a_worker_ended(code: int | None, words: str) -> None:
    assert exit_report.how_it_ended(code) == words


def test_an_obituary_quotes_the_log() -> None:
    node = NodeState(3, step=41, problem="no space", exit_code=1)
    assert exit_report.obituary(node, ["a", "b"]) == [
        "node 3 ended with exit code 1 at step 42: no space", "  node 3 | a", "  node 3 | b"
    ]  # fmt: skip
