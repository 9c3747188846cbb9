"""Messages that fit their attempt, and the ways in which they do not."""

from __future__ import annotations

import msgspec
import pytest

from btard.node.protocol.adjudication.judging import Counts
from btard.node.protocol.attempt.phases import misfit
from btard.node.protocol.wire.messages import (
    Accusation,
    AccusationKind,
    Agg,
    Checksums,
    Close,
    Commit,
    Have,
    Hello,
    Judge,
    Message,
    Missing,
    Phase,
    Publish,
    Removal,
    Report,
    Reveal,
    Slot,
    Verdict,
    Void,
)
from btard.node.protocol.wire.validation import MAX_ACCUSATIONS
from tests.protocol_attempts import complete, said

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
