"""An optimiser with a state of its own length is agreed on, taken back, resumed and rejoined as SGD's is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from btard.node.config import Plugin, RunConfig
from btard.node.netem.conditions import Conditions, Event, Window
from btard.node.protocol.api import Committed, Finished, Returned, Undone
from btard.node.protocol.state.state import State
from tests.simulation import restarting
from tests.simulation.checkers import PROMISES
from tests.simulation.restarting import Cluster, digests
from tests.simulation.test_rejoin import RUN as REJOINING
from tests.simulation.test_rejoin import killed, outputs
from tests.simulation.test_undo import stage_of

OPTIMISERS = [
    Plugin("adam"),
    Plugin("adamw"),
    Plugin("lamb"),
    Plugin("rmsprop", {"momentum": 0.9}),
    Plugin("nadam"),
]
ADAM = {"optimiser": Plugin("adam"), "lr": 0.01, "schedule": Plugin("cosine", {"warmup": 3})}
NAMES = [each.name for each in OPTIMISERS]


def states(run_optimiser: Plugin, seed: int) -> tuple[dict[int, State], list[Undone]]:
    """What peer 0 went through under two liars: its state before each step, and what was undone."""
    stage = stage_of([Plugin("sign_flip")], seed, optimiser=run_optimiser, lr=0.01)
    checkers = [promise(stage) for promise in PROMISES]
    found, undone = {0: stage.simulation.nodes[0].peer.state}, list[Undone]()
    for seen in stage.simulation.run():
        for checker in checkers:
            checker.see(seen)
        if seen.node == 0 and isinstance(seen.output, Committed):
            state = stage.simulation.nodes[0].peer.state
            found[state.step] = state
        elif seen.node == 0 and isinstance(seen.output, Undone):
            undone.append(seen.output)
    for checker in checkers:
        checker.end()
    return found, undone


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=NAMES)
def test_an_undo_takes_the_optimisers_state_back(optimiser: Plugin) -> None:
    found, undone = states(optimiser, 0)
    restored = [each for each in undone if each.to_step is not None]
    assert restored
    for each in restored:
        assert each.to_step is not None
        before, after = found[each.to_step], found[each.step + 1]
        assert after.optimiser_D.equal(before.optimiser_D) and after.parameters_D.equal(before.parameters_D)
        assert not found[each.step].optimiser_D.equal(before.optimiser_D)


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=NAMES)
def test_a_run_repeats_bit_for_bit(optimiser: Plugin) -> None:
    first, again = (states(optimiser, 1)[0] for _ in range(2))
    assert first.keys() == again.keys() and len(first) > 10
    for step, state in first.items():
        assert state.optimiser_D.equal(again[step].optimiser_D) and state.parameters_D.equal(again[step].parameters_D)


def test_adams_state_comes_back_from_the_disk(tmp_path: Path) -> None:
    """All peers are killed in the middle of the run."""
    run = msgspec.structs.replace(restarting.RUN, steps=8, **ADAM)
    everyone = tuple(range(run.peers))
    hits = (Event(Window("step", 4), "kill", everyone, "kill"), Event(Window("s", 30.0), "restart", everyone, "again"))
    calm = Cluster(tmp_path / "calm", Conditions(), {}, 1, run).play()
    killed_ = Cluster(tmp_path / "killed", Conditions(events=hits), {}, 1, run)
    seen = killed_.play()
    assert [cue.action for cue in killed_.played] == ["kill", "restart"]
    assert digests(seen) == digests(calm)
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(everyone)


@pytest.mark.parametrize("optimiser", [Plugin("adam"), Plugin("adagrad")], ids=["longer", "with scalars"])
def test_a_peer_that_comes_back_fetches_a_state_of_any_length(tmp_path: Path, optimiser: Plugin) -> None:
    run: RunConfig = msgspec.structs.replace(REJOINING, optimiser=optimiser, lr=0.01)
    cluster = Cluster(tmp_path, Conditions(events=killed((5,), 3, 5)), {}, 0, run)
    seen = cluster.play(())
    assert len({each.output.step for each in outputs(seen, Returned)}) == 1
    assert all(len(found) == 1 for found in digests(seen).values())
    finished = {each.node: each.output for each in outputs(seen, Finished)}
    assert set(finished) == set(range(run.peers))
    ends = [cluster.watched.simulation.nodes[peer].peer.state for peer in finished]
    assert all(end.optimiser_D.equal(ends[0].optimiser_D) for end in ends)
    assert ends[0].optimiser_D.numel() != ends[0].parameters_D.numel()
