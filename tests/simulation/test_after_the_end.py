"""Peers that are started again when all others have finished: one that was killed in the instant in which the first
other one finished, and ones that were gone long before."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from btard.node.config import RunConfig
from btard.node.drivers.simulator import Observed
from btard.node.netem.conditions import Conditions, Event, Window
from btard.node.protocol.api import Banned, Finished, Halted
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


GONE_S = 600.0
"""Later than any of these clusters ends."""


def gone(where: Path, peers: tuple[int, ...], run: RunConfig, staying: int) -> list[Observed]:
    """A cluster whose `peers` are killed as step 2 begins, and started again after its end; of the others some stay."""
    hits = (
        Event(Window("step", 2), "kill", peers, "kill"),
        Event(Window("s", GONE_S), "restart", peers, "restart"),
    )
    cluster = Cluster(where, Conditions(events=hits), {}, 1, run)
    others = [node for me, node in cluster.watched.simulation.nodes.items() if me not in peers]
    for node in others[:staying]:
        node.peer.stays = True
    return cluster.play(())


@pytest.mark.parametrize("undo", [0, 4], ids=["who was gone could come back", "nobody could"])
@pytest.mark.parametrize("peers", [(5,), (0, 3)], ids=["one", "f"])
def test_who_was_gone_at_the_end_finishes_with_the_state_of_those_that_stay(
    peers: tuple[int, ...], undo: int, tmp_path: Path
) -> None:
    seen = gone(tmp_path, peers, msgspec.structs.replace(SHORT, undo=undo), 4)
    assert {each.output.peer for each in seen if isinstance(each.output, Banned)} == set(peers)
    ends = {each.node: each.output for each in seen if isinstance(each.output, Finished)}
    assert ends.keys() == set(range(RUN.peers))
    assert min(endings(seen, Finished)[peer] for peer in peers) > GONE_S
    (end, *others) = ends.values()
    assert all(each.step == end.step and torch.equal(each.parameters_D, end.parameters_D) for each in others)
    summaries = {msgspec.msgpack.encode(msgspec.msgpack.decode(each.certificate)[0]) for each in ends.values()}
    assert len(summaries) == 1
    assert not endings(seen, Halted)


def test_who_was_gone_believes_no_f_of_those_that_stay(tmp_path: Path) -> None:
    seen = gone(tmp_path, (5,), SHORT, 2)
    assert 5 not in endings(seen, Finished)
    (halted,) = (each.output for each in seen if isinstance(each.output, Halted))
    assert "no quorum" in halted.problem or "do not answer" in halted.problem
