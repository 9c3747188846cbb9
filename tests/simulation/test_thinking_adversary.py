"""What an adversary who thinks made of the default cluster, on the simulator: restarts inside a dispute, and gradients
that take longer than a dispute's round. (Disputes that overlap: test_overlapping_disputes.py.)"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import tests
from btard.node.config import Plugin, Role, Schedule
from btard.node.drivers.simulator import Observed
from btard.node.netem.conditions import Conditions, Event, Window
from btard.node.plugins import extensions
from btard.node.protocol.api import Banned, Committed, Disputed, Finished, PhaseEntered, Suspected, Voided
from tests.simulation.attacked import START, configuration
from tests.simulation.restarting import KEPT, Cluster, digests
from tests.simulation.stage import play, set_up

SECOND_THOUGHTS = Path(tests.__file__).parent / "second_thoughts.py"
D_S = 0.5
RUN = configuration(steps=START + 3)
AFTER_S = 1e-6
"""The kill comes after the instant, not before it."""


@pytest.fixture
def imported(scratch: None) -> None:
    """The attack is registered for the test alone."""
    extensions.load([SECOND_THOUGHTS])


def roles(attackers: tuple[int, ...], *attacks: Plugin) -> dict[int, Role]:
    return dict.fromkeys(attackers, Role(attacks, Schedule(start=START, stop=START + 1), attackers))


def restart(peer: int, time_s: float, away_s: float) -> Conditions:
    """A peer is killed at an instant, and started again later."""
    return Conditions(events=(
        Event(Window("s", time_s + AFTER_S), "kill", (peer,), "kill"),
        Event(Window("s", time_s + AFTER_S + away_s), "restart", (peer,), "restart"),
    ))  # fmt: skip


def first(seen: list[Observed], kind: type, node: int, step: int) -> float | None:
    """When a node first said something of a kind about a step."""
    return next((each.time_s for each in seen if each.node == node and isinstance(each.output, kind)
                 and each.output.step == step), None)  # type: ignore[attr-defined]  # fmt: skip


def finished(seen: list[Observed], attackers: tuple[int, ...]) -> set[int]:
    return {each.node for each in seen if isinstance(each.output, Finished)}.difference(attackers)


def banned(seen: list[Observed], attackers: tuple[int, ...]) -> set[tuple[int, str]]:
    return {(each.output.peer, each.output.reason) for each in seen
            if isinstance(each.output, Banned) and each.node not in attackers}  # fmt: skip


BEFORE_S = (0.1, 0.9)
"""When the last CLOSE comes, before the others' deadline."""


@pytest.mark.slow
@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("attackers", [(5,), (4, 5)])
@pytest.mark.parametrize("away_s", [0.01, 0.6, 0.9])
@pytest.mark.parametrize("before_s", BEFORE_S)
def test_a_step_that_one_peer_committed_before_it_was_killed_stands(
    before_s: float, away_s: float, attackers: tuple[int, ...], tmp_path: Path
) -> None:
    """Peer 0 alone has the last CLOSE, commits and is killed at once. Back before the others' deadline, or while views
    of one signature count in their dispute, it shows the certificate: without it a second COMMIT makes the step void.
    """
    given = roles(attackers, Plugin("second_thoughts", {"before_s": before_s}))
    calm = Cluster(tmp_path / "calm", Conditions(), given, 0, RUN).play()
    committed_s, disputed_s = first(calm, Committed, 0, START), first(calm, Disputed, 1, START)
    assert committed_s is not None and disputed_s is not None
    assert committed_s < disputed_s, "the others dispute what peer 0 has committed"
    seen = Cluster(tmp_path / "killed", restart(0, committed_s, away_s), given, 0, RUN).play()
    assert finished(seen, attackers) == set(range(6)) - set(attackers)
    assert START not in {each.output.step for each in seen if isinstance(each.output, Voided)}
    assert digests(seen) == digests(calm)
    assert banned(seen, attackers) == banned(calm, attackers) == {(attackers[0], "equivocation")}


