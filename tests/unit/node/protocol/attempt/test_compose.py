"""What a peer waits for before it speaks, and what it says again after a new start."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from btard.node.protocol.adjudication.judging import Counts
from btard.node.protocol.api import BulkKind
from btard.node.protocol.attempt import compose
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.compose import Knowledge
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.phases import message, misfit
from btard.node.protocol.wire.messages import Agg, Agg2, Held, Late, Missing, Phase, Report, Reveal, Verdict
from tests.protocol_attempts import amend, complete, six
from tests.unit.node.protocol.attempt.test_transfers import complaining, published


def knowing(attempt: Attempt, overdue: bool = False, again: bool = False) -> Knowledge:
    return Knowledge(attempt, None, None, Gradients(), (), overdue, (), again)


# --- HELD, CHECKSUMS --------------------------------------------------------------------------------------------------


def test_held_waits_for_every_part_that_may_still_come() -> None:
    attempt = complaining((1, 4), (2, 0), (2, 5))
    published(attempt, 0, 2, 1.0)
    assert compose.held(knowing(attempt)) is None
    attempt.refuted.add(attempt.key(BulkKind.PUBLICATION, 4, 1))
    assert compose.held(knowing(attempt)) is None
    attempt.refuted.add(attempt.key(BulkKind.PUBLICATION, 5, 2))
    body = compose.held(knowing(attempt))
    assert body is not None and body.have == (False, True, False), "what its owner sent falsely is not waited for"
    assert misfit(body, attempt, Counts()) is None


def test_held_says_what_is_here_when_the_wait_is_over() -> None:
    attempt = complaining((1, 4), (2, 0))
    body = compose.held(knowing(attempt, overdue=True))
    assert body is not None and body.have == (False, False)
    published(attempt, 0, 2, 1.0)
    body = compose.held(knowing(attempt, overdue=True))
    assert body is not None and body.have == (False, True)


def test_checksums_need_every_aggregate_however_long_it_takes() -> None:
    attempt = complete(step=0).attempt
    body = compose.checksums(knowing(attempt))
    assert body is not None and misfit(body, attempt, Counts()) is None
    del attempt.aggregates[3]
    assert compose.checksums(knowing(attempt, overdue=True)) is None


@pytest.mark.parametrize("phase", [Phase.PUBLISH, Phase.HAVE, Phase.JUDGE, Phase.CLOSE])
def test_of_judging_nothing_is_said_before_it_has_begun(phase: Phase) -> None:
    assert message(phase, knowing(complete(step=0).attempt, overdue=True)) is None


# --- REPORT -----------------------------------------------------------------------------------------------------------


def validating() -> tuple[Knowledge, int]:
    """Peer 0 as the validator of step 2, and whom it validates; it has recomputed nothing yet."""
    round_ = complete()
    attempt = round_.attempt
    ((_, target),) = attempt.pairs
    attempt.pairs = ((0, target),)
    return Knowledge(attempt, round_.past, None, Gradients(), (b"proof",), False, (b"join",)), target


def test_a_validator_reports_once_its_target_is_recomputed() -> None:
    known, target = validating()
    past = known.past
    assert past is not None
    assert compose.report(known) is None
    true_D = six().task.gradient(past.state.parameters_D, past.seed(target))[0]
    known.gradients.recomputed[target] = true_D
    report = compose.report(known)
    assert report is not None
    assert report.verdicts == (Verdict(target, True),)
    assert report.checks == (True,) * len(known.attempt.contributors)
    assert (report.evidence, report.joins, report.holds) == ((b"proof",), (b"join",), ())
    known.gradients.recomputed[target] = true_D + 1e-3
    report = compose.report(known)
    assert report is not None and report.verdicts == (Verdict(target, False),)


def test_a_report_names_whom_we_waited_for_in_the_step_before_alone() -> None:
    known, _ = validating()
    known.attempt.pairs = ()
    assert known.past is not None
    known.attempt.late.append(Late(Phase.AGG, False, 1))
    known.past.late[:] = [Late(Phase.CLOSE, False, 4)]
    report = compose.report(known)
    assert report is not None and report.late == (Late(Phase.CLOSE, False, 4),)
    first = compose.report(replace(known, past=None))
    assert first is not None and first.late == ()


# --- a new start ------------------------------------------------------------------------------------------------------


def test_after_a_new_start_a_complaint_and_a_report_stand() -> None:
    attempt = complaining((0, 4))
    known = knowing(attempt, again=True)
    attempt.parts.clear()
    attempt.aggregates.clear()
    assert message(Phase.AGG, known) is attempt.transcript.body(Phase.AGG, 0)
    assert isinstance(message(Phase.REPORT, known), Report)
    assert message(Phase.REPORT, replace(known, again=False)) is None
    assert message(Phase.AGG, replace(known, again=False)) is None


def test_after_a_new_start_an_aggregate_stands_if_somebody_kept_it() -> None:
    attempt = complete(step=0).attempt
    known = knowing(attempt, again=True)
    attempt.parts.clear()
    assert isinstance(message(Phase.AGG, known), Agg)
    del attempt.aggregates[attempt.me]
    assert message(Phase.AGG, known) is None, "it is made again, from parts that are asked for again"
    attempt.transcript._bodies[Phase.AGG2], attempt.transcript._signed[Phase.AGG2] = {}, {}
    again = Agg2(attempt.slot(Phase.AGG2), (), bytes(32))
    amend(attempt, again)
    assert message(Phase.AGG2, known) != again
    attempt.aggregates[attempt.me] = torch.zeros(3)
    assert message(Phase.AGG2, known) == again


def test_after_a_new_start_what_needs_nobodys_parts_is_made_again() -> None:
    """And is the same as before: it signs nothing else for the same slot."""
    attempt = complete(step=0).attempt
    attempt.transcript.prefix = attempt.transcript.prefix[:2]
    before = attempt.transcript.body(Phase.REVEAL, 0)
    assert compose.standing(Phase.REVEAL, attempt) is None
    assert isinstance(before, Reveal)
    assert message(Phase.REVEAL, knowing(attempt, again=True)) == before
    attempt.transcript.prefix = ()
    assert message(Phase.COMMIT, knowing(attempt, again=True)) == attempt.transcript.body(Phase.COMMIT, 0)


def test_who_said_nothing_before_says_it_now() -> None:
    attempt = complaining((0, 4))
    known = knowing(attempt, again=True)
    del attempt.transcript._bodies[Phase.AGG][0]
    assert message(Phase.AGG, known) == Agg(attempt.slot(Phase.AGG), attempt.transcript.prefix, aggregate_of(attempt))
    assert isinstance(message(Phase.HELD, known), Held)


def aggregate_of(attempt: Attempt) -> bytes | Missing:
    body = complete(step=0).attempt.transcript.body(Phase.AGG, attempt.me)
    assert isinstance(body, Agg)
    return body.aggregate
