"""All honest peers are killed in an undo step and started again: the window comes back from disk, nothing differs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from btard.node.drivers.simulator import Observed
from btard.node.netem.conditions import Conditions, Event, Window
from btard.node.protocol.api import Finished, PhaseEntered, Undone
from tests.simulation.restarting import RUN, Cluster, digests
from tests.simulation.test_churn import ATTACK

HONEST = (0, 1, 2, 3)
"""A checker asks attackers what they did: they stay."""


def undone(seen: list[Observed]) -> list[Undone]:
    return [each.output for each in seen if each.node == 0 and isinstance(each.output, Undone)]


def test_an_undo_goes_on_where_it_was(tmp_path: Path) -> None:
    run = msgspec.structs.replace(RUN, undo=6, steps=10)
    roles = dict.fromkeys((4, 5), ATTACK)
    calm = Cluster(tmp_path / "calm", Conditions(), roles, 1, run).play()
    first = undone(calm)[0]
    assert first.to_step is not None
    begun = PhaseEntered(first.step, 0, "COMMIT")
    all_in_s = max(each.time_s for each in calm if each.node in HONEST and each.output == begun)
    hits = (
        Event(Window("s", all_in_s + 1e-6), "kill", HONEST, "kill"),
        Event(Window("s", 12.0), "restart", HONEST, "restart"),
    )
    killed = Cluster(tmp_path / "killed", Conditions(events=hits), roles, 1, run)
    seen = killed.play()
    assert [cue.action for cue in killed.played] == ["kill", "restart"]
    assert undone(seen) == undone(calm)
    assert digests(seen) == digests(calm)
    assert {each.node for each in seen if isinstance(each.output, Finished)} >= set(HONEST)
