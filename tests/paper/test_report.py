"""Sentences of the report (Zaharia, "Byzantine Attacks in Distributed Training", 2021), each with what holds it."""

from __future__ import annotations

import math

import pytest
import torch

from btard.node.aggregation import centered_clip
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.api import Banned, Committed
from btard.node.protocol.attempt.mprng import projection
from btard.node.protocol.attempt.verification import checksum
from btard.node.protocol.roster import Roster
from btard.node.protocol.wire.messages import Report
from tests.protocol_attempts import complete, said
from tests.simulation.checkers import PROMISES
from tests.simulation.stage import Stage, play, set_up


def six(attack: Plugin, steps: int, start: int = 1, seed: int = 2, **more: object) -> Stage:
    """The report's six workers, 4 and 5 of them attackers."""
    run = RunConfig(peers=6, task=Plugin("quadratic"), steps=steps, batch_size=2, **more)  # type: ignore[arg-type]
    role = Role((attack,), Schedule(start=start), (4, 5))
    return set_up(run, {4: role, 5: role}, protocol_seed=seed)


def bans(stage: Stage) -> list[Banned]:
    seen = play(stage, PROMISES)
    return [found.output for found in seen if found.node == 0 and isinstance(found.output, Banned)]


def test_the_bound_on_attackers() -> None:
    """Section 4.1: "Assuming that Byzantine attackers do not accuse their peers when it is their turn to validate, we
    obtain an upper bound of ceil(n/2) - 1 simultaneous Byzantine workers"."""
    for peers in range(2, 50):
        assert Roster.genesis(bytes(32) for _ in range(peers)).genesis_faults == math.ceil(peers / 2) - 1


@pytest.mark.slow
def test_attackers_do_not_accuse_each_other() -> None:
    """Section 4.1: "Byzantine attackers do not accuse their peers when it is their turn to validate"."""
    lenient = 0
    for seed in range(6):
        stage = six(Plugin("sign_flip"), steps=15, seed=seed)
        for seen in play(stage, ()):
            if isinstance(seen.output, Banned) and seen.node == 0:
                assert seen.output.accuser not in stage.roles
            if isinstance(seen.output, Committed) and seen.node == 0:
                lenient += any(v in stage.roles and t in stage.roles for v, t in seen.output.validators.items())
    assert lenient, "in one of the runs an attacker examines the other"


def test_a_commitment_to_the_computation() -> None:
    """Section 4.3: "At each step, workers compute a checksum of their computed gradients and broadcast it to announce
    completion and to commit to their computation"."""
    from btard.node.protocol.wire.messages import Commit

    attempt = complete(step=1, node=2).attempt
    assert attempt.own_D is not None
    body = said(attempt, Commit, 2)
    assert isinstance(body, Commit)
    assert len(body.parts) == 6
    assert all(attempt.part_matches(2, part, attempt.slice(attempt.own_D, part)) for part in range(6))


def test_the_draw_cannot_be_predicted() -> None:
    """Section 4.3: "using a random selection process such that the malicious workers cannot predict when they will be
    validated next": the draw follows from r, and r from numbers that are revealed when every gradient and every
    aggregate has been committed to. One other peer's secret is enough to change it."""
    first, second = (set_up(RunConfig(peers=6, task=Plugin("quadratic"), steps=8), protocol_seed=seed)
                     for seed in (0, 1))  # fmt: skip
    drawn = [
        [dict(found.output.validators) for found in play(stage, ())
         if found.node == 0 and isinstance(found.output, Committed)]
        for stage in (first, second)
    ]  # fmt: skip
    assert drawn[0] != drawn[1]


def test_the_validator_accuses_and_everyone_recomputes() -> None:
    """Section 4.3: "The validator must then recalculate the gradients ... and accuse them if they calculated a
    different gradient for them. Upon an accusation, all workers will recompute the gradient of the accused"."""
    found = bans(six(Plugin("sign_flip", {"scale": 1.0}), steps=25))
    assert {(ban.peer, ban.reason) for ban in found} == {(4, "gradient"), (5, "gradient")}
    assert all(ban.accuser in (0, 1, 2, 3) for ban in found)


