"""The language of scenarios: what its lines become, and the place and words of every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from btard.launcher.run import plan
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.scenario import Script, parse
from btard.node.errors import ConfigError
from btard.node.netem.conditions import Change, Event, Window


def read(text: str, peers: int = 6, steps: int = 200) -> Script:
    return parse(text, "flaky.scn", peers, steps)


LINES = {
    "from 30s to 60s delay 0->4 50ms jitter 10ms": Change(
        Window("s", 30.0, 60.0), {"delay_s": 0.05, "jitter_s": 0.01}, ((0, 4),)
    ),
    "from step 20 loss all 1%": Change(Window("step", 20.0), {"loss": 0.01}),
    "at 2min bandwidth 1<->2 10mbit": Change(
        Window("s", 120.0), {"bandwidth_bytes_per_s": 1.25e6}, ((1, 2), (2, 1))
    ),
    "from step 3 to step 4 cut 0->1": Change(Window("step", 3.0, 4.0), {}, ((0, 1),), cut=True),
    "at 1s duplicate *->0 100%": Change(
        Window("s", 1.0), {"duplicate": 1.0}, ((1, 0), (2, 0), (3, 0), (4, 0), (5, 0))
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", LINES, ids=str)
def test_lines_about_links(text: str) -> None:
    expected = LINES[text]
    assert read(text).changes == (Change(expected.window, expected.values, expected.pairs, expected.cut, text),)


def test_a_partition_cuts_every_link_between_its_sides_both_ways() -> None:
    (change,) = read("at step 100 partition 0,1 | 2,3,4,5").changes
    assert change.pairs is not None
    assert change.cut
    assert set(change.pairs) == {pair for a in (0, 1) for b in (2, 3, 4, 5) for pair in ((a, b), (b, a))}


def test_lines_about_processes_comments_and_blanks() -> None:
    script = read(
        "# a bad day\n\nat 90s kill 5   # for good\nat 10s pause 3,4 for 2s\nat step 7 pause 0\nat 1min continue 0"
    )
    assert [(event.action, event.peers, event.window.unit, event.window.start) for event in script.events] == [
        ("kill", (5,), "s", 90.0), ("pause", (3, 4), "s", 10.0), ("continue", (3, 4), "s", 12.0),
        ("pause", (0,), "step", 7.0), ("continue", (0,), "s", 60.0),
    ]  # fmt: skip
    assert script.events[0] == Event(Window("s", 90.0), "kill", (5,), "at 90s kill 5")
    assert not script.changes


def test_peers_that_were_cut_off_or_paused_may_be_started_again() -> None:
    """They may have ended by themselves: halted without a quorum, or found themselves gone."""
    script = read("from 1s to 9s partition 0,1,2,3 | 4,5\nat 10s restart 4,5\nat 11s pause 0 for 5s\nat 20s restart 0")
    assert [event.peers for event in script.events if event.action == "restart"] == [(4, 5), (0,)]


MISTAKES = {
    "at 1s restart 5": (15, "peer 5 has not been killed by an earlier line, nor paused or cut off"),
    "at 1s partition 0,1,2,3 | 4,5\nat 9s restart 3": (15, "peer 3 has not been killed by an earlier line, nor"),
    "kill 5": (1, "a line begins with `at` or `from`, not with 'kill'"),
    "at": (3, "the line ends where a time or a step is expected"),
    "at 90s": (7, "the line ends where what happens is expected"),
    "at 90 parsecs kill 5": (7, "'parsecs' is none of partition, cut, kill"),
    "at -1s kill 5": (4, "-1s is before the run"),
    "at step 201 kill 5": (9, "there is no step 201; the run's are 0 to 200"),
    "at step two kill 5": (9, "'two' is not a whole number"),
    "at 90s kill 6": (13, "there is no peer 6; the peers are 0 to 5"),
    "at 90s kill five": (13, "'five' is not a peer"),
    "at 90s kill 5,5": (15, "peer 5 is named twice"),
    "at 90s kill 5 6": (15, "nothing may follow here, and '6' does"),
    "from 90s kill 5": (1, "kill happens at one moment; write `at`"),
    "from 60s to 30s loss all 1%": (13, "it ends before it begins"),
    "from 60s to step 70 loss all 1%": (13, "both ends must be steps, or both times"),
    "at 1s delay 0->6 50ms": (16, "there is no peer 6"),
    "at 1s delay 0-4 50ms": (13, "a link is written FROM->TO"),
    "at 1s delay 0->0 50ms": (13, "no link to itself"),
    "at 1s delay 0->4": (17, "the line ends where a delay is expected"),
    "at 1s delay 0->4 fast": (18, "'fast' is not a duration"),
    "at 1s loss all 101%": (16, "'101%' is not a share"),
    "at 1s delay all 1s lag 2s": (20, "'lag' is none of delay, jitter"),
    "at 1s partition 0,1,2": (22, "a partition has at least two sides"),
    "at 1s partition 0,1 | 2,3,4": (7, "peer 5 is on no side of this partition"),
    "at 1s partition 0,1 | 1,2,3,4,5": (23, "peer 1 is named twice"),
    "from step 5 to step 9 partition 0,1,2 | 3,4,5": (23, "no side has a quorum (4 of 6), so no step passes"),
    "at 1s kill 5\nat 2s pause 5": (13, "peer 5 has been killed by an earlier line"),
    "at 1s continue 5": (16, "peer 5 is not paused by an earlier line"),
    "at 1s pause 5\nat 2s pause 5": (13, "peer 5 is paused already"),
    "at step 4 pause 5 for 2s": (23, "needs a pause at a time, not at a step"),
}


@pytest.mark.parametrize("text", MISTAKES, ids=repr)
def test_a_mistake_is_named_with_its_line_and_column(text: str) -> None:
    column, words = MISTAKES[text]
    with pytest.raises(ConfigError) as refused:
        read(text)
    place, _, problem = str(refused.value).partition(": ")
    assert place == f"flaky.scn:{text.count(chr(10)) + 1}:{column}"
    assert words in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("at step 100 partition 0,1,2 | 3,4,5", "flaky.scn:1: no side has a quorum (4 of 6)"),
        ("at 1s kill 3\nat 2s kill 4\nat 3s kill 5", "flaky.scn:3: 3 of 6 peers are left, which is no quorum"),
    ],
)
def test_what_leaves_no_quorum_is_said_before_the_run(text: str, words: str) -> None:
    (warning,) = read(text).warnings
    assert warning.startswith(words)


def test_a_scenario_is_checked_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "flaky.scn"
    path.write_text("at 1s kill 9\n")
    with pytest.raises(ConfigError, match=r"flaky\.scn:1:12: there is no peer 9"):
        plan.quick_check(Experiment(scenario=str(path)))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        plan.quick_check(Experiment(scenario=str(tmp_path / "none.scn")))
