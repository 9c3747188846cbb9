"""What an adversary who thinks made of the default cluster, between real processes over real sockets: two disputes at a
time, a restart inside a dispute, and gradients that take longer than a dispute's round."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import tests
from btard.node.config import Plugin
from btard.node.netem.conditions import Change, Conditions, Window
from tests.integration.clusters import RUN, Aftermath, Attacker, Plan, agree_step_by_step, keeps_the_promises, run_all

pytestmark = [pytest.mark.sockets, pytest.mark.usefixtures("scratch")]

OWN = Path(tests.__file__).parent
D_S = 2.0
"""Waiting costs no CPU, and a process that starts on a loaded machine takes its time."""


def answers_late(peer: int, step: int, peers: int = RUN.peers) -> Conditions:
    """What a peer says in a step and the next takes a while: it would else answer the first who misses a CLOSE that it
    has before the second has missed it, and there would be no dispute."""
    to_others = tuple((peer, other) for other in range(peers) if other != peer)
    return Conditions((Change(Window("step", step, step + 2), {"delay_s": 0.25}, to_others),))


def ended(where: Path, plan: Plan) -> Aftermath:
    """What is left of one cluster."""
    return run_all(where, {"cluster": plan}, 1)["cluster"]


def test_two_camps_stay_one_cluster(tmp_path: Path) -> None:
    """Some commit a step, the others dispute it, and each camp is given a dispute of the next step and the attackers'
    signatures for what it decides: they were two clusters of three afterwards."""
    attacker = Attacker((Plugin("two_camps", {"before_s": 0.4, "gap_s": 0.4}),), start=1, stop=2)
    run = msgspec.structs.replace(RUN, steps=5)
    end = ended(tmp_path, Plan(dict.fromkeys((4, 5), attacker), run, random_keys=True))
    keeps_the_promises(end)
    assert {peer for _, peer, _ in end.removed} == {4, 5}, end.log
    finals = {record["parameter_digest"] for peer in end.honest for record in end.said(peer, "finished")}
    assert len(finals) == 1, end.log


@pytest.mark.parametrize("attackers", [(5,), (4, 5)], ids=["one", "two"])
def test_a_peer_killed_after_its_commit_has_not_forgotten_it(attackers: tuple[int, ...], tmp_path: Path) -> None:
    """Peer 0 alone has the last CLOSE of step 2, commits, is killed as its journal says so, and is started again; then
    the others dispute the step, and an attacker's view holds what makes it void. Whether peer 0 is back in time to show
    the certificate or not: nobody goes on from another state than the rest."""
    step = 2
    plugin = Plugin("second_thoughts", {"to": "@0", "before_s": 1.5 * D_S})
    run = msgspec.structs.replace(RUN, steps=20, delivery_bound_s=D_S, probation=1)
    plan = Plan(dict.fromkeys(attackers, Attacker((plugin,), start=step, stop=step + 1)), run,
                restart=(0, step), random_keys=True, imports=(OWN / "second_thoughts.py",),
                conditions=answers_late(0, step))  # fmt: skip
    end = ended(tmp_path, plan)
    assert end.said(0, "resumed"), end.log
    assert all(step in {record["step"] for record in end.said(peer, "disputed")} for peer in (1, 2, 3)), end.log
    others = tuple(peer for peer in end.honest if peer)
    assert all(end.codes[peer] == 0 and end.said(peer, "finished") for peer in others), end.log
    assert agree_step_by_step(end, others) == set(range(run.steps + 1))
    disputed_s = min(record["time"] for peer in (1, 2, 3) for record in end.said(peer, "disputed"))
    in_time = end.said(0, "resumed")[0]["time"] < disputed_s
    if not in_time and step in end.steps("voided"):
        came_back_from_the_outside(end, step)
    else:
        keeps_the_promises(end)
        assert step not in end.steps("voided"), end.log
        assert [(peer, reason) for _, peer, reason in end.removed] == [(attackers[0], "equivocation")], end.log


def came_back_from_the_outside(end: Aftermath, step: int) -> None:
    """Peer 0 was too late: what it committed is nobody else's, and it committed nothing more from there."""
    theirs = {record["step"]: record["state_digest"] for record in end.said(end.witness, "committed")}
    own = [(record["step"], record["state_digest"]) for record in end.said(0, "committed") if record["step"] != step]
    assert own and all(theirs[at] == digest for at, digest in own), end.log
    assert (0, "silent") in {(peer, reason) for _, peer, reason in end.removed}, end.log


def test_gradients_longer_than_a_round_keep_nobody_out_of_a_dispute(tmp_path: Path) -> None:
    """Peer 0 alone gets the last CLOSE just before the others' deadline, commits and computes its next gradient while
    they dispute the step: its view, with the certificate, has to be there within 2 D all the same, or a second COMMIT
    makes the step void."""
    gradient_s, bound_s = 3.0, 1.0
    assert gradient_s > 2.0 * bound_s
    run = msgspec.structs.replace(
        RUN, steps=4, task=Plugin("slow_quadratic", {"seconds": gradient_s}), delivery_bound_s=bound_s,
        gradient_bound_s=gradient_s + 1.0, validators=0,
    )  # fmt: skip
    plugin = Plugin("second_thoughts", {"to": "@0", "before_s": 0.4})
    plan = Plan({5: Attacker((plugin,), start=1, stop=2)}, run, random_keys=True,
                imports=(OWN / "slow_quadratic.py", OWN / "second_thoughts.py"),
                conditions=answers_late(0, 1))  # fmt: skip
    end = ended(tmp_path, plan)
    assert 1 in end.steps("disputed") and not end.steps("voided"), end.log
    keeps_the_promises(end)
    assert [(peer, reason) for _, peer, reason in end.removed] == [(5, "equivocation")], end.log
