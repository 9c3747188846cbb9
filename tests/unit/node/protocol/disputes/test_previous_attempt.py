"""How the attempt before the one under way stands: closed unless it is said otherwise, joined while it is open. Six
peers, so f = 2."""

from __future__ import annotations

import pytest

from btard.node.protocol.api.events import CancelTimer, Dropped, Forward, MessageArrived, ViewArrived
from btard.node.protocol.api.notices import Disputed
from btard.node.protocol.attempt import timers
from btard.node.protocol.attempt.transcript import Trigger
from btard.node.protocol.disputes.dispute import Dispute
from btard.node.protocol.disputes.previous_attempt import PreviousAttempt
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.messages import Endorsed, Outcome, Phase, Removal
from tests.protocol_attempts import complete, stopped
from tests.unit.node.protocol.disputes.test_router import BAD, at, endorsed, found, second, view
from tests.unit.node.protocol.test_peer import fresh

REMOVED = (Removal(5, "silent", None),)


def in_step_1(phase: str = "AGG") -> PeerState:
    """What peer 0 holds when it has just entered a phase."""
    stage, _ = stopped(1, phase)
    return stage.simulation.nodes[0].peer.shared


def test_a_peer_that_knows_no_attempt_before_has_nothing_to_dispute() -> None:
    previous = PreviousAttempt(fresh().shared)
    assert previous.closed and not previous.delays and not previous.joined and not previous.passed_on
    assert (previous.round, previous.dispute, previous.windows, previous.proof) == (None, None, 0, ())


@pytest.mark.parametrize(
    ("disputed", "begun", "closed", "joined"),
    [
        (False, False, False, False),
        (True, False, False, False),
        (True, True, False, True),
        (True, True, True, False),
    ],
    ids=["no sign of a dispute", "signs of one", "its rounds run here", "its rounds run, too late"],
)
def test_when_this_peer_takes_part_in_its_dispute(disputed: bool, begun: bool, closed: bool, joined: bool) -> None:
    round_ = complete()
    dispute = Dispute(round_, []) if disputed else None
    if dispute is not None and begun:
        dispute.freeze(Trigger("a reason", ()))
        dispute.begin()
    previous = PreviousAttempt(fresh().shared, round_, 3, closed=closed, dispute=dispute)
    assert previous.joined is joined


ENDS: dict[str, tuple[bytes | None, tuple[Removal, ...]]] = {
    "it starts again": (None, REMOVED),
    "the value stands": (bytes(32), ()),
    "the value stands and somebody is removed": (bytes(32), REMOVED),
}


@pytest.mark.parametrize("name", ENDS)
def test_after_an_outcome_whose_dispute_we_had_no_part_in_nothing_is_open(name: str) -> None:
    shared = in_step_1()
    assert shared.round is not None
    value, removals = ENDS[name]
    outcome = Outcome(shared.round.attempt.slot(Phase.OUTCOME), (), value, removals)
    previous = PreviousAttempt.ended(shared, Certificate(outcome, ()))
    assert (previous.closed, previous.delays, previous.windows) == (True, False, 0)
    assert previous.round is shared.round


def test_after_closes_a_dispute_may_still_begin_for_f_and_one_windows() -> None:
    shared = in_step_1()
    previous = PreviousAttempt.ended(shared, Certificate.of(shared.certificate))
    assert (previous.closed, previous.delays, previous.windows) == (False, False, 3)
    assert previous.round is shared.round


@pytest.mark.parametrize("phase", ["COMMIT", "AGG"])
def test_what_ended_it_goes_to_all_until_all_have_spoken(phase: str) -> None:
    shared = in_step_1(phase)
    PreviousAttempt(shared, shared.round).pass_on()
    certificate = shared.past.transcript.signed(Phase.CLOSE).values() if shared.past is not None else ()
    told = [output for output in shared.out if isinstance(output, Forward)]
    assert told == ([Forward((1, 2, 3, 4, 5), tuple(shared.certificate))] if phase == "COMMIT" else [])
    assert set(shared.certificate) == set(certificate) and len(shared.certificate) == 6


def test_before_anything_has_ended_nothing_is_passed_on() -> None:
    shared = fresh().shared
    PreviousAttempt(shared).pass_on()
    assert shared.out == []


def test_what_is_wrong_with_an_attempt_that_stands_goes_into_a_report() -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None
    outputs = peer.handle(MessageArrived(BAD, second(peer.past)))
    assert not found(outputs, Disputed) and not peer.router.previous.joined
    assert len(peer.shared.proofs) == 1
    peer.handle(MessageArrived(4, second(peer.past)))
    assert len(peer.shared.proofs) == 1


def test_a_view_lets_us_join_the_dispute_of_the_attempt_before() -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None and not peer.router.previous.closed
    outputs = peer.handle(ViewArrived(4, Endorsed(view(peer.past, 4, second(peer.past)), ())))
    assert found(outputs, Disputed) == [Disputed(0, 0, "peer 5 equivocates in COMMIT")]
    assert peer.router.previous.joined and peer.router.previous.delays
    assert {each.name for each in outputs if isinstance(each, CancelTimer)} >= {timers.BEFORE, *timers.OF_AN_ATTEMPT}
    assert len(peer.shared.proofs) == 1, "the certificate will win: the pair is charged in a REPORT"


@pytest.mark.parametrize(
    ("by", "joins"), [((), False), ((3,), True), ((4,), False)], ids=["its owner", "two peers", "one peer twice"]
)
def test_in_the_second_window_two_must_have_signed(by: tuple[int, ...], joins: bool) -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None
    peer.router.previous.window = 2
    peer.handle(ViewArrived(3, endorsed(view(peer.past, 4, second(peer.past)), *by)))
    assert peer.router.previous.joined is joins


def test_a_view_that_proves_nothing_lets_nobody_join() -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None
    made = view(peer.past, 4, *peer.past.transcript.signed(Phase.COMMIT).values())
    assert peer.handle(ViewArrived(4, Endorsed(made, ()))) == []
    assert not peer.router.previous.joined and peer.router.previous.dispute is not None
    assert peer.router.previous.dispute.early == (made,)


def test_whoever_disputes_a_closed_attempt_is_told_once_what_ended_it() -> None:
    """All are in this attempt: nobody honest can be left in the other."""
    peer, _ = at(1, "AGG")
    assert peer.past is not None and peer.router.previous.closed
    made = [Endorsed(view(peer.past, 4, second(peer.past, each)), ()) for each in (5, 3)]
    answer, dropped = peer.handle(ViewArrived(3, made[0]))
    assert dropped == Dropped(3, "late")
    assert isinstance(answer, Forward) and answer.to == (3,)
    assert set(peer.past.transcript.signed(Phase.CLOSE).values()) <= set(answer.messages)
    assert len(answer.messages) > len(peer.past.roster.active), "and what closed it"
    assert peer.handle(ViewArrived(3, made[1])) == [Dropped(3, "late")]
    assert len(peer.handle(ViewArrived(2, made[1]))) == 2


def test_the_windows_run_out_and_the_attempt_is_closed() -> None:
    peer, attempt = at(1, "COMMIT")
    previous = peer.router.previous
    assert previous.windows == attempt.roster.faults + 1 and not previous.passed_on
    previous.pass_on()
    assert previous.passed_on and previous.window == 1
    for window in (2, 3):
        previous.overdue()
        assert previous.window == window and not previous.closed
    previous.overdue()
    assert previous.closed and previous.proof == ()
