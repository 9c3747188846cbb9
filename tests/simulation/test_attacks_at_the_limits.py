"""Attacks that stay where a check or the clipping just does not reach: on whole peers, by what they send."""

from __future__ import annotations

import pytest

from btard.node.config import Plugin, Role, Schedule
from btard.node.protocol.api import Banned
from tests.simulation.attacked import START, configuration
from tests.simulation.stage import Stage, run_until, set_up

ATTACKERS = (4, 5)


def stage(name: str, steps: int, **parameters: object) -> Stage:
    role = Role((Plugin(name, parameters),), Schedule(start=START), ATTACKERS)
    return set_up(configuration(steps=steps), dict.fromkeys(ATTACKERS, role), protocol_seed=2)


@pytest.mark.parametrize("along", ["unit", "std", "sign"])
@pytest.mark.parametrize("share", [0.5, 0.99, 1.2])
def test_below_tau_they_are_as_far_from_the_aggregate_as_they_say(share: float, along: str) -> None:
    """By the norms that everybody claims, and checks; above tau they are clipped, so the aggregate follows less."""
    attempt = run_until(stage("below_tau", START + 1, share=share, along=along), 0, START, "REPORT").attempt
    assert set(ATTACKERS) <= set(attempt.contributors)
    _, norms_NP = attempt.claims()
    for peer, norms_P in zip(attempt.contributors, norms_NP, strict=True):
        for norm, radius in zip(norms_P, attempt.radii, strict=True):
            if peer not in ATTACKERS:
                assert norm < radius, "nobody honest is clipped"
            elif share <= 1.0:
                assert norm == pytest.approx(share * radius, rel=1e-3)
            else:
                assert norm > radius


@pytest.mark.parametrize(("share", "banned"), [(0.2, set()), (200.0, set(ATTACKERS))], ids=["below", "above"])
def test_below_v2_a_false_aggregate_is_not_found(share: float, banned: set[int]) -> None:
    played = stage("below_v2", 30, share=share)
    seen = list(played.simulation.run())
    bans = {each.output.peer: each.output.reason for each in seen if isinstance(each.output, Banned)}
    assert bans == dict.fromkeys(banned, "aggregate")
    for peer in ATTACKERS:
        attacked = played.adversary(peer).attacked
        assert attacked == list(range(START, 30)) if not banned else attacked[0] == START
