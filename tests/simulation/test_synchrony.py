"""Honest peers only, as slow as synchrony allows: nobody is suspected, banned or removed, and every step ends."""

from __future__ import annotations

import pytest

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import Banned, Halted, Voided
from tests.simulation.checkers import PROMISES
from tests.simulation.stage import play, set_up

D = 2.0
T_G = 30.0

LINKS = [
    ("at once", LinkModel(delay_s=0.0)),
    ("always late", LinkModel(delay_s=0.99 * D)),
    ("anything up to D", LinkModel(delay_s=0.0, jitter_s=0.99 * D, seed=1)),
    ("duplicated", LinkModel(delay_s=0.0, jitter_s=0.9 * D, duplicate=1.0, seed=2)),
    ("lossy", LinkModel(delay_s=0.001, jitter_s=0.1, loss=0.2, retransmit_s=0.2, seed=3)),
    ("one slow link", LinkModel(delay_s=0.001, overrides={(0, 3): LinkModel(delay_s=0.99 * D)})),
]


@pytest.mark.slow
@pytest.mark.parametrize("gradient_s", [0.0, 0.99 * T_G], ids=["fast gradients", "slow gradients"])
@pytest.mark.parametrize("links", [row[1] for row in LINKS], ids=[row[0] for row in LINKS])
def test_no_honest_peer_is_suspected(links: LinkModel, gradient_s: float) -> None:
    run = RunConfig(peers=5, task=Plugin("quadratic"), steps=4, batch_size=1, validators=2,
                    delivery_bound_s=D, gradient_bound_s=T_G)  # fmt: skip
    stage = set_up(run, links=links)
    stage.simulation._gradient_s = gradient_s
    seen = play(stage, PROMISES)
    assert not any(isinstance(found.output, Banned | Voided | Halted) for found in seen)


def test_judging_gradients_as_slowly_as_allowed_suspects_nobody() -> None:
    """Everyone recomputes what two validators accuse, while part after part is published."""
    run = RunConfig(peers=8, task=Plugin("quadratic"), steps=6, batch_size=1, validators=2, delta_max=1e-9,
                    delivery_bound_s=D, gradient_bound_s=T_G)  # fmt: skip
    role = Role((Plugin("sign_flip"),), Schedule(start=0), (5, 6, 7))
    stage = set_up(run, dict.fromkeys((5, 6, 7), role), links=LinkModel(delay_s=0.0, jitter_s=0.99 * D))
    stage.simulation._gradient_s = 0.99 * T_G
    play(stage, PROMISES)


@pytest.mark.slow
@pytest.mark.parametrize("peers", [2, 3, 4])
@pytest.mark.parametrize("rule", ["centered_clip", "mean", "median"])
def test_the_smallest_clusters_finish(peers: int, rule: str) -> None:
    """As many parameters as peers, parts of one entry, validation in every step."""
    run = RunConfig(peers=peers, task=Plugin("quadratic", {"dimension": peers}), rule=Plugin(rule), steps=12,
                    batch_size=1)  # fmt: skip
    seen = play(set_up(run), PROMISES)
    assert not any(isinstance(found.output, Banned | Voided) for found in seen)


@pytest.mark.slow
@pytest.mark.parametrize("peers", [3, 4])
@pytest.mark.parametrize(
    "attack",
    [Plugin("sign_flip"), Plugin("shift_aggregate"), Plugin("lie_checksum"), Plugin("false_accuse", {"how": "bit"})],
    ids=lambda attack: attack.name,
)
def test_one_attacker_among_few(peers: int, attack: Plugin) -> None:
    run = RunConfig(peers=peers, task=Plugin("quadratic", {"dimension": peers + 1}), steps=15, batch_size=1)
    me = peers - 1
    stage = set_up(run, {me: Role((attack,), Schedule(start=2), (me,))}, protocol_seed=4)
    seen = play(stage, PROMISES)
    assert {found.output.peer for found in seen if isinstance(found.output, Banned)} == {me}
