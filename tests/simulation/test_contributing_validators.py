"""Validators that contribute too (PROTOCOL section 10, rule 8): whole clusters, with and without attackers."""

from __future__ import annotations

import pytest

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.genesis.genesis import genesis_digest
from btard.node.protocol.api import Banned, Committed, Finished
from tests.simulation.attacked import configuration
from tests.simulation.checkers import PROMISES
from tests.simulation.hostile import let_drift
from tests.simulation.stage import Stage, play, set_up


def committed(stage: Stage) -> list[Committed]:
    """What every honest peer has committed, by the eyes of all checkers."""
    seen = play(stage, PROMISES)
    assert {each.node for each in seen if isinstance(each.output, Finished)} >= set(stage.honest)
    return [each.output for each in seen if each.node == stage.witness and isinstance(each.output, Committed)]


@pytest.mark.parametrize(
    ("peers", "choice", "everyone"),
    [(5, "auto", True), (7, "auto", True), (5, "off", False), (6, "auto", False), (6, "on", True)],
)
def test_who_contributes(peers: int, choice: str, everyone: bool) -> None:
    *steps, last = committed(set_up(configuration(peers=peers, steps=4, validators_contribute=choice)))
    assert not steps[0].validators and last.validators and not last.contributors
    for done in steps:
        idle = set() if everyone else set(done.validators)
        assert set(done.contributors) == set(done.active) - idle
        assert len(done.validators) == bool(done.step)
        assert not set(done.validators) & set(done.validators.values())


ATTACKS = [
    ("sign_flip", {}, "gradient"),
    ("lie_checksum", {}, "checksum"),
    ("shift_aggregate", {}, "aggregate"),
    ("silent_validator", {}, "malformed"),
    ("false_accuse", {}, "false_accusation"),
    ("withhold_reveal", {"biased": True}, "silent"),
]


@pytest.mark.slow
@pytest.mark.parametrize("peers", [5, 7])
@pytest.mark.parametrize(("name", "parameters", "reason"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_the_promises_hold_at_odd_n(name: str, parameters: dict[str, object], reason: str, peers: int) -> None:
    """As many attackers as there may be; every checker looks on."""
    attackers = tuple(range((peers + 2) // 2, peers))
    role = Role((Plugin(name, parameters),), Schedule(start=1), attackers, 1)
    stage = set_up(configuration(peers=peers, steps=12, validators=2), dict.fromkeys(attackers, role), 3)
    seen = play(stage, PROMISES)
    bans = {each.output.peer: each.output.reason for each in seen
            if each.node == stage.witness and isinstance(each.output, Banned)}  # fmt: skip
    assert bans.keys() <= set(attackers)
    assert set(bans.values()) == {reason}


def test_a_step_stays_below_half_of_attackers() -> None:
    """Two of five: with an idle honest validator they are half of the contributors, here never."""
    attackers = (3, 4)
    role = Role((Plugin("lenient_validator"),), Schedule(start=0), attackers, 1)
    worst = {}
    for choice in ("auto", "off"):
        run = configuration(peers=5, steps=8, validators_contribute=choice)
        steps = committed(set_up(run, dict.fromkeys(attackers, role)))[:-1]
        found = [done.contributors for done in steps]
        worst[choice] = max(len(set(attackers) & set(peers)) / len(peers) for peers in found)
    assert worst == {"auto": 2 / 5, "off": 2 / 4}


def test_different_platforms_within_the_tolerance_never_accuse_each_other() -> None:
    run = configuration(peers=5, steps=4, recompute_tolerance=1e-4)
    stage = set_up(run)
    let_drift(stage, 1e-4 / 2.5)
    assert [set(done.contributors) for done in committed(stage)[:-1]] == [set(range(5))] * 4


def test_it_is_agreed_on() -> None:
    """In the genesis: peers that differ about it do not listen to each other."""
    members, _ = generate(0, 5)
    choices = [RunConfig(peers=5, validators_contribute=choice) for choice in ("auto", "on", "off")]
    assert len({genesis_digest("run", run, members) for run in choices}) == 3