def test_a_false_accuser_is_banned_instead() -> None:
    """Section 4.3: "If consensus among workers is that the suspect has computed a correct gradient, the accuser will
    be banned instead since false accusation is evidence of malice"."""
    found = bans(six(Plugin("false_accuse"), steps=25))
    assert {(ban.peer, ban.reason) for ban in found} == {(4, "false_accusation"), (5, "false_accusation")}


def test_equation_3() -> None:
    """Equation 3: "s_i = <z, (g_i - x) min{1, tau / ||g_i - x||}>"."""
    z = projection(bytes(32), 40)
    gradient_P, x_P = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    difference_P = gradient_P.double() - x_P.double()
    for tau in (0.5, 100.0):
        expected = float(z.double() @ (difference_P * min(1.0, tau / float(difference_P.norm()))))
        assert checksum(gradient_P, x_P, z, tau).s == pytest.approx(expected, rel=1e-12)


def test_the_inner_products_sum_to_zero() -> None:
    """Section 4.3: "The aggregation succeeds if the sum of the inner products from all workers is zero"."""
    rows_NP = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    rows_NP[4:] *= 1000.0
    x_P, z = centered_clip(rows_NP, radius=5.0), projection(bytes(32), 40)
    assert abs(math.fsum(checksum(row_P, x_P, z, 5.0).s for row_P in rows_NP)) < 1e-3
    assert abs(math.fsum(checksum(row_P, x_P + 0.1, z, 5.0).s for row_P in rows_NP)) > 1e-1


def test_peers_aggregate_disjoint_parts() -> None:
    """Section 4.2: "workers aggregate disjoint parts of the gradient vector; this ... isolates incorrect
    contributions"."""
    attempt = complete(step=1).attempt
    assert sum(values_P.numel() for values_P in attempt.aggregates.values()) == attempt.settings.dimension
    assert list(attempt.aggregates) != []
    assert {peer: attempt.roster.place(peer) for peer in attempt.roster.active} == {peer: peer for peer in range(6)}


def test_after_a_ban_a_worker_behaves() -> None:
    """Section 5.3, rule 2: "After a worker is banned, it starts sending correct gradients as if it became a normal
    peer" (`--on-ban reform`)."""
    stage = six(Plugin("sign_flip"), steps=30, on_ban="reform")
    found = bans(stage)
    assert {(ban.peer, ban.removed) for ban in found} == {(4, False), (5, False)}
    for ban in found:
        assert max(stage.adversary(ban.peer).attacked) == ban.step
    assert stage.simulation.nodes[0].peer.state.roster.active == (0, 1, 2, 3, 4, 5)


@pytest.mark.slow
def test_a_mild_attack() -> None:
    """Section 5.1: "The mild attack: One Byzantine worker attacking every 5th step"."""
    run = RunConfig(peers=6, task=Plugin("quadratic"), steps=60, batch_size=2)
    stage = set_up(run, {5: Role((Plugin("noise"),), Schedule(start=10, every=5), (5,))}, protocol_seed=2)
    (ban,) = bans(stage)
    assert (ban.peer, ban.reason) == (5, "gradient")
    assert all(step % 5 == 0 and step >= 10 for step in stage.adversary(5).attacked)


def test_aggregation_attacks_are_caught_in_the_step() -> None:
    """Section 7: "examine the performance of Butterfly Clip in the presence of aggregation attacks, which were set
    outside the scope of this project"."""
    found = bans(six(Plugin("shift_aggregate"), steps=4, start=2))
    assert {(ban.step, ban.peer, ban.reason) for ban in found} == {(2, 4, "aggregate"), (2, 5, "aggregate")}


def test_no_trusted_validator_is_needed() -> None:
    """Section 4.1: "Any worker can be an attacker. There are no node-level trust assumptions": every peer reports on
    every contributor to its part."""
    attempt = complete(step=1).attempt
    for peer in attempt.roster.active:
        body = said(attempt, Report, peer)
        assert isinstance(body, Report)
        assert len(body.checks) == len(attempt.contributors)
