"""Real processes killed at any instant: what is resumed ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import monotonic

import msgspec
import pytest

from btard.node.config import NodeConfig, Plugin, Role, Schedule
from tests.workers import QUADRATIC, WATCHDOG_S, Worker, changed, introduce, roster, workers

pytestmark = pytest.mark.sockets

RUN = msgspec.structs.replace(QUADRATIC, peers=4, steps=14, delivery_bound_s=1.0, gradient_bound_s=1.0)
ATTACKER = Role((Plugin("sign_flip"),), Schedule(start=2), (3,))


def kept(where: Path, role: Role | None) -> list[NodeConfig]:
    """Four nodes that keep checkpoints, the last one with a role."""
    return [changed(each, checkpoints=True, role=role if each.node == 3 else None) for each in roster(where, RUN)]


def story(started: list[Worker]) -> tuple[dict[int, set[str]], set[tuple[int, int, str]]]:
    """State digests by step, and who was removed when and why, over all honest nodes and all their lives."""
    digests: dict[int, set[str]] = {}
    bans = set()
    for each in started:
        if each.config.role is None:
            for record in each.said("committed"):
                digests.setdefault(record["step"], set()).add(record["state_digest"])
            bans |= {(record["step"], record["peer"], record["reason"]) for record in each.said("banned")}
    return digests, bans


def once(configs: list[NodeConfig], lives: int, dice: Random) -> None:
    """Start all of them, and kill all when one has committed a drawn number of steps; the last life ends by itself."""
    with workers(configs) as started:
        introduce(started)
        if lives == 0:
            # An attacker that is banned already, and does not know, waits for peers that listen to it no more.
            honest = [each for each in started if each.config.role is None]
            assert [each.exit_code() for each in honest] == [0] * len(honest), [each.log for each in started]
            return
        before = len(started[0].said("committed"))
        wanted, end = before + dice.randint(1, 4), monotonic() + WATCHDOG_S
        while len(started[0].said("committed")) < wanted and started[0].process.exitcode is None:
            assert monotonic() < end, [each.log for each in started]
            started[0].process.join(dice.uniform(0.001, 0.02))  # the instant of the kill is drawn, not awaited
        for each in dice.sample(started, len(started)):
            if each.process.exitcode is None:
                os.kill(each.process.pid or 0, signal.SIGKILL)


@pytest.mark.parametrize("role", [None, ATTACKER], ids=["honest", "attacked"])
def test_a_whole_cluster_killed_at_any_instant_ends_with_the_digests_it_would_have_had(
    role: Role | None, tmp_path: Path
) -> None:
    undisturbed = kept(tmp_path / "undisturbed", role)
    with workers(undisturbed) as started:
        introduce(started)
        assert [each.exit_code() for each in started] == [0] * 4, [each.log for each in started]
        expected = story(started)
    killed, dice = kept(tmp_path / "killed", role), Random(f"seed {role is None}")
    for lives in range(2, -1, -1):
        once(killed, lives, dice)
    found = story([Worker(config, started[0].process, started[0].pipe) for config in killed])
    assert all(len(digests) == 1 for digests in found[0].values())
    assert found == expected
    assert (3 in {peer for _, peer, _ in found[1]}) == (role is not None)


def test_a_peer_that_is_killed_and_started_again_at_once_is_missed_by_nobody(tmp_path: Path) -> None:
    """Its own messages are said again as they were, the others tell it theirs, and nobody suspects it."""
    made, dice = kept(tmp_path, None), Random(5)
    with ExitStack() as stack:
        started = stack.enter_context(workers(made))
        addresses, latest = introduce(started), started[3]
        for _ in range(3):
            wanted, end = len(latest.said("committed")) + dice.randint(1, 3), monotonic() + WATCHDOG_S
            while len(latest.said("committed")) < wanted and latest.process.exitcode is None:
                assert monotonic() < end, latest.log
                latest.process.join(dice.uniform(0.001, 0.02))  # as above
            if latest.process.exitcode is not None:
                break
            os.kill(latest.process.pid or 0, signal.SIGKILL)
            latest.process.join(WATCHDOG_S)
            (latest,) = stack.enter_context(workers([changed(made[3], listen=addresses[3])]))
            latest.pipe.send(("addresses", addresses))
        everyone = [*started[:3], latest]
        assert [each.exit_code() for each in everyone] == [0] * 4, [each.log for each in everyone]
        digests, bans = story(everyone)
    assert len(latest.said("resumed")) >= 1
    assert set(digests) == set(range(RUN.steps + 1))
    assert all(len(each) == 1 for each in digests.values())
    assert not bans
    assert not [each.said("suspected") for each in everyone if each.said("suspected")]
