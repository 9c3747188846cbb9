"""Composed runs whose parts and aggregates travel as bfloat16 keep every promise; who does not round owes its bytes."""

from __future__ import annotations

from dataclasses import fields

import pytest
from torch import Tensor

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.api import Accused, Banned, Finished
from btard.node.protocol.settings import Settings
from btard.node.protocol.wire.precision import BF16, Precision
from tests.simulation import soak
from tests.simulation.composer import compose
from tests.simulation.stage import Stage, set_up

SEEDS = (2, 7, 9, 11, 16, 22, 35, 42)
"""Of composition 3, with bfloat16."""

RUN = RunConfig(task=Plugin("quadratic", {"dimension": 64}), steps=12, batch_size=4, wire="bf16")


def told(stage: Stage, kind: type, node: int = 0) -> list[object]:
    return [seen.output for seen in stage.simulation.run() if seen.node == node and isinstance(seen.output, kind)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds_after_every_step(seed: int) -> None:
    assert compose(seed, 3).run.wire == "bf16"
    soak.hold(seed, 3)


@pytest.mark.parametrize("peers", [4, 6, 9])
@pytest.mark.parametrize("rule", ["centered_clip", "mean"])
def test_no_honest_part_is_ever_recomputed(peers: int, rule: str) -> None:
    for seed in range(3):
        run = RunConfig(
            peers,
            Plugin("quadratic", {"dimension": 64}),
            Plugin(rule),
            steps=8,
            batch_size=1,
            wire="bf16",
            data_seed=seed,
            tau=20.0,
        )
        assert not told(set_up(run, protocol_seed=seed), Accused)


@pytest.mark.parametrize("scale", [0.3, 1.0, 100.0])
def test_a_shifted_aggregate_is_found_and_its_aggregator_banned(scale: float) -> None:
    role = Role((Plugin("shift_aggregate", {"scale": scale}),), Schedule(start=2), (5,))
    bans = told(set_up(RUN, {5: role}), Banned)
    assert [(ban.peer, ban.reason) for ban in bans if isinstance(ban, Banned)] == [(5, "aggregate")]


class Careless(Precision):
    """Frames have two bytes an entry, and nothing is rounded for them."""

    def rounded(self, values_P: Tensor) -> Tensor:
        return values_P


class CarelessSettings(Settings):
    """A program that commits to what it cannot send."""

    def __post_init__(self) -> None:
        careless = Careless(BF16.item_bytes, BF16.relative, BF16.absolute, BF16.blind_share, narrow=True)
        object.__setattr__(self, "precision", careless)


def test_who_commits_to_values_that_no_frame_can_carry_is_gone_for_withholding_them() -> None:
    stage = set_up(RUN)
    shared = stage.simulation.nodes[5].peer.shared
    shared.settings = CarelessSettings(
        **{each.name: getattr(shared.settings, each.name) for each in fields(Settings) if each.init}
    )
    seen = [found for found in stage.simulation.run() if found.node == 0]
    bans = [found.output for found in seen if isinstance(found.output, Banned)]
    assert [(ban.step, ban.peer, ban.reason) for ban in bans] == [(0, 5, "withheld")]
    assert any(isinstance(found.output, Finished) for found in seen)
