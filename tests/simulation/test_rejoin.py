"""Peers that were gone and come back: on probation, in no roster, and let in by what everybody computes again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from btard.node.adversary.attacks.rejoin import Rejoin
from btard.node.adversary.registry import attack
from btard.node.adversary.view import View
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import Observed
from btard.node.netem.conditions import Change, Conditions, Event, Window
from btard.node.protocol.api import (
    Banned,
    Committed,
    Disputed,
    Expelled,
    Finished,
    Halted,
    Output,
    PhaseEntered,
    Probed,
    Returned,
    Say,
)
from btard.node.protocol.evidence.verifier import UnprovenError, Verifier
from btard.node.protocol.state.state import Summary
from btard.node.protocol.wire.messages import Close, Report
from tests.simulation.attacked import START, Story, configuration, play
from tests.simulation.restarting import Cluster, digests

RUN = RunConfig(
    peers=6, task=Plugin("quadratic", {"dimension": 24}), steps=16, batch_size=2, probation=2,
    delivery_bound_s=0.5, gradient_bound_s=1.0,
)  # fmt: skip


def killed(peers: tuple[int, ...], step: int, again: int, text: str = "") -> tuple[Event, Event]:
    """Peers die as one step begins, and start again in their directories as another one does."""
    begins, ends = Window("step", step), Window("step", again)
    return Event(begins, "kill", peers, f"kill{text}"), Event(ends, "restart", peers, f"restart{text}")


def played(
    where: Path, events: Sequence[Event], run: RunConfig = RUN, **given: object
) -> tuple[Cluster, list[Observed]]:
    """A run with events, to its end."""
    conditions = Conditions(events=tuple(events), **{k: v for k, v in given.items() if k == "changes"})  # type: ignore[arg-type]
    roles = given.get("roles", {})
    assert isinstance(roles, dict)
    cluster = Cluster(where, conditions, roles, 0, run)
    return cluster, cluster.play(())


def outputs(seen: list[Observed], kind: type) -> list[Observed]:
    return [each for each in seen if isinstance(each.output, kind)]


def removals(seen: list[Observed]) -> set[tuple[int, str]]:
    return {(each.output.peer, each.output.reason) for each in seen if isinstance(each.output, Banned)}


def verify(cluster: Cluster, seen: list[Observed], witness: int) -> Verifier:
    """A third party reads what one peer wrote down, in its order."""
    verifier = Verifier(cluster.watched.ground())
    certificate = b""
    for each in seen:
        match each.output:
            case Banned() as ban if each.node == witness:
                verifier.settle([verifier.check(ban.evidence).ban])
            case Returned(peer=peer, evidence=evidence) if each.node == witness:
                assert peer in {back for back, _ in verifier.readmit(evidence)}
            case Committed() as done if each.node == witness:
                certificate = done.certificate
            case Finished(parameters_D=parameters_D) if each.node == witness:
                verifier.check_final(certificate, parameters_D)
    return verifier


@pytest.mark.slow
def test_a_crashed_peer_is_gone_serves_probation_and_is_back(tmp_path: Path) -> None:
    """Nobody is banned; from its return on it holds the digests that everybody holds, and contributes."""
    cluster, seen = played(tmp_path, killed((5,), 3, 5))
    assert removals(seen) == {(5, "silent")}
    assert {each.node for each in outputs(seen, Finished)} == set(range(6))
    assert all(len(found) == 1 for found in digests(seen).values())
    (back,) = {each.output.step for each in seen if isinstance(each.output, Returned)}
    mine = [each.output for each in seen if isinstance(each.output, Committed) and each.node == 5]
    assert [done.step for done in mine if done.step > 2] == list(range(back + 1, RUN.steps + 1))
    assert any(5 in done.contributors for done in mine if done.step > back)
    counts = {(each.output.step, each.output.correct) for each in seen if isinstance(each.output, Probed)}
    assert [correct for _, correct in sorted(counts)] == [1, 2]
    assert verify(cluster, seen, witness=0).returned == [(5, back + 1)]


def test_it_is_verified_with_the_return_and_not_without(tmp_path: Path) -> None:
    cluster, seen = played(tmp_path, killed((5,), 3, 5))
    at_0 = [each.output for each in seen if each.node == 0]
    (ban,) = [output for output in at_0 if isinstance(output, Banned)]
    (back,) = [output for output in at_0 if isinstance(output, Returned)]
    last = [output for output in at_0 if isinstance(output, Committed)][-1]
    verifier = Verifier(cluster.watched.ground())
    verifier.settle([verifier.check(ban.evidence).ban])
    with pytest.raises(UnprovenError):
        verifier.check_final(last.certificate, last.parameters_D)
    summary, certificate = msgspec.msgpack.decode(back.evidence, type=tuple[Summary, tuple[object, ...]])
    forged = msgspec.structs.replace(summary, returned=((4, summary.step),))
    with pytest.raises(UnprovenError):
        verifier.readmit(msgspec.msgpack.encode((forged, certificate)))
    assert verifier.readmit(back.evidence) == ((5, back.step + 1),)
    verifier.check_final(last.certificate, last.parameters_D)


def test_a_peer_comes_back_once(tmp_path: Path) -> None:
    """Gone a second time it is told so, and stops."""
    run = msgspec.structs.replace(RUN, probation=1, steps=20)
    _, seen = played(tmp_path, (*killed((5,), 2, 4), *killed((5,), 11, 13, " again")), run)
    assert len({each.output.step for each in seen if isinstance(each.output, Returned)}) == 1
    assert len({each.output.step for each in seen if isinstance(each.output, Banned)}) == 2
    assert {each.node for each in outputs(seen, Finished)} == set(range(5))
    assert [(each.node, each.output.reason) for each in outputs(seen, Expelled)] == [(5, "silent")]
    assert not outputs(seen, Halted)


@pytest.mark.slow
@pytest.mark.parametrize("probation", [0, 3])
def test_nobody_comes_back_without_a_probation(probation: int, tmp_path: Path) -> None:
    run = msgspec.structs.replace(RUN, probation=probation, steps=8, recompute_tolerance=1e-6 if probation else 0.0)
    _, seen = played(tmp_path, killed((5,), 2, 4), run)
    assert not outputs(seen, Returned) and not outputs(seen, Probed)
    assert {each.node for each in outputs(seen, Finished)} == set(range(5))


@pytest.mark.slow
def test_two_peers_come_out_of_a_partition_and_are_back(tmp_path: Path) -> None:
    """Four go on without the two, which learn of it once the links are whole; started again, both are back."""
    cut = tuple((one, other) for a in (4, 5) for b in range(4) for one, other in ((a, b), (b, a)))
    run = msgspec.structs.replace(RUN, steps=50, delivery_bound_s=0.2, gradient_bound_s=0.3)
    changes = (Change(Window("s", 0.5, 8.0), {}, cut, cut=True),)
    events = (Event(Window("s", 8.5), "restart", (4, 5), "restart"),)
    _, seen = played(tmp_path, events, run, changes=changes)
    assert removals(seen) == {(4, "silent"), (5, "silent")}
    assert {(each.node, each.output.reason) for each in outputs(seen, Expelled)} == {(4, "silent"), (5, "silent")}
    assert {each.node for each in outputs(seen, Finished)} == set(range(6))
    assert {each.output.peer for each in seen if isinstance(each.output, Returned)} == {4, 5}
    assert all(len(found) == 1 for found in digests(seen).values())


@pytest.mark.slow
def test_attackers_meet_a_peer_that_comes_back(tmp_path: Path) -> None:
    """Wrong gradients from one peer while another is away and on probation: the attacker is banned, the other back."""
    role = Role((Plugin("sign_flip"),), Schedule(start=6), (4,), attack_seed=3)
    run = msgspec.structs.replace(RUN, steps=40)
    _, seen = played(tmp_path, killed((0,), 3, 5), run, roles={4: role})
    assert removals(seen) == {(0, "silent"), (4, "gradient")}
    assert {each.node for each in outputs(seen, Finished)} == {0, 1, 2, 3, 5}
    assert {each.node for each in outputs(seen, Expelled)} == {4}
    assert all(len(found) == 1 for found in digests(seen).values())


@pytest.mark.slow
def test_a_newcomer_hears_of_a_removal_that_only_the_outcomes_carry(tmp_path: Path) -> None:
    """Somebody dies before its CLOSE of the very step that lets the peer in: the value stands, and the dispute's
    removal is not part of it."""
    _, seen = played(tmp_path / "calm", killed((5,), 3, 5))
    (back,) = {each.output.step for each in seen if isinstance(each.output, Returned)}
    role = Role((Plugin("crash", {"phase": "CLOSE"}),), Schedule(start=back), (4,))
    cluster, seen = played(tmp_path / "stalled", killed((5,), 3, 5), roles={4: role})
    assert removals(seen) == {(5, "silent"), (4, "silent")}
    assert {each.node for each in outputs(seen, Finished)} == {0, 1, 2, 3, 5}
    assert {each.output.step for each in seen if isinstance(each.output, Returned)} == {back}
    assert all(len(found) == 1 for found in digests(seen).values())
    verify(cluster, seen, witness=0)


# --- the attack `rejoin` ------------------------------------------------------------------------------------------

ATTACKED = configuration(steps=20, probation=2)
SILENT = (START, 5, "silent")


def attacked(then: str) -> Story:
    """Peer 5 falls silent in step 1, is gone, asks to come back, and then does what `then` says."""
    return play([Plugin("rejoin", {"then": then})], schedule=Schedule(start=START), run=ATTACKED)


def test_a_wrong_gradient_on_probation_ends_it_for_ever() -> None:
    story = attacked("gradient")
    silent, (step, peer, reason) = story.removed
    assert silent == SILENT and (peer, reason) == (5, "probation") and step > START
    assert not story.back and not story.probed


def test_two_joins_for_one_step_are_proof() -> None:
    story = attacked("equivocate")
    silent, (_, peer, reason) = story.removed
    assert silent == SILENT and (peer, reason) == (5, "equivocation")
    assert not story.back and not story.probed


def test_a_flood_of_questions_is_counted_and_lets_nobody_in_sooner() -> None:
    """The answers are bounded: whoever has used them up learns no further state."""
    story = attacked("flood")
    assert story.removed == [SILENT]
    assert story.dropped["asked_too_often"] > 100
    assert len(story.probed) <= ATTACKED.probation


def test_an_attack_after_the_return_is_found_as_any_other() -> None:
    story = attacked("later")
    silent, (step, peer, reason) = story.removed
    assert silent == SILENT and (peer, reason) == (5, "gradient")
    assert story.back == {5: max(step for step, _, _ in story.probed)} and step > story.back[5]


def test_whoever_falls_silent_again_stays_gone() -> None:
    story = attacked("silence")
    assert [reason for _, _, reason in story.removed] == ["silent", "silent"]
    assert set(story.back) == {5}


def test_an_attacker_that_does_nothing_more_is_back_for_good() -> None:
    story = attacked("nothing")
    assert story.removed == [SILENT]
    assert set(story.back) == {5}


class _Hides(Rejoin):
    """It signs two CLOSEs, and falls silent until it is removed as gone, before a REPORT can tell of them; its own
    never does."""

    def __init__(self) -> None:
        super().__init__(then="nothing")

    def said(self, output: Output, view: View) -> Sequence[Output]:
        if self.lasting:
            return tuple(map(_untold, super().said(output, view)))
        match output:
            case Say(to=to, body=Close(value=bytes(value)) as close):
                self.lasting = self._away = True
                return (output, Say(to, msgspec.structs.replace(close, value=bytes(reversed(value)))))
        return (output,)


def _untold(output: Output) -> Output:
    match output:
        case Say(to=to, body=Report() as report):
            return Say(to, msgspec.structs.replace(report, evidence=()))
    return output


@pytest.mark.usefixtures("scratch")
def test_who_is_removed_as_gone_answers_for_two_messages_when_it_is_back() -> None:
    attack("hides", acts_on="node", source="test")(_Hides)
    story = play([Plugin("hides")], schedule=Schedule(start=START), run=ATTACKED)
    silent, (step, peer, reason) = story.removed
    assert silent == (START + 1, 5, "silent") and (peer, reason) == (5, "equivocation")
    assert step == story.back[5] + 1


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["CHECKSUMS", "REPORT", "CLOSE"])
def test_a_peer_that_starts_again_inside_the_dispute_that_removes_it_comes_back(phase: str, tmp_path: Path) -> None:
    """What the step comes to may need tensors that nobody sends to it any more: it is for those who are left."""
    calm = played(tmp_path / "calm", ())[1]
    entered = next(
        each.time_s for each in outputs(calm, PhaseEntered) if (each.node, name_of(each)) == (5, (3, phase))
    )  # fmt: skip
    kill = Event(Window("s", entered + 1e-4), "kill", (5,), "kill")
    disputed = outputs(played(tmp_path / "away", [kill])[1], Disputed)[0].time_s
    again = Event(Window("s", disputed + RUN.delivery_bound_s), "restart", (5,), "restart")
    seen = played(tmp_path / "back", [kill, again])[1]
    assert removals(seen) == {(5, "silent")}
    assert {each.node for each in outputs(seen, Finished)} == set(range(6))
    assert all(len(found) == 1 for found in digests(seen).values())


def name_of(seen: Observed) -> tuple[int, str]:
    assert isinstance(seen.output, PhaseEntered)
    return seen.output.step, seen.output.phase