@pytest.mark.slow
@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("late_s", [0.1, 1.1, 6.0])
def test_a_peer_that_is_back_too_late_for_the_dispute_returns_as_one_that_was_gone(
    late_s: float, tmp_path: Path
) -> None:
    """As above, but peer 0 is away when views of one signature count: the step is void, and its own state is nobody
    else's. It signs nothing more from there, and returns on probation to the state that all the others hold."""
    given, run = roles((5,), Plugin("second_thoughts")), msgspec.structs.replace(RUN, steps=90)
    calm = Cluster(tmp_path / "calm", Conditions(), given, 0, run).play()
    committed_s, disputed_s = first(calm, Committed, 0, START), first(calm, Disputed, 1, START)
    assert committed_s is not None and disputed_s is not None
    away_s = disputed_s + 2.0 * D_S - committed_s + late_s
    seen = Cluster(tmp_path / "killed", restart(0, committed_s, away_s), given, 0, run).play(())
    assert finished(seen, (5,)) == {0, 1, 2, 3, 4}
    others = digests([each for each in seen if each.node in (1, 2, 3, 4)])
    assert all(len(found) == 1 for found in others.values())
    at_0 = digests([each for each in seen if each.node == 0])
    assert at_0.pop(START) != others[START], "its certificate came to nothing"
    assert all(found == others[step] for step, found in at_0.items()), "it went on alone"
    assert max(at_0) == run.steps


@pytest.mark.slow
@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("away_s", [0.01, 0.6])
def test_a_void_attempt_that_one_peer_ended_before_it_was_killed_stays_ended(away_s: float, tmp_path: Path) -> None:
    """Peer 4's parts are missing for good: all CLOSEs say that the attempt is void, without it. Peer 0 alone has the
    last of them, is killed at once, and shows it from the second attempt in the dispute of the first."""
    once = Schedule(start=START, stop=START + 1)
    given = {
        4: Role((Plugin("withhold_part", {"to": "all", "again": True}),), once, (4,)),
        5: Role((Plugin("second_thoughts"),), once, (5,)),
    }
    calm = Cluster(tmp_path / "calm", Conditions(), given, 0, RUN).play()
    voided_s, disputed_s = first(calm, Voided, 0, START), first(calm, Disputed, 1, START)
    assert voided_s is not None and disputed_s is not None
    assert voided_s < disputed_s, "the others dispute what peer 0 has ended"
    seen = Cluster(tmp_path / "killed", restart(0, voided_s, away_s), given, 0, RUN).play()
    assert finished(seen, (4, 5)) == {0, 1, 2, 3}
    assert digests(seen)[START] == digests(calm)[START], "afterwards who accuses peer 5 may differ"
    assert all(len(found) == 1 for found in digests(seen).values())
    assert banned(seen, (4, 5)) == banned(calm, (4, 5)) == {(4, "withheld"), (5, "equivocation")}


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["COMMIT", "AGG", "CHECKSUMS", "CLOSE"])
def test_a_peer_killed_in_a_second_attempt_takes_part_in_it_again(phase: str, tmp_path: Path) -> None:
    """The attempt before it was void: nobody misses the peer, and the step comes to what it would have come to."""
    given = {5: Role((Plugin("withhold_part", {"to": "all", "again": True}),), Schedule(start=START), (5,))}
    calm = Cluster(tmp_path / "calm", Conditions(), given, 0, RUN).play()
    entered_s = next(each.time_s for each in calm if each.node == 0 and each.output == PhaseEntered(START, 1, phase))
    seen = Cluster(tmp_path / "killed", restart(0, entered_s, 0.3), given, 0, RUN).play()
    assert finished(seen, (5,)) == {0, 1, 2, 3, 4}
    assert digests(seen) == digests(calm)
    assert banned(seen, (5,)) == {(5, "withheld")}
    assert any(each.node == 0 and isinstance(each.output, Committed) and 0 in each.output.contributors
               for each in seen if each.time_s > entered_s)  # fmt: skip


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("before_s", BEFORE_S)
def test_a_gradient_longer_than_a_round_keeps_nobody_out_of_a_dispute(before_s: float) -> None:
    """Peer 0 alone commits and computes its next gradient, while the others dispute the step for longer than a round
    lasts: without its certificate a second COMMIT makes the step void."""
    gradient_s = 3.0 * D_S
    given = roles((5,), Plugin("second_thoughts", {"before_s": before_s}))
    stage = set_up(msgspec.structs.replace(RUN, gradient_bound_s=4.0 * D_S, validators=0), given)
    stage.simulation._gradient_s = gradient_s
    seen = play(stage, KEPT)
    committed_s, disputed_s = first(seen, Committed, 0, START), first(seen, Disputed, 1, START)
    assert committed_s is not None and disputed_s is not None
    assert committed_s < disputed_s < committed_s + gradient_s
    assert finished(seen, (5,)) == {0, 1, 2, 3, 4}
    assert START not in {each.output.step for each in seen if isinstance(each.output, Voided)}
    assert banned(seen, (5,)) == {(5, "equivocation")}


