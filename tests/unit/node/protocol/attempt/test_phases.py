"""The phases: which follows which, what a peer waits for before it speaks, and which messages fit their attempt.

What voids an attempt, whose bytes go with a message, and what is said again after a new start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
import torch

from btard.node.protocol.adjudication.charges import Unusable, Withheld
from btard.node.protocol.adjudication.judging import Counts
from btard.node.protocol.api import BulkKind
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.phases import OUTSIDE, PHASES, Knowledge, following, message, misfit, standing
from btard.node.protocol.attempt.transfers import LackingError
from btard.node.protocol.wire.messages import (
    MAX_ACCUSATIONS,
    PHASE_OF,
    Accusation,
    AccusationKind,
    Agg,
    Agg2,
    Body,
    Checksums,
    Close,
    Commit,
    Have,
    Held,
    Hello,
    Join,
    Judge,
    Late,
    Message,
    Missing,
    Outcome,
    Phase,
    Publish,
    Removal,
    Report,
    Reveal,
    Slot,
    Suspect,
    Verdict,
    View,
    Void,
)
from tests.protocol_attempts import amend, complete, said, six
from tests.unit.node.protocol.attempt.test_transfers import complaining, holding, published

COMPLAINTS = ((1, 4), (2, 0))


def test_there_is_a_row_for_each_phase_of_a_step_in_order() -> None:
    assert list(PHASES) == [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value]
    assert all(PHASE_OF[row.message] is phase for phase, row in PHASES.items())


def held(*holders: tuple[int, ...], values: tuple[float, ...] = (0.0, 0.0)) -> Attempt:
    """An attempt with two complaints, after HELD: who holds each part, and what is published."""
    attempt = complaining(*COMPLAINTS)
    holding(attempt, Phase.HELD, *holders)
    for (aggregator, owner), value in zip(COMPLAINTS, values, strict=False):
        published(attempt, owner, aggregator, value)
    return attempt


def revealed(*holders: tuple[int, ...]) -> Attempt:
    attempt = complaining()
    holding(attempt, Phase.REVEAL, *holders)
    return attempt


F, MORE, ALL = (1, 2), (1, 2, 3), (0, 1, 2, 3, 4, 5)
NEXT: dict[str, tuple[Phase, Callable[[], Attempt], Phase, list[object] | None]] = {
    "nobody complains": (Phase.AGG, complaining, Phase.REVEAL, None),
    "somebody complains": (Phase.AGG, lambda: complaining((5, 0)), Phase.RESEND, None),
    "f + 1 hold each part": (Phase.HELD, lambda: held(MORE, ALL), Phase.AGG2, None),
    "f hold a part": (Phase.HELD, lambda: held(F, ALL), Phase.CLOSE, [Withheld(4, "part", 0, 1)]),
    "f hold a part, another is unusable": (
        Phase.HELD,
        lambda: held(F, ALL, values=(0.0, float("nan"))),
        Phase.CLOSE,
        [Withheld(4, "part", 0, 1)],
    ),
    "a scarce part need not be here": (
        Phase.HELD,
        lambda: held(F, ALL, values=()),
        Phase.CLOSE,
        [Withheld(4, "part", 0, 1)],
    ),
    "two are unusable": (
        Phase.HELD,
        lambda: held(ALL, ALL, values=(float("inf"), 2.0**41)),
        Phase.CLOSE,
        [Unusable(0, 2), Unusable(4, 1)],
    ),
    "f + 1 hold each aggregate": (Phase.REVEAL, lambda: revealed(*[MORE] * 6), Phase.CHECKSUMS, None),
    "f hold two aggregates": (
        Phase.REVEAL,
        lambda: revealed(ALL, F, ALL, ALL, ALL, ()),
        Phase.CLOSE,
        [Withheld(1, "aggregate", 0, 1), Withheld(5, "aggregate", 0, 5)],
    ),
    "f hold the aggregates of f + 1": (Phase.REVEAL, lambda: revealed(ALL, F, ALL, F, ALL, ()), Phase.CLOSE, []),
}


@pytest.mark.parametrize("name", NEXT)
def test_what_follows_and_what_voids_an_attempt(name: str) -> None:
    phase, make, after, charges = NEXT[name]
    found, judgement = following(make(), phase, None)
    assert found is after
    if charges is None:
        assert judgement is None
    else:
        assert judgement is not None and judgement.void
        assert [guilt.charge for guilt in judgement.guilts] == charges


def test_a_published_part_that_is_on_its_way_is_waited_for() -> None:
    """f + 1 hold it, so it comes; to go on without it would be to disagree with those that have it."""
    with pytest.raises(LackingError):
        following(held(MORE, ALL, values=(float("nan"),)), Phase.HELD, None)


def bodies(attempt: Attempt) -> dict[str, Body]:
    return {
        "HELLO": Hello(attempt.slot(Phase.HELLO, 5), (), bytes(32), b""),
        "VIEW": View(attempt.slot(Phase.VIEW, 5), (), ()),
        "OUTCOME": Outcome(attempt.slot(Phase.OUTCOME, 5), (), None, ()),
        "JOIN": Join(attempt.slot(Phase.JOIN, 5), (), bytes(32)),
    }


@pytest.mark.parametrize("name", ["HELLO", "VIEW", "OUTCOME", "JOIN"])
def test_what_belongs_to_no_phase_fits_no_attempt(name: str) -> None:
    attempt = complaining()
    body = bodies(attempt)[name]
    assert misfit(body, attempt, Counts()) == OUTSIDE[type(body)]


SUSPECTS = [
    (Phase.COMMIT, 0, True),
    (Phase.CLOSE, 0, True),
    (Phase.HELLO, 0, False),
    (Phase.SUSPECT, 0, False),
    (Phase.AGG, 5, False),
    (Phase.AGG, 6, False),
    (Phase.AGG, -1, False),
]


@pytest.mark.parametrize(("named", "peer", "fits"), SUSPECTS)
def test_whom_a_suspicion_may_name(named: Phase, peer: int, fits: bool) -> None:
    attempt = complaining()
    body = Suspect(attempt.slot(Phase.SUSPECT, 5), (), named, peer)
    assert (misfit(body, attempt, Counts()) is None) is fits


def test_resend_carries_those_of_our_parts_that_are_asked_for() -> None:
    attempt = complaining((1, 0), (3, 4), (3, 0), (4, 2))
    send = PHASES[Phase.RESEND].bytes
    assert send is not None and attempt.own_D is not None
    sent = dict(send(attempt, None))
    assert list(sent) == [attempt.key(BulkKind.PUBLICATION, 0, 1), attempt.key(BulkKind.PUBLICATION, 0, 3)]
    assert all(attempt.part_matches(0, key.part, values_P) for key, values_P in sent.items())
    assert {values_P.numel() for values_P in sent.values()} == {3}
    attempt.own_D = None
    assert list(send(attempt, None)) == [], "started again, we may have no gradient"
    attempt.own_D = torch.zeros(19)
    attempt.me = 3
    assert list(send(attempt, None)) == []


# --- what a peer says -----------------------------------------------------------------------------------------


def knowing(attempt: Attempt, overdue: bool = False, again: bool = False) -> Knowledge:
    return Knowledge(attempt, None, None, Gradients(), (), overdue, (), again)


# --- HELD, CHECKSUMS --------------------------------------------------------------------------------------------------


def test_held_waits_for_every_part_that_may_still_come() -> None:
    attempt = complaining((1, 4), (2, 0), (2, 5))
    published(attempt, 0, 2, 1.0)
    assert message(Phase.HELD, knowing(attempt)) is None
    attempt.refuted.add(attempt.key(BulkKind.PUBLICATION, 4, 1))
    assert message(Phase.HELD, knowing(attempt)) is None
    attempt.refuted.add(attempt.key(BulkKind.PUBLICATION, 5, 2))
    body = message(Phase.HELD, knowing(attempt))
    assert body is not None and body.have == (False, True, False), "what its owner sent falsely is not waited for"
    assert misfit(body, attempt, Counts()) is None


def test_held_says_what_is_here_when_the_wait_is_over() -> None:
    attempt = complaining((1, 4), (2, 0))
    body = message(Phase.HELD, knowing(attempt, overdue=True))
    assert body is not None and body.have == (False, False)
    published(attempt, 0, 2, 1.0)
    body = message(Phase.HELD, knowing(attempt, overdue=True))
    assert body is not None and body.have == (False, True)


def test_checksums_need_every_aggregate_however_long_it_takes() -> None:
    attempt = complete(step=0).attempt
    body = message(Phase.CHECKSUMS, knowing(attempt))
    assert body is not None and misfit(body, attempt, Counts()) is None
    del attempt.aggregates[3]
    assert message(Phase.CHECKSUMS, knowing(attempt, overdue=True)) is None


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
    assert message(Phase.REPORT, known) is None
    true_D = six().task.gradient(past.state.parameters_D, past.seed(target))[0]
    known.gradients.recomputed[target] = true_D
    report = message(Phase.REPORT, known)
    assert report is not None
    assert report.verdicts == (Verdict(target, True),)
    assert report.checks == (True,) * len(known.attempt.contributors)
    assert (report.evidence, report.joins, report.holds) == ((b"proof",), (b"join",), ())
    known.gradients.recomputed[target] = true_D + 1e-3
    report = message(Phase.REPORT, known)
    assert report is not None and report.verdicts == (Verdict(target, False),)


def test_a_report_names_whom_we_waited_for_in_the_step_before_alone() -> None:
    known, _ = validating()
    known.attempt.pairs = ()
    assert known.past is not None
    known.attempt.late.append(Late(Phase.AGG, False, 1))
    known.past.late[:] = [Late(Phase.CLOSE, False, 4)]
    report = message(Phase.REPORT, known)
    assert report is not None and report.late == (Late(Phase.CLOSE, False, 4),)
    first = message(Phase.REPORT, replace(known, past=None))
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
    attempt.transcript.prefix = attempt.transcript.prefix[:3]
    before = attempt.transcript.body(Phase.CHECKSUMS, 0)
    assert standing(Phase.CHECKSUMS, attempt) is None
    assert isinstance(before, Checksums)
    assert message(Phase.CHECKSUMS, knowing(attempt, again=True)) == before
    attempt.transcript.prefix = ()
    assert message(Phase.COMMIT, knowing(attempt, again=True)) == attempt.transcript.body(Phase.COMMIT, 0)


def test_after_a_new_start_what_was_said_of_held_bytes_stands() -> None:
    """Those that are lost are asked for from all who said the same, when the phase is over."""
    attempt = complete(step=0).attempt
    before = attempt.transcript.body(Phase.REVEAL, 0)
    assert isinstance(before, Reveal) and all(before.have)
    attempt.aggregates.clear()
    assert message(Phase.REVEAL, knowing(attempt, again=True)) is before
    assert message(Phase.REVEAL, knowing(attempt)) is None


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


# --- what fits ------------------------------------------------------------------------------------------------


ROUND = complete()
ATTEMPT = ROUND.attempt
VALIDATOR, TARGET = ATTEMPT.pairs[0]
CONTRIBUTOR = ATTEMPT.contributors[0]
LAST = complete(step=3).attempt  # the step without gradients
DIGEST = bytes(32)
BODIES: tuple[type[Message], ...] = (Commit, Agg, Reveal, Checksums, Report, Close)


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("peer", range(6))
def test_what_honest_peers_say_fits(kind: type[Message], peer: int) -> None:
    for attempt in (ATTEMPT, LAST):
        if kind is not Close:
            assert misfit(said(attempt, kind, peer), attempt, Counts()) is None


def of(kind: type[Message], sender: int, **fields: object) -> Message:
    return msgspec.structs.replace(said(ATTEMPT, kind, sender), **fields)  # type: ignore[type-var]


def slot(phase: Phase) -> Slot:
    return ATTEMPT.slot(phase, CONTRIBUTOR)


ACCUSATION = Accusation(AccusationKind.CHECKSUM, 99, -1, 2**40, -7)
MISFITS = [
    ("HELLO", Hello(slot(Phase.HELLO), (), DIGEST, b"")),
    ("too few part digests", of(Commit, CONTRIBUTOR, parts=(DIGEST,) * 5)),
    ("too many part digests", of(Commit, CONTRIBUTOR, parts=(DIGEST,) * 7)),
    ("a contributor without parts", of(Commit, CONTRIBUTOR, parts=())),
    ("a validator with parts", of(Commit, VALIDATOR, parts=(DIGEST,) * 6)),
    ("a short part digest", of(Commit, CONTRIBUTOR, parts=(DIGEST,) * 5 + (b"short",))),
    ("a short commitment", of(Commit, CONTRIBUTOR, randomness=b"")),
    ("a long aggregate digest", of(Agg, CONTRIBUTOR, aggregate=bytes(33))),
    ("no aggregate digest", of(Agg, CONTRIBUTOR, aggregate=b"")),
    ("a complaint of nobody", of(Agg, CONTRIBUTOR, aggregate=Missing(()))),
    ("a complaint of a stranger", of(Agg, CONTRIBUTOR, aggregate=Missing((99,)))),
    ("a complaint of a validator", of(Agg, CONTRIBUTOR, aggregate=Missing((VALIDATOR,)))),
    ("a complaint twice", of(Agg, CONTRIBUTOR, aggregate=Missing((TARGET, TARGET)))),
    ("a short x", of(Reveal, CONTRIBUTOR, x=bytes(31))),
    ("a long salt", of(Reveal, CONTRIBUTOR, salt=bytes(33))),
    ("too few HAVE bits", of(Reveal, CONTRIBUTOR, have=(True,) * 5)),
    ("too few s", of(Checksums, CONTRIBUTOR, s=(0.0,) * 5)),
    ("more norms than s", of(Checksums, CONTRIBUTOR, norms=(0.0,) * 7)),
    ("a validator with checksums", of(Checksums, VALIDATOR, s=(0.0,) * 6, norms=(0.0,) * 6)),
    ("too few V1 bits", of(Report, CONTRIBUTOR, checks=(True,) * 4)),
    ("a verdict that is not due", of(Report, TARGET, verdicts=(Verdict(CONTRIBUTOR, True),))),
    ("a missing verdict", of(Report, VALIDATOR, verdicts=())),
    ("a verdict on another", of(Report, VALIDATOR, verdicts=(Verdict(VALIDATOR, True),))),
    ("a verdict twice", of(Report, VALIDATOR, verdicts=(Verdict(TARGET, True),) * 2)),
    ("too many accusations", of(Report, CONTRIBUTOR, accusations=(ACCUSATION,) * (MAX_ACCUSATIONS + 1))),
    ("too many published bits", Have(slot(Phase.HAVE), (), (True,) * 4)),
    ("no published bits", Have(slot(Phase.HAVE), (), ())),
    ("too few judgements", Judge(slot(Phase.JUDGE), (), ())),
    ("a short state digest", Close(slot(Phase.CLOSE), (), b"")),
]


@pytest.mark.parametrize("body", [row[1] for row in MISFITS], ids=[row[0] for row in MISFITS])
def test_misfits(body: Message) -> None:
    assert misfit(body, ATTEMPT, Counts(3, 1)) is not None  # type: ignore[arg-type]


FITTING = [
    ("a complaint", of(Agg, CONTRIBUTOR, aggregate=Missing(tuple(sorted({CONTRIBUTOR, TARGET}))))),
    ("accusations of whatever", of(Report, CONTRIBUTOR, accusations=(ACCUSATION,) * MAX_ACCUSATIONS)),
    ("published bits before their number is known", Have(slot(Phase.HAVE), (), (True,) * 40)),
    ("judgements before their number is known", Judge(slot(Phase.JUDGE), (), (True,) * 40)),
    ("PUBLISH", Publish(slot(Phase.PUBLISH), ())),
    ("VOID", Close(slot(Phase.CLOSE), (), Void((Removal(99, "whatever", None),)))),
]


@pytest.mark.parametrize("body", [row[1] for row in FITTING], ids=[row[0] for row in FITTING])
def test_what_fits(body: Message) -> None:
    assert misfit(body, ATTEMPT, Counts()) is None  # type: ignore[arg-type]


def test_the_last_step_carries_no_gradients() -> None:
    agg = said(LAST, Agg, 0)
    assert isinstance(agg, Agg)
    assert agg.aggregate == b""
    assert misfit(msgspec.structs.replace(agg, aggregate=DIGEST), LAST, Counts()) is not None
    commit = said(LAST, Commit, 0)
    assert misfit(msgspec.structs.replace(commit, parts=(DIGEST,) * 6), LAST, Counts()) is not None  # type: ignore[type-var]
