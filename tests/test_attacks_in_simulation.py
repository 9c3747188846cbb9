"""Every attack against real peers in the simulator: who is banned and why; and detection times against the law."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from btard.launcher.detection import Setting
from btard.launcher.detection.careers import career
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import Observed, Simulation, cluster
from btard.node.protocol.api import Banned, Committed, Finished, Halted
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext

ATTACKERS = (4, 5)
START = 2


def simulation(attacks: tuple[Plugin, ...], seed: int, steps: int, on_ban: str = "remove") -> Simulation:
    """Six peers on the quadratic task; 4 and 5 attack every step from step 2 on."""
    run = RunConfig(peers=6, task=Plugin("quadratic"), steps=steps, batch_size=2, on_ban=on_ban)  # type: ignore[arg-type]
    task = build_task(run.task, TaskContext(Path("unused"), run.batch_size))
    role = Role(attacks, Schedule(start=START), ATTACKERS, attack_seed=seed)
    return cluster(run, task, dict.fromkeys(ATTACKERS, role), protocol_seed=seed)


def bans_seen_by_an_honest_peer(observed: Iterator[Observed]) -> Iterator[Banned]:
    """What peer 0 reports; a halt of anyone fails the test."""
    for seen in observed:
        assert not isinstance(seen.output, Halted), seen.output.problem
        if seen.node == 0 and isinstance(seen.output, Banned):
            yield seen.output


CASES = [
    ("sign_flip", {}, "gradient", 60),
    ("constant_direction", {}, "gradient", 60),
    ("noise", {"variant": "text"}, "gradient", 60),
    ("noise", {"variant": "notebook"}, "gradient", 60),
    ("noise", {"variant": "small"}, "gradient", 60),
    ("delayed", {"delay": 1}, "gradient", 60),
    ("random_direction", {}, "gradient", 60),
    ("alie", {"z": 1.0}, "gradient", 60),
    ("alie_optimised", {}, "gradient", 60),
    ("ipm", {}, "gradient", 60),
    ("ipm_optimised", {}, "gradient", 60),
    ("min_max", {}, "gradient", 60),
    ("min_sum", {}, "gradient", 60),
    ("fang", {}, "gradient", 60),
    ("fang", {"against": "trimmed_mean"}, "gradient", 60),
    ("rop", {}, "gradient", 60),
    ("bulyan_coordinate", {}, "gradient", 60),
    ("mimic", {"warmup": 2}, "gradient", 60),
    ("shift_aggregate", {}, "aggregate", 3),
    ("shift_aggregate", {"scale": 1e-3}, "aggregate", 3),
    ("lie_checksum", {}, "checksum", 5),
    ("lie_checksum", {"entry": "norm"}, "checksum", 5),
    ("lie_checksum", {"variant": "huge"}, "bounds", 5),
    ("lie_checksum", {"variant": "nan"}, "bounds", 5),
    ("lie_checksum", {"variant": "negative", "entry": "norm"}, "bounds", 5),
    ("false_accuse", {"how": "verdict"}, "false_accusation", 60),
    ("false_accuse", {"how": "bit"}, "false_accusation", 5),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters", "reason", "steps"), CASES, ids=[f"{row[0]}-{row[1]}" for row in CASES])
def test_both_attackers_are_banned_for_what_they_did(
    name: str, parameters: dict[str, object], reason: str, steps: int
) -> None:
    banned: dict[int, Banned] = {}
    for ban in bans_seen_by_an_honest_peer(simulation((Plugin(name, parameters),), seed=0, steps=steps).run()):
        assert ban.step >= START
        banned[ban.peer] = ban
        if len(banned) == len(ATTACKERS):
            break
    assert {peer: ban.reason for peer, ban in banned.items()} == dict.fromkeys(ATTACKERS, reason)


def test_a_lenient_validator_alone_harms_nobody() -> None:
    """It says *correct* of honest peers, which is true: no ban, and every peer ends with the same state."""
    digests: dict[int, bytes] = {}
    finished = set()
    for seen in simulation((Plugin("lenient_validator", {"all": True}),), seed=0, steps=8).run():
        assert not isinstance(seen.output, Banned | Halted)
        if isinstance(seen.output, Committed):
            digests[seen.node] = seen.output.state_digest
        if isinstance(seen.output, Finished):
            finished.add(seen.node)
    assert finished == set(range(6))
    assert len(set(digests.values())) == 1


@pytest.mark.slow
def test_a_reformed_attacker_stays_and_stops() -> None:
    cluster_ = simulation((Plugin("sign_flip"),), seed=0, steps=40, on_ban="reform")
    bans = {ban.peer: ban for ban in bans_seen_by_an_honest_peer(cluster_.run()) if not ban.removed}
    assert bans.keys() == set(ATTACKERS)
    for peer, ban in bans.items():
        adversary = cluster_.nodes[peer].adversary
        assert adversary is not None
        assert adversary.attacked[-1] == ban.step, "it attacked up to the step of the verdict, and never again"


RUNS = 16


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
def test_detection_times_of_whole_peers_are_those_of_their_coins(seed: int) -> None:
    """The full protocol, two attackers every step; tests/unit/launcher/detection/test_law.py has the coins."""
    cluster_ = simulation((Plugin("sign_flip"),), seed, steps=200)
    *_, last = islice(bans_seen_by_an_honest_peer(cluster_.run()), len(ATTACKERS))
    steps, bans = career(seed, Setting(6, 2, 1, start=START), undo=False)
    assert last.step - START + 1 == steps
    assert last.step == bans[-1][0]
