"""What is said but once, and a peer that was not there to keep it.

One whose newest checkpoint is damaged while it is away goes on from the one before, and through an attempt in which it
has spoken already: what others sent it then is sent again, and nobody suspects it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from btard.node.build import Node
from btard.node.config import Plugin, Role, Schedule
from btard.node.netem.conditions import Conditions, Event, Window
from btard.node.protocol.api import Banned, Finished, Input, PhaseEntered, Suspected
from btard.node.storage.wal import ATTEMPT
from tests.ledgers import records, spoil
from tests.simulation.restarting import RUN, Cluster, digests

ME, STEP, SEED = 1, 6, 3
PHASES = ("COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT", "CLOSE")


def away(killed_s: float, back_s: float) -> Conditions:
    """The peer is killed, and started again."""
    hits = ((killed_s, "kill"), (back_s, "restart"))
    return Conditions(events=tuple(Event(Window("s", at_s), what, (ME,), what) for at_s, what in hits))


class Damaged(Cluster):
    """Whoever starts again finds a bit of its newest checkpoint changed."""

    def make(self, me: int) -> tuple[Node, list[Input]]:
        for newest in records(self.where / str(me), ATTEMPT)[-1:]:
            spoil(newest, newest.attached.size // 2)
        return super().make(me)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], dict[int, set[bytes]]]:
    """When the peer enters each phase of the step, and the state digests of the run, where nothing happens."""
    seen = Cluster(tmp_path_factory.mktemp("calm"), Conditions(), {}, SEED).play()
    entered = {
        each.output.phase: each.time_s
        for each in seen
        if isinstance(each.output, PhaseEntered) and (each.node, each.output.step) == (ME, STEP)
    }
    return entered, digests(seen)


@pytest.mark.parametrize("phase", PHASES)
def test_it_goes_through_the_attempt_again(
    phase: str, calm: tuple[dict[str, float], dict[int, set[bytes]]], tmp_path: Path
) -> None:
    entered, expected = calm
    killed_s = entered[phase] + 0.001
    cluster = Damaged(tmp_path, away(killed_s, killed_s + 0.5), {}, SEED)
    seen = cluster.play(())  # it ends a step twice, and says so
    assert [cue.action for cue in cluster.played] == ["kill", "restart"]
    resumed = next(each.output for each in seen if each.time_s > killed_s + 0.4 and each.node == ME)
    assert isinstance(resumed, PhaseEntered) and resumed.step == STEP - 1, "not thrown back"
    assert not [each for each in seen if isinstance(each.output, (Banned, Suspected))]
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(range(RUN.peers))
    assert digests(seen) == expected


def test_who_was_away_when_the_run_began_is_told_what_was_said(tmp_path: Path) -> None:
    """Killed before its first attempt, it has nothing to go on from, and what was sent meanwhile is lost."""
    cluster = Cluster(tmp_path, away(0.001, 7.0), {}, SEED)
    seen = cluster.play()
    began_s = {each.node: each.time_s for each in reversed(seen) if each.output == PhaseEntered(0, 0, "COMMIT")}
    assert [cue.action for cue in cluster.played] == ["kill", "restart"]
    assert min(began_s.values()) + 2 * RUN.delivery_bound_s < 7.0 < began_s[ME]
    assert not [each for each in seen if isinstance(each.output, Banned)]
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(range(RUN.peers))


# --- with attackers --------------------------------------------------------------------------------------------------


def test_what_it_kept_of_a_later_attempt_it_need_not_be_sent_again(tmp_path: Path) -> None:
    """The attacker that owes it a part has been banned since, and answers nothing any more."""
    roles = {5: Role((Plugin("sign_flip"),), Schedule(start=2), (5,), attack_seed=3)}
    calm = Cluster(tmp_path / "calm", Conditions(), roles, 1).play()
    ban = next(each for each in calm if isinstance(each.output, Banned) and each.node == ME)
    killed_s = ban.time_s - 0.0005
    seen = Damaged(tmp_path / "hit", away(killed_s, killed_s + 0.5), roles, 1).play(())
    honest = set(range(RUN.peers)) - {5}
    assert not [each for each in seen if isinstance(each.output, Banned) and each.output.peer in honest]
    assert {each.node for each in seen if isinstance(each.output, Finished)} >= honest