def test_a_peer_started_again_waits_for_those_who_need_bytes_after_an_outcome(tmp_path: Path) -> None:
    """Peer 5 dies before its CLOSE: the value stands, and somebody may lack bytes for it. Peer 1 says nothing in the
    next step, as one that fetches them; peer 0, killed there and back at once, suspects it no sooner than others."""
    given = {5: Role((Plugin("crash", {"phase": "CLOSE"}),), Schedule(start=START), (5,))}
    calm = Cluster(tmp_path / "calm", Conditions(), given, 0, RUN).play(())
    next_step = PhaseEntered(START + 1, 0, "COMMIT")
    there_s = [each.time_s for each in calm if each.output == next_step and each.node != 5]
    slow = Event(Window("s", min(there_s)), "kill", (1,), "kill 1")
    conditions = Conditions(events=(slow, *restart(0, max(there_s), 0.01).events))
    seen = Cluster(tmp_path / "killed", conditions, given, 0, RUN).play(())
    others_s = [when for node in (2, 3, 4) if (when := first(seen, Suspected, node, START + 1)) is not None]
    ours_s = first(seen, Suspected, 0, START + 1)
    assert others_s and (ours_s is None or ours_s > min(others_s) - D_S)
    assert finished(seen, (1, 5)) == {0, 2, 3, 4}


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("others", [(), (1,), (1, 2, 3)], ids=["alone", "then another", "then all"])
def test_hosts_that_are_started_again_one_after_the_other_lose_nobody_alone(
    others: tuple[int, ...], tmp_path: Path
) -> None:
    """Peer 4 keeps its part from peer 0, which is started again, and tells it that it was, too; with one honest peer's
    own question these are as many as where all honest peers are. Peer 0 complains before anybody suspects it."""
    run = msgspec.structs.replace(RUN, peers=5)
    given = {4: Role((Plugin("also_started_again"),), Schedule(START, 1, START + 1), (4,))}
    calm = Cluster(tmp_path / "calm", Conditions(), given, 0, run).play()
    at_s = next(each.time_s for each in calm if each.node == 0 and each.output == PhaseEntered(START, 0, "AGG"))
    turns = (restart(peer, at_s + 1.2 * place, 1.0) for place, peer in enumerate((0, *others)))
    events = tuple(event for turn in turns for event in turn.events)
    seen = Cluster(tmp_path / "rolled", Conditions(events=events), given, 0, run).play()
    assert not banned(seen, (4,)) and finished(seen, (4,)) == {0, 1, 2, 3}
    assert {each.output.attempt for each in seen if isinstance(each.output, Committed)} == {0}
