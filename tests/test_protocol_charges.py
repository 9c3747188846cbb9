"""What a transcript accuses whom of, and which bytes judging it needs."""

from __future__ import annotations

import math

import pytest

from node.protocol.attempt import Attempt
from node.protocol.charges import (
    Averaging,
    Charge,
    FalseChecksum,
    FalseGradient,
    OutOfBounds,
    Publication,
    accusation_of,
)
from node.protocol.checksums import NormWindow
from node.protocol.indictment import charges, judged_peers, publications, raised
from node.protocol.messages import Accusation, AccusationKind, Checksums, Report, Verdict
from tests.protocol_attempts import changed, complete, replace_state, said


def attempt_of(**more: object) -> Attempt:
    return complete(**more).attempt


def lied(attempt: Attempt, peer: int, part: int, *, s: float | None = None, norm: float | None = None) -> None:
    """Change a contributor's claim."""
    body = said(attempt, Checksums, peer)
    assert isinstance(body, Checksums)
    values, norms = list(body.s), list(body.norms)
    values[part] = values[part] if s is None else s
    norms[part] = norms[part] if norm is None else norm
    changed(attempt, Checksums, peer, s=tuple(values), norms=tuple(norms))


def accused_by(attempt: Attempt, peer: int, *accusations: Accusation) -> None:
    changed(attempt, Report, peer, accusations=accusations)


def flagged(attempt: Attempt, aggregator: int, contributor: int) -> None:
    """An aggregator's V1 bit turned to false."""
    place = attempt.contributors.index(contributor)
    body = said(attempt, Report, aggregator)
    assert isinstance(body, Report)
    changed(attempt, Report, aggregator, checks=tuple(bit and at != place for at, bit in enumerate(body.checks)))


def test_an_honest_transcript_accuses_nobody() -> None:
    for step in (0, 1, 2, 3):
        assert charges(attempt_of(step=step)) == ()


@pytest.mark.parametrize("lie", [{"s": math.nan}, {"s": 1e30}, {"norm": -1.0}, {"norm": math.inf}], ids=str)
def test_v0_charges_the_sender_and_has_the_part_recomputed(lie: dict[str, float]) -> None:
    attempt = attempt_of()
    peer = attempt.contributors[1]
    lied(attempt, peer, 3, **lie)
    assert charges(attempt) == (OutOfBounds(peer, 3), Averaging(3, "V0"))


def test_v2_has_the_part_recomputed() -> None:
    attempt = attempt_of()
    peer = attempt.contributors[0]
    claim = attempt.claim(peer, 2)
    lied(attempt, peer, 2, s=claim.s + 0.1 * claim.norm)
    assert charges(attempt) == (Averaging(2, "V2"),)


def test_v3_has_the_part_recomputed_once_its_limit_is_known() -> None:
    attempt = attempt_of()
    norms = NormWindow(((1e-9,),) * 10)
    replace_state(attempt, norms=norms)
    assert charges(attempt) == tuple(Averaging(part, "V3") for part in range(6))


def test_v1_bits_accuse_the_sender_unless_the_part_is_recomputed_anyway() -> None:
    attempt = attempt_of()
    aggregator, peer = attempt.roster.active[2], attempt.contributors[0]
    flagged(attempt, aggregator, peer)
    assert charges(attempt) == (FalseChecksum(peer, 2, aggregator),)
    lied(attempt, peer, 2, s=math.nan)
    assert charges(attempt) == (OutOfBounds(peer, 2), Averaging(2, "V0"))


def test_accusations_count_if_they_concern_this_attempt() -> None:
    attempt = attempt_of()
    peer, other = attempt.contributors[:2]
    here = {"step": attempt.step, "attempt": attempt.number}
    accused_by(
        attempt, 4,
        Accusation(AccusationKind.CHECKSUM, peer, part=1, **here),
        Accusation(AccusationKind.CHECKSUM, peer, part=1, **here),
        Accusation(AccusationKind.CHECKSUM, other, part=6, **here),
        Accusation(AccusationKind.CHECKSUM, other, part=-1, **here),
        Accusation(AccusationKind.CHECKSUM, 99, part=1, **here),
        Accusation(AccusationKind.CHECKSUM, other, part=1, step=0, attempt=0),
        Accusation(AccusationKind.AGGREGATE, 5, part=77, **here),
        Accusation(AccusationKind.GRADIENT, peer, part=1, **here),
    )  # fmt: skip
    accused_by(attempt, 3, Accusation(AccusationKind.AGGREGATE, 5, part=0, **here))
    assert charges(attempt) == (
        Averaging(5, "accusation", 3), Averaging(5, "accusation", 4), FalseChecksum(peer, 1, 4),
    ), "every accuser answers for itself; what concerns other steps is dropped without penalty"  # fmt: skip


