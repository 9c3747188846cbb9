"""All honest peers are killed in the instant in which the first of them has gone on, and started again.

Whoever was removed in the attempt that the others have still to end owes them nothing any more: what they lack of it
must be what they kept.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from btard.node.config import Plugin, Role, Schedule
from btard.node.drivers.simulator import Observed
from btard.node.netem.conditions import Conditions, Event, Window
from btard.node.protocol.api import Banned, Committed, Finished, Voided
from tests.simulation.restarting import Cluster, digests

ATTACKERS, HONEST = (4, 5), (0, 1, 2, 3)
AFTER_S = 1e-6
AWAY_S = 1.0


def roles(attack: str) -> dict[int, Role]:
    return dict.fromkeys(ATTACKERS, Role((Plugin(attack),), Schedule(start=2), ATTACKERS, attack_seed=3))


def ends(seen: list[Observed]) -> dict[tuple[int, int], float]:
    """When the first honest peer ended each attempt in which somebody was removed, by step and attempt."""
    removals = {
        (each.output.step, each.output.attempt)
        for each in seen
        if isinstance(each.output, Banned) and each.node in HONEST
    }
    found: dict[tuple[int, int], float] = {}
    for each in seen:
        if isinstance(each.output, Committed | Voided) and each.node in HONEST:
            found.setdefault((each.output.step, each.output.attempt), each.time_s)
    return {attempt: time_s for attempt, time_s in found.items() if attempt in removals}


def removed(seen: list[Observed]) -> set[tuple[int, int, int, str]]:
    return {
        (each.output.step, each.output.attempt, each.output.peer, each.output.reason)
        for each in seen
        if isinstance(each.output, Banned) and each.node in HONEST
    }


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["sign_flip", "lie_checksum", "withhold_part", "stall"])
def test_what_one_has_committed_or_voided_the_others_end_alike(attack: str, tmp_path: Path) -> None:
    """A gradient found false, bytes published for judging, an attempt made void, a dispute: in each case the digests
    and removals are those of the run without the crash."""
    calm = Cluster(tmp_path / "calm", Conditions(), roles(attack), 1).play()
    instants = ends(calm)
    assert instants
    for (step, number), time_s in instants.items():
        hits = (
            Event(Window("s", time_s + AFTER_S), "kill", HONEST, "kill"),
            Event(Window("s", time_s + AFTER_S + AWAY_S), "restart", HONEST, "restart"),
        )
        killed = Cluster(tmp_path / f"{step}-{number}", Conditions(events=hits), roles(attack), 1)
        seen = killed.play()
        assert {each.node for each in seen if isinstance(each.output, Finished)} >= set(HONEST)
        assert digests(seen) == digests(calm)
        assert removed(seen) == removed(calm)
