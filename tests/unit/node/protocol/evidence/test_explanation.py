"""The sentence about a ban names who did what, and follows the reason of the ban where a charge has two sides."""

from __future__ import annotations

import pytest

from btard.node.protocol.adjudication.charges import (
    Averaging,
    Broken,
    Charge,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    FalseProbation,
    OutOfBounds,
    Ruled,
    Silent,
    Unusable,
    Withheld,
)
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.evidence.explanation import testimony as told
from btard.node.protocol.state.state import Ban
from btard.node.protocol.wire.messages import Agg, Checksums, Held, Missing, Phase, Place, Reveal, Slot, Stub
from tests.protocol_attempts import amend, changed, complete

BAD, OTHER, PART = 5, 1, 3


def stub(phase: Phase, body: bytes = b"1", step: int = 2, attempt: int = 0) -> Stub:
    return Stub(Place(Slot(b"r", b"o", step, attempt, phase, BAD), (), None), body, b"")


def said(charge: Charge, reason: str, attempt: Attempt | None = None, peer: int = BAD) -> str:
    ban = Ban(2, 0, peer, reason, None, True)
    return told(ban, charge, attempt or complete().attempt, (4, 0, 2))


ROWS = [
    (
        "a ruling",
        Ruled(BAD, "prefix"),
        "prefix",
        "peers 0, 2, 4, more than half of the roster, signed the removal of peer 5: it signed a history of the attempt",
    ),
    ("edges", Broken(BAD, None), "edges", "signed the removal of peer 5: complaints tie it to more peers"),
    (
        "two messages",
        Equivocation(BAD, stub(Phase.COMMIT), stub(Phase.COMMIT, b"2")),
        "equivocation",
        "peer 5 signed two different messages for one slot: COMMIT of step 2, attempt 1",
    ),
    (
        "two histories",
        Equivocation(BAD, stub(Phase.AGG, attempt=1), stub(Phase.CLOSE, attempt=1)),
        "equivocation",
        "peer 5 signed two histories of step 2, attempt 2: its AGG and its CLOSE cannot both be true",
    ),
    ("silence", Silent(BAD, Phase.CLOSE), "silent", "missed the CLOSE of peer 5 in the step before"),
    ("a publication", Withheld(BAD, "publication", 2, PART), "withheld", "what peer 5 had to publish for judging"),
    ("unusable", Unusable(BAD, PART), "unusable", "peer 5 committed to a part 3 with entries that are not finite"),
    (
        "a wrong aggregate",
        Averaging(PART, "V2"),
        "aggregate",
        "part 3 shows that peer 5 committed to a wrong aggregate",
    ),
    ("a false report", Averaging(PART, "V2"), "false_report", "that peer 5 passed a false checksum as true"),
    (
        "a false alarm",
        Averaging(PART, "accusation", BAD),
        "false_accusation",
        "nothing wrong: peer 5 accused its aggregator falsely",
    ),
    ("a claim found by the way", Averaging(PART, "V2"), "checksum", "the checksum which peer 5 claimed is false"),
    ("a false claim", FalseChecksum(BAD, PART, OTHER), "checksum", "the checksum of part 3 is not what peer 5 claimed"),
    (
        "a true claim",
        FalseChecksum(OTHER, PART, BAD),
        "false_accusation",
        "is what peer 1 claimed: peer 5 accused it falsely",
    ),
    (
        "a false gradient",
        FalseGradient(BAD, OTHER),
        "gradient",
        "peer 5 committed to another gradient than its public seed gives, as peer 1 said",
    ),
    (
        "a true gradient",
        FalseGradient(OTHER, BAD),
        "false_accusation",
        "the gradient of peer 1 is the one that its public seed gives: peer 5 lied",
    ),
    ("a gradient's claims", FalseGradient(BAD, OTHER), "checksum", "peer 5 claimed other checksums than its gradient"),
    ("probation", FalseProbation(BAD, b""), "probation", "on probation, peer 5 signed another digest"),
    (
        "a lie passed",
        FalseHistory(OTHER, 1, 0),
        "false_report",
        "peer 5 called what peer 1 contributed to step 1 true; recomputed, it is false",
    ),
    (
        "a truth disowned",
        FalseHistory(OTHER, 1, 0),
        "false_accusation",
        "peer 5 called what peer 1 contributed to step 1 false; recomputed, it is true",
    ),
]


@pytest.mark.parametrize(("charge", "reason", "sentence"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_who_did_what(charge: Charge, reason: str, sentence: str) -> None:
    assert sentence in said(charge, reason)


def test_impossible_claims_are_quoted() -> None:
    attempt = complete().attempt
    changed(attempt, Checksums, BAD, s=(0.0,) * PART + (1e30,) + (0.0,) * 2, norms=(0.0,) * PART + (-2.0,) + (0.0,) * 2)
    sentence = said(OutOfBounds(BAD, PART), "bounds", attempt)
    assert sentence == "peer 5 signed s = 1e+30 and norm = -2 for part 3: impossible (V0)"


def test_how_many_say_that_they_hold_an_aggregate() -> None:
    attempt = complete().attempt
    for peer in (0, 1, 2, 3):
        changed(attempt, Reveal, peer, have=(True,) * 5 + (False,))
    sentence = said(Withheld(BAD, "aggregate", 2, BAD), "withheld", attempt)
    assert sentence == "2 of 6 peers say that they hold peer 5's aggregate; 3 had to"


def test_how_many_say_that_they_hold_a_part() -> None:
    """Two complaints: the bits of HELD stand in their order."""
    attempt = complete(step=0).attempt
    for aggregator, owner in ((0, 4), (PART, BAD)):
        changed(attempt, Agg, aggregator, aggregate=Missing((owner,)))
    for peer in range(6):
        body = Held(attempt.slot(Phase.HELD, peer), (), (True, peer == BAD))
        attempt.transcript._bodies.setdefault(Phase.HELD, {})
        attempt.transcript._signed.setdefault(Phase.HELD, {})
        amend(attempt, body)
    sentence = said(Withheld(BAD, "part", 0, PART), "withheld", attempt)
    assert sentence == "1 of 6 peers say that they hold part 3 of peer 5's gradient; 3 had to"
