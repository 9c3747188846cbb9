"""A peer that was gone and is back, in what the launcher shows and writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from btard.launcher.monitor import summary_table
from btard.launcher.monitor.ground_truth import GroundTruth
from btard.launcher.monitor.state import RunState
from btard.launcher.run import summary
from btard.launcher.run.summary import Ending
from btard.launcher.verify.explanation import tell
from btard.node.storage.journal import Journal

PATH = "nodes/0/evidence/return-7-2.certificate"


def records() -> Iterator[dict[str, Any]]:
    """Peer 2 of three is gone at step 3, on probation from step 5, and back after step 7; both others say so."""
    for node in (0, 1):
        yield {"time": 1.0, "node": node, "event": "banned", "step": 3, "attempt": 0, "peer": 2, "reason": "silent",
               "accuser": None, "removed": True, "standing": "gone", "evidence": "0" * 64, "path": "x"}  # fmt: skip
    yield {"time": 2.0, "node": 2, "event": "rejoining", "step": 5}
    for step, correct in ((6, 1), (7, 2)):
        for node in (0, 1):
            yield {"time": 3.0, "node": node, "event": "probation", "step": step, "attempt": 0, "peer": 2,
                   "correct": correct, "needed": 2}  # fmt: skip
    for node in (0, 1):
        yield {"time": 4.0, "node": node, "event": "returned", "step": 7, "attempt": 0, "peer": 2, "evidence": "0" * 64,
               "path": PATH}  # fmt: skip


def test_the_live_state_follows_it_there_and_back() -> None:
    state, seen = RunState(3), []
    for record in records():
        state.apply(record)
        seen.append(state.nodes[2].out or "in")
    assert list(dict.fromkeys(seen)) == ["gone", "on probation", "in"]
    assert (state.returned[2].step, state.returned[2].evidence) == (7, PATH)


def test_an_attackers_word_lets_nobody_back() -> None:
    state = RunState(3, frozenset({1}))
    for record in records():
        if record["event"] == "banned" or record["node"] == 1:
            state.apply(record)
    assert state.nodes[2].out == "gone" and not state.returned


def test_the_summary_and_the_table_name_it_once() -> None:
    state = RunState(3)
    for record in records():
        state.apply(record)
    score = summary.summarise("run", state, {}, Ending("finished", 1.0))
    assert [(row.peer, row.step) for row in score.gone] == [(2, 3)]
    assert [(row.peer, row.step, row.evidence) for row in score.returned] == [(2, 7, PATH)]
    assert ("gone and back", f"peer 2 after step 7, on probation until then; evidence {PATH}") in summary_table.rows(
        score
    )


def test_the_truth_counts_one_return() -> None:
    state = RunState(3)
    truth, told = GroundTruth({}, state), list(records())
    for record in told:
        state.apply(record)
    names = [event.name for event in truth.saw(told)]
    assert names.count("gone") == names.count("returned") == 1
    assert not [event for event in truth.saw(told) if event.name == "returned"]


def test_the_story_tells_every_stage(tmp_path: Path) -> None:
    journals = {node: Journal(tmp_path / "nodes" / str(node) / "journal.jsonl", node) for node in range(3)}
    for record in records():
        fields = {key: value for key, value in record.items() if key not in ("time", "node", "event")}
        journals[record["node"]].append(record["event"], **fields)
    for each in journals.values():
        each.close()
    lines = [line for line in tell(tmp_path, [0, 1, 2]) if "removed" not in line]
    assert lines == [
        "step 5: peer 2, which was gone, has the state that a quorum told it, and follows on probation",
        "step 6: everyone computed the gradient of peer 2, on probation, again: correct, 1 of 2",
        "step 7: everyone computed the gradient of peer 2, on probation, again: correct, 2 of 2",
        "step 7: peer 2 has served its probation and is in the roster from the next step on",
    ]


def test_a_newcomer_is_a_node_where_its_own_journal_is() -> None:
    """A launcher's run has none of a newcomer's, and does not wait for its end."""
    entered = {"event": "entered", "time": 1.0, "node": 0, "step": 3, "attempt": 0, "peer": 3, "key": "k", "sponsor": 0}
    back = {
        "event": "returned",
        "time": 2.0,
        "node": 0,
        "step": 6,
        "attempt": 0,
        "peer": 3,
        "path": "p",
        "evidence": "e",
    }
    state = RunState(3, capacity=5)
    for record in (entered, back):
        state.apply(record)
    assert set(state.nodes) == {0, 1, 2} and not state.returned
    state = RunState(3, capacity=5)
    for record in ({"event": "bound", "time": 0.0, "node": 3}, entered):
        state.apply(record)
    assert state.nodes[3].out == "on probation"
    state.apply(back)
    assert state.nodes[3].out is None and state.returned[3].step == 6
    state.apply({"event": "bound", "time": 0.0, "node": 5})
    assert 5 not in state.nodes
