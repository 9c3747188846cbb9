"""When the events of a scenario are due, by clock and by step, and what a simulated cluster makes of them."""

from __future__ import annotations

import math
from pathlib import Path

from btard.node.build import task_of
from btard.node.config import Plugin, RunConfig
from btard.node.drivers.scheduler import ScheduledEvent, Scheduler
from btard.node.drivers.simulator import Observed, Simulation, SimulationControl, cluster
from btard.node.netem.conditions import Change, Conditions, Event, Window
from btard.node.netem.links import LinkModel
from btard.node.netem.network import Network
from btard.node.protocol.api import Banned, Committed, Finished, Halted
from tests.simulation.checkers import PROMISES
from tests.simulation.stage import Stage as Watched
from tests.simulation.stage import play

RUN = RunConfig(peers=6, task=Plugin("quadratic"), steps=12, batch_size=4)


def test_each_event_is_due_once_in_the_order_of_the_lines() -> None:
    director = Scheduler(
        Conditions(events=(Event(Window("s", 2.0), "kill", (1,), "a"), Event(Window("step", 5), "pause", (2,), "b")))
    )
    assert director.next_s(0.0) == 2.0
    assert director.due(1.9, 4) == []
    assert director.due(2.0, 5) == [ScheduledEvent("kill", (1,), "a"), ScheduledEvent("pause", (2,), "b")]
    assert director.due(9.0, 9) == []
    assert director.next_s(9.0) == math.inf


def test_changes_of_links_are_announced_when_they_begin_and_end() -> None:
    director = Scheduler(
        Conditions((Change(Window("s", 1.0, 3.0), cut=True, text="cut"), Change(values={"loss": 0.1})))
    )
    assert [director.due(now, 0) for now in (0.5, 1.0, 2.0, 3.0, 4.0)] == [
        [], [ScheduledEvent("begins", (), "cut")], [], [ScheduledEvent("ends", (), "cut")], []
    ]  # fmt: skip


def test_what_began_in_an_earlier_life_is_not_announced_again() -> None:
    director = Scheduler(Conditions((Change(Window("s", 1.0, 3.0), cut=True, text="cut"),)), begun=("cut",))
    assert [director.due(now, 0) for now in (2.0, 3.0, 4.0)] == [[], [ScheduledEvent("ends", (), "cut")], []]


def simulated(conditions: Conditions) -> tuple[Watched, list[tuple[float, ScheduledEvent]]]:
    """Six honest peers under a scenario, in virtual time."""
    task = task_of(RUN, Path("unused"))
    played: list[tuple[float, ScheduledEvent]] = []
    plain = cluster(RUN, task)
    stage = SimulationControl(Scheduler(conditions), lambda now_s, cue: played.append((now_s, cue)))
    simulation = Simulation(plain.nodes, Network(LinkModel(), conditions), plain._compute, stage=stage)
    return Watched(RUN, {}, 0, task, simulation), played


def ends(seen: list[Observed]) -> dict[int, object]:
    return {each.node: each.output for each in seen if isinstance(each.output, Finished | Halted)}


def test_a_killed_peer_is_gone_and_the_others_finish() -> None:
    stage, played = simulated(Conditions(events=(Event(Window("step", 4), "kill", (5,), "at step 4 kill 5"),)))
    seen = list(stage.simulation.run())
    assert [cue.action for _, cue in played] == ["kill"]
    assert {node for node, end in ends(seen).items() if isinstance(end, Finished)} == {0, 1, 2, 3, 4}
    removed = {(each.output.peer, each.output.reason) for each in seen if isinstance(each.output, Banned)}
    assert removed == {(5, "silent")}
    committed = [each for each in seen if isinstance(each.output, Committed) and each.node == 5]
    assert max(each.output.step for each in committed if isinstance(each.output, Committed)) < 5


def test_a_short_pause_removes_nobody() -> None:
    """Three virtual seconds are within the deadlines: everyone waits, and all promises hold."""
    pause = Event(Window("s", 0.5), "pause", (3,), "pause"), Event(Window("s", 3.5), "continue", (3,), "continue")
    stage, played = simulated(Conditions(events=pause))
    seen = play(stage, PROMISES)
    assert [round(now_s, 1) for now_s, _ in played] == [0.5, 3.5]
    assert set(ends(seen)) == set(range(6))
    assert not [each for each in seen if isinstance(each.output, Banned | Halted)]


def test_a_short_partition_removes_nobody_and_delays_what_was_said() -> None:
    """Both sides halt for three virtual seconds; what they said meanwhile arrives when it is over."""
    pairs = tuple((a, b) for a in range(6) for b in range(6) if (a < 3) != (b < 3))
    stage, _ = simulated(Conditions((Change(Window("s", 0.5, 3.5), pairs=pairs, cut=True, text="partition"),)))
    seen = play(stage, PROMISES)
    assert all(isinstance(end, Finished) for end in ends(seen).values())
    assert len(ends(seen)) == 6
    assert sum(tally.held for tally in stage.simulation.network.tallies.values()) > 0
    quiet = [each.time_s for each in seen if isinstance(each.output, Committed) and 0.7 < each.time_s < 3.5]
    assert not quiet


def test_a_lasting_split_in_halves_halts_everyone_and_bans_nobody() -> None:
    pairs = tuple((a, b) for a in range(6) for b in range(6) if (a < 3) != (b < 3))
    stage, _ = simulated(Conditions((Change(Window("step", 4), pairs=pairs, cut=True, text="partition"),)))
    seen = list(stage.simulation.run())
    assert all(isinstance(end, Halted) for end in ends(seen).values())
    assert len(ends(seen)) == 6
    assert not [each for each in seen if isinstance(each.output, Banned)]
