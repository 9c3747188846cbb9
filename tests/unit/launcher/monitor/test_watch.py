"""Following journals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from btard.launcher.monitor.state import RunState
from btard.launcher.monitor.watch import Watch
from btard.node.errors import BackendError, DataError
from btard.node.storage.journal import Journal


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_are_collected_once_in_order_of_time(tmp_path: Path) -> None:
    times = iter([3.0, 1.0, 2.0])
    state = RunState(2)
    watch = Watch(tmp_path, state, 9)
    assert watch.look() == [], "no journal is there yet"
    with (
        Journal(tmp_path / "nodes/0/journal.jsonl", 0, lambda: next(times)) as first,
        Journal(tmp_path / "nodes/1/journal.jsonl", 1, lambda: next(times)) as second,
    ):
        first.append("greeted", peers=[1])
        second.append("bound", control="c", bulk="b")
        assert [(record["node"], record["event"]) for record in watch.look()] == [(1, "bound"), (0, "greeted")]
        second.append("evaluated", step=0, correct=1, count=2)
    assert [record["event"] for record in watch.look()] == ["evaluated"]
    assert watch.look() == []
    watch.note("ended", outcome="finished")
    watch.close()
    assert [line["event"] for line in lines(tmp_path / "events.jsonl")] == ["bound", "greeted", "ended"]
    assert [line["event"] for line in lines(tmp_path / "metrics.jsonl")] == ["evaluated"]
    assert (state.nodes[0].state, state.nodes[1].accuracy) == ("ready", 0.5)


def test_what_was_collected_and_then_damaged_is_one_clear_line(tmp_path: Path) -> None:
    """A line without its time could not be put in order."""
    (tmp_path / "events.jsonl").write_text(
        '{"time": 1.0, "node": 0, "event": "bound"}\n{"node": 0, "event": "greeted"}\n'
    )
    watch = Watch(tmp_path, RunState(1), 9)
    with pytest.raises(
        DataError, match=r"events.jsonl is damaged at byte 43: a record needs 'time', and .*; run again"
    ):
        watch.catch_up()
    watch.close()


def test_half_a_line_waits_for_its_rest(tmp_path: Path) -> None:
    watch = Watch(tmp_path, RunState(1), 9)
    path = tmp_path / "nodes/0/journal.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"time": 1, "node": 0, "ev')
    assert watch.look() == []
    with path.open("a") as file:
        file.write('ent": "bound"}\n')
    assert [record["event"] for record in watch.look()] == ["bound"]
    watch.close()


@pytest.mark.parametrize("left", [0, 1, 20, 40])
def test_a_line_that_the_launcher_did_not_finish_is_collected_again(tmp_path: Path, left: int) -> None:
    """It was killed in the middle of a write; what it has collected is read again by the one that resumes."""
    with Journal(tmp_path / "nodes/0/journal.jsonl", 0, lambda: 1.0) as told:
        told.append("greeted", peers=[0])
        told.append("bound", control="c", bulk="b")
    first = Watch(tmp_path, RunState(1), 9)
    first.look()
    first.close()
    collected = tmp_path / "events.jsonl"
    whole = collected.read_bytes()
    collected.write_bytes(whole[: whole.index(b"\n") + 1 + left])
    second = Watch(tmp_path, RunState(1), 9)
    second.catch_up()
    assert [record["event"] for record in second.look()] == ["bound"]
    second.close()
    assert collected.read_bytes() == whole


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot write"):
        Watch(tmp_path / "gone", RunState(1), 9)