def test_a_verdict_is_the_only_accusation_of_a_gradient() -> None:
    attempt = attempt_of()
    validator, target = attempt.pairs[0]
    changed(attempt, Report, validator, verdicts=(Verdict(target, False),))
    assert charges(attempt) == (FalseGradient(target, validator),)
    assert judged_peers(attempt) == (target,)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 6)])
def test_rules_without_a_residual_are_audited(share: float, expected: int) -> None:
    from node.config import Plugin

    found = charges(attempt_of(rule=Plugin("median"), audit_share=share))
    assert found == tuple(Averaging(part, "audit") for part in range(expected))


def every_charge(attempt: Attempt) -> list[tuple[Charge, bool]]:
    """Charges that the transcript of the test below raises, and such that it does not."""
    peer, (validator, target) = attempt.contributors[0], attempt.pairs[0]
    return [
        (OutOfBounds(peer, 3), True),
        (OutOfBounds(peer, 2), False),
        (Averaging(3, "V0"), True),
        (Averaging(3, "V2"), False),
        (Averaging(2, "V2"), True),
        (Averaging(2, "V3"), False),
        (Averaging(2, "V2", 1), False),
        (Averaging(1, "V3"), True),
        (Averaging(1, "audit"), False),
        (Averaging(1, "nonsense"), False),
        (Averaging(5, "accusation", 4), True),
        (Averaging(5, "accusation", 3), False),
        (Averaging(5, "accusation", None), False),
        (FalseGradient(target, validator), True),
        (FalseGradient(target, 3 if validator != 3 else 2), False),
        (FalseChecksum(peer, 2, attempt.roster.active[2]), True),
        (FalseChecksum(peer, 4, attempt.roster.active[4]), False),
    ]


@pytest.mark.parametrize("row", range(17))
def test_a_third_party_sees_whether_a_charge_was_raised(row: int) -> None:
    attempt = attempt_of()
    peer, (validator, target) = attempt.contributors[0], attempt.pairs[0]
    lied(attempt, peer, 3, s=math.inf)
    lied(attempt, peer, 2, s=attempt.claim(peer, 2).s + 0.3 * attempt.claim(peer, 2).norm)
    flagged(attempt, attempt.roster.active[2], peer)
    changed(attempt, Report, validator, verdicts=(Verdict(target, False),))
    accused_by(attempt, 4, Accusation(AccusationKind.AGGREGATE, 5, attempt.step, attempt.number, 0))
    charge, expected = every_charge(attempt)[row]
    assert raised(charge, attempt) is expected


def test_what_must_be_published() -> None:
    """A whole part for CheckAveraging, one part of the accused for a checksum; on one platform no gradient."""
    round_ = complete()
    attempt, past = round_.attempt, round_.past
    peer = attempt.contributors[3]
    found = (Averaging(2, "V2"), FalseChecksum(peer, 4, 0), FalseChecksum(peer, 2, 0), FalseGradient(peer, 1),
             OutOfBounds(peer, 0))  # fmt: skip
    expected = {Publication(attempt.step, attempt.number, owner, 2) for owner in attempt.contributors}
    expected |= {Publication(attempt.step, attempt.number, peer, 4)}
    wanted = publications(found, attempt, past)
    assert set(wanted) == expected
    assert list(wanted) == sorted(wanted, key=lambda item: (item.step, item.attempt, item.owner, item.part))


def test_across_environments_the_accused_publishes_its_gradient() -> None:
    round_ = complete(recompute_tolerance=1e-6)
    attempt, past = round_.attempt, round_.past
    assert past is not None
    _, target = attempt.pairs[0]
    assert publications((FalseGradient(target, 1), FalseGradient(99, 1)), attempt, past) == tuple(
        Publication(past.step, past.number, target, part) for part in range(6)
    )


NAMES = [
    (OutOfBounds(3, 1), ("bounds", 3, 1, None)),
    (Averaging(2, "V3"), ("averaging:V3", 2, 2, None)),
    (Averaging(2, "accusation", 5), ("averaging:accusation", 2, 2, 5)),
    (FalseChecksum(3, 1, 4), ("checksum", 3, 1, 4)),
    (FalseGradient(3, 4), ("gradient", 3, None, 4)),
]


@pytest.mark.parametrize(("charge", "named"), NAMES, ids=[row[1][0] for row in NAMES])
def test_how_a_charge_is_reported(charge: Charge, named: tuple[object, ...]) -> None:
    said_ = accusation_of(attempt_of(), charge)
    assert (said_.kind, said_.accused, said_.part, said_.accuser) == named
