"""From one attempt to the next: which evidence our REPORT carries on, and how the attempt before stands."""

from __future__ import annotations

import pytest

from btard.node.protocol.attempt.deadlines import outcome_s
from btard.node.protocol.attempt.handshake import Greeting
from btard.node.protocol.peer import Peer
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.messages import Outcome, Phase, Removal
from btard.node.protocol.wire.size_limits import MAX_PROOFS
from tests.protocol_attempts import replace_state, stopped
from tests.unit.node.protocol.adjudication.test_accusations import silent, two_words


def in_step_1() -> Peer:
    stage, _ = stopped(1, "AGG")
    return stage.simulation.nodes[0].peer


def test_a_report_carries_one_piece_against_each_and_the_rest_waits() -> None:
    peer = in_step_1()
    attempt = peer.attempt
    assert attempt is not None
    pieces = [two_words(attempt, accused) for accused in (1, 2, 3, 4, 5)]
    again = two_words(attempt, 2, step=1)
    peer._proofs = [b"rubbish", pieces[0], pieces[1], again, *pieces[2:], pieces[0]]
    assert peer._take_proofs(attempt) == tuple(pieces[:MAX_PROOFS])
    assert peer._proofs == pieces[MAX_PROOFS:]
    assert peer._take_proofs(attempt) == tuple(pieces[MAX_PROOFS:])
    assert peer._take_proofs(attempt) == ()


def test_what_convicts_nobody_any_more_is_forgotten() -> None:
    peer = in_step_1()
    attempt = peer.attempt
    assert attempt is not None
    last = silent(attempt, 4, step=0)
    peer._proofs = [two_words(attempt, 5), silent(attempt, 3, step=-1), last]
    attempt.roster = attempt.roster.without([5])
    assert peer._take_proofs(attempt) == (last,)
    assert peer._proofs == []


REMOVED = (Removal(5, "silent", None),)
ENDS: dict[str, tuple[bytes | None, tuple[Removal, ...]]] = {
    "it starts again": (None, REMOVED),
    "the value stands": (bytes(32), ()),
    "the value stands and somebody is removed": (bytes(32), REMOVED),
}


@pytest.mark.parametrize("name", ENDS)
def test_after_an_outcome_whose_dispute_we_had_no_part_in_nothing_is_open(name: str) -> None:
    peer = in_step_1()
    attempt = peer.attempt
    assert attempt is not None
    value, removals = ENDS[name]
    before = peer._ended(Certificate(Outcome(attempt.slot(Phase.OUTCOME), (), value, removals), ()))
    assert (before.closed, before.held, before.windows) == (True, False, 0)
    assert before.round is peer._round


def test_after_closes_a_dispute_may_still_begin_for_f_and_one_windows() -> None:
    peer = in_step_1()
    before = peer._ended(Certificate.of(peer._certificate))
    assert (before.closed, before.held, before.windows) == (False, False, 3)
    assert before.round is peer._round


def test_the_first_attempt_is_patient_with_those_that_could_not_be_greeted() -> None:
    peer = stopped(0, "CLOSE")[0].simulation.nodes[0].peer
    attempt = peer.attempt
    assert attempt is not None
    assert peer._patience_s(attempt) == 0.0, "all have greeted"
    peer._greeting = Greeting(peer.settings, attempt.roster)
    assert peer._patience_s(attempt) == outcome_s(peer.settings)
    attempt.number = 1
    assert peer._patience_s(attempt) == 0.0


@pytest.mark.parametrize(("since", "waits"), [(0, False), (1, True), (2, False)])
def test_others_wait_where_somebody_is_let_back_with_this_very_step(since: int, waits: bool) -> None:
    peer = in_step_1()
    attempt = peer.attempt
    assert attempt is not None
    replace_state(attempt, returned=((4, 0), (3, since)))
    assert (peer._patience_s(attempt) > 0.0) is waits
