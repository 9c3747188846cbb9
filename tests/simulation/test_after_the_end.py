"""A peer that is killed in the instant in which the first other one finishes, and started again when all have."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from btard.node.drivers.simulator import Observed
from btard.node.netem.conditions import Conditions, Event, Window
from btard.node.protocol.api import Finished, Halted
from tests.simulation.restarting import RUN, Cluster, digests

SHORT = msgspec.structs.replace(RUN, steps=4)


def endings(seen: list[Observed], kind: type[Finished] | type[Halted]) -> dict[int, float]:
    """When each node ended in this way."""
    return {each.node: each.time_s for each in seen if isinstance(each.output, kind)}


@pytest.mark.parametrize("stay", [True, False], ids=["the others stay", "the others are gone"])
def test_who_missed_the_end_comes_to_it_where_the_others_stay(stay: bool, tmp_path: Path) -> None:
    calm = Cluster(tmp_path / "calm", Conditions(), {}, 1, SHORT).play()
    ended = endings(calm, Finished)
    victim = max(ended, key=ended.__getitem__)
    hit_s = min(ended.values()) + 1e-6
    assert hit_s < ended[victim]
    hits = (
        Event(Window("s", hit_s), "kill", (victim,), "kill"),
        Event(Window("s", max(ended.values()) + 1.0), "restart", (victim,), "restart"),
    )
    killed = Cluster(tmp_path / "killed", Conditions(events=hits), {}, 1, SHORT)
    for node in killed.watched.simulation.nodes.values():
        node.peer.stays = stay
    seen = killed.play(())
    assert (victim in endings(seen, Finished)) is stay
    assert (victim in endings(seen, Halted)) is not stay
    assert endings(seen, Finished).keys() | {victim} == ended.keys()
    assert digests(seen) == digests(calm)
