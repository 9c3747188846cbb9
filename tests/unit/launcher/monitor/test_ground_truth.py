"""The ground truth's metrics, from the records of a run."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any

import pytest
from prometheus_client import generate_latest

from btard.launcher.monitor.ground_truth import Event, GroundTruth
from btard.launcher.monitor.state import RunState
from btard.node.config import Plugin, Role, Schedule
from btard.node.metrics.http import MetricsEndpoint
from tests.scraping import Values, parse, scrape

FLIP = Role((Plugin("sign_flip"), Plugin("lie_checksum")), Schedule(start=2, stop=4, every=3), (3,))


def committed(step: int, node: int = 0, active: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, Any]:
    return {"time": 100.0 + step, "node": node, "event": "committed", "step": step, "contributors": active,
            "active": active, "seconds": 0.1, "loss": 1.0, "parameter_digest": "", "state_digest": "",
            "bulk_bytes": 0, "control_bytes": 0, "publication_bytes": 0}  # fmt: skip


def banned(peer: int, node: int, step: int = 3, standing: str = "banned") -> dict[str, Any]:
    return {"time": 110.0 + node, "node": node, "event": "banned", "step": step, "attempt": 0, "peer": peer,
            "reason": "gradient", "accuser": 0, "removed": True, "standing": standing, "evidence": "00",
            "path": "x"}  # fmt: skip


def tell(truth: GroundTruth, state: RunState, *records: dict[str, Any]) -> list[Event]:
    for record in records:
        state.apply(record)
    return truth.saw(records)


def values(truth: GroundTruth) -> Values:
    return parse(generate_latest(truth.registry).decode())


@pytest.fixture
def state() -> RunState:
    return RunState(4, frozenset({3}))


def test_roles_are_known_from_the_start(state: RunState) -> None:
    found = values(GroundTruth({3: FLIP}, state))
    byzantine = {dict(labels)["peer"]: (dict(labels)["attack"], value)
                 for labels, value in found["btard_peer_byzantine"].items()}  # fmt: skip
    assert byzantine == {**{str(peer): ("none", 0) for peer in range(3)}, "3": ("sign_flip+lie_checksum", 1)}
    assert set(found["btard_attack_active"].values()) == {0}
    assert found["btard_scenario_event_total"][(("event", "banned"),)] == 0
    assert "btard_peer_state" not in found


def test_an_attack_is_active_from_its_start_to_its_stop(state: RunState) -> None:
    truth = GroundTruth({3: FLIP}, state, dimension=40)
    active = (("attack", "sign_flip+lie_checksum"),)
    seen = []
    for step in range(5):
        events = tell(truth, state, committed(step))
        seen.append(([event.name for event in events], values(truth)["btard_attack_active"][active]))
    assert seen == [([], 0), (["attack_started"], 1), ([], 1), (["attack_stopped"], 0), ([], 0)]
    assert values(truth)["btard_run_step"][()] == 4
    assert values(truth)["btard_expected_bytes"][()] == 5 * 4 * (4 * 30 + 3 * 40)


def attack_steps(truth: GroundTruth) -> dict[str, float]:
    return {dict(labels)["attack"]: value for labels, value in values(truth)["btard_attack_steps_total"].items()}


def test_an_attack_that_ends_between_two_looks_is_counted(state: RunState) -> None:
    truth = GroundTruth({3: FLIP}, state)
    assert attack_steps(truth) == {"none": 0, "sign_flip+lie_checksum": 0}
    events = tell(truth, state, *map(committed, range(5)))
    assert [event.name for event in events] == ["attack_started", "attack_stopped"]
    assert attack_steps(truth) == {"none": 0, "sign_flip+lie_checksum": 2}
    assert tell(truth, state, committed(4, node=1)) == []
    assert sum(attack_steps(truth).values()) == 2, "another node's word of the same step"


def test_an_attacker_banned_in_the_first_step_has_attacked(state: RunState) -> None:
    truth = GroundTruth({3: Role((Plugin("equivocate"),), Schedule(start=0))}, state)
    events = tell(truth, state, banned(3, 0, step=0), banned(3, 1, step=0), committed(0))
    assert [event.name for event in events] == ["attack_started", "attack_stopped", "banned"]
    assert attack_steps(truth)["equivocate"] == 1
    assert "btard_time_to_ban_seconds" in values(truth)


def test_a_run_that_goes_on_does_not_tell_its_earlier_life_again(state: RunState) -> None:
    for record in (committed(0), committed(1), committed(2), banned(3, 0, step=3), committed(3)):
        state.apply(record)
    truth = GroundTruth({3: Role((Plugin("noise"),), Schedule(start=2))}, state)
    assert values(truth)["btard_peer_banned_step"] == {(("peer", "3"), ("reason", "gradient")): 3}
    assert tell(truth, state, committed(4)) == []
    assert attack_steps(truth)["noise"] == 0


def test_an_attack_goes_on_in_a_run_that_goes_on(state: RunState) -> None:
    state.apply(committed(3))
    truth = GroundTruth({3: Role((Plugin("noise"),), Schedule(start=2))}, state)
    (event,) = tell(truth, state, committed(4))
    assert event.text == "attack noise started at step 4"
    assert attack_steps(truth)["noise"] == 2


def test_a_removed_attacker_attacks_no_more_and_is_told_once(state: RunState) -> None:
    truth = GroundTruth({3: FLIP}, state)
    tell(truth, state, committed(0), committed(1))
    events = tell(truth, state, *(banned(3, node) for node in (2, 0, 1)))
    assert [(event.name, event.about) for event in events] == [
        ("attack_stopped", "sign_flip+lie_checksum"), ("banned", "3"),
    ]  # fmt: skip
    assert events[1].time_s == 110.0, "the first report"
    assert values(truth)["btard_time_to_ban_seconds"] == {(("peer", "3"),): 110.0 - 101.0}
    assert tell(truth, state, banned(3, 1)) == []
    assert values(truth)["btard_peer_banned_step"] == {(("peer", "3"), ("reason", "gradient")): 3}
    assert values(truth)["btard_scenario_event_total"][(("event", "banned"),)] == 1


def test_an_attackers_word_counts_for_nothing(state: RunState) -> None:
    truth = GroundTruth({3: FLIP}, state)
    assert tell(truth, state, banned(0, node=3)) == []
    assert tell(truth, state, {"time": 1.0, "node": 3, "event": "halted", "step": 1, "problem": "no"}) == []
    assert "btard_peer_banned_step" not in values(truth)


def test_events_of_one_attempt_count_once_and_those_of_nodes_each(state: RunState) -> None:
    truth = GroundTruth({3: FLIP}, state)
    voids = [{"time": 1.0, "node": node, "event": "voided", "step": 1, "attempt": 0, "removals": []} for node in (0, 1)]
    halts = [{"time": 1.0, "node": node, "event": "halted", "step": 1, "problem": "no"} for node in (0, 1)]
    assert [event.name for event in tell(truth, state, *voids, *halts)] == ["voided", "halted", "halted"]


def test_a_run_has_finished_once_all_honest_nodes_have(state: RunState) -> None:
    truth = GroundTruth({3: FLIP}, state)
    end = {"event": "finished", "parameter_digest": "", "path": "x", "bulk_bytes": 0, "control_bytes": 0,
           "publication_bytes": 0}  # fmt: skip
    told = [tell(truth, state, {"time": 1.0, "node": node, **end}) for node in (0, 1, 2, 3)]
    assert [[event.name for event in events] for events in told] == [[], [], ["finished"], []]


def test_above_16_peers_the_truth_tells_their_states() -> None:
    state = RunState(20, frozenset({3}))
    truth = GroundTruth({3: FLIP}, state)
    tell(truth, state, banned(3, 0), banned(5, 0, standing="gone"))
    states = {dict(labels)["peer"]: value for labels, value in values(truth)["btard_peer_state"].items()}
    assert (states["3"], states["5"], states["0"], len(states)) == (3, 4, 1, 20)


@pytest.mark.sockets
def test_it_is_served_with_the_final_accuracy(state: RunState) -> None:
    truth = GroundTruth({}, state)
    with closing(MetricsEndpoint("127.0.0.1:0", truth.registry)) as served:
        assert math.isnan(scrape(served.address)["btard_final_accuracy_ratio"][()]), "not known yet"
        truth.scored(0.875)
        assert scrape(served.address)["btard_final_accuracy_ratio"] == {(): 0.875}
