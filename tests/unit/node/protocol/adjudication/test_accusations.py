"""Which charges a transcript raises, beyond those of test_charges.py: evidence, undo steps, order and duplicates."""

from __future__ import annotations

import math

import pytest
import torch

from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer
from btard.node.protocol.adjudication.accusations import (
    charges,
    disowned,
    evidence_in,
    judged_peers,
    publications,
    raised,
    words,
)
from btard.node.protocol.adjudication.charges import (
    Averaging,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    OutOfBounds,
    Publication,
    encode_equivocation,
)
from btard.node.protocol.adjudication.omission import Silent
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.undo_window import Contribution
from btard.node.protocol.wire.encoding import encode, encode_body, signing_bytes, stub_bytes
from btard.node.protocol.wire.messages import (
    MAX_PROOFS,
    Accusation,
    AccusationKind,
    Checksums,
    Phase,
    Place,
    Report,
    Signed,
    Slot,
    Stub,
    Suspect,
    Verdict,
)
from tests.protocol_attempts import changed, complete, replace_state, said

SIGNERS = [Signer(bytes.fromhex(secret.signing_seed)) for secret in generate(0, 6)[1]]


def two_words(attempt: Attempt, peer: int, step: int = 0, phase: Phase = Phase.AGG) -> bytes:
    """Two messages of a peer for one slot."""
    place = Place(Slot(attempt.settings.run, b"any roster", step, 0, phase, peer), (), None)
    made = [Stub(place, body, SIGNERS[peer].sign(stub_bytes(place, body))) for body in (b"one", b"two")]
    return encode_equivocation(*made)


def silent(attempt: Attempt, peer: int, step: int) -> bytes:
    """f + 1 peers suspect one."""
    made = []
    for sender in [other for other in range(6) if other != peer][:3]:
        slot = Slot(attempt.settings.run, attempt.roster.digest, step, 0, Phase.SUSPECT, sender)
        body = Suspect(slot, (), Phase.AGG, peer)
        data = encode_body(body)
        made.append(Signed(data, SIGNERS[sender].sign(signing_bytes(body, data))))
    return encode(tuple(made))


def accused(attempt: Attempt, kind: type) -> list[int]:
    return [charge.accused for charge in charges(attempt) if isinstance(charge, kind)]


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_each_is_charged_once_whoever_brings_how_much_evidence() -> None:
    attempt = complete().attempt
    first, other = two_words(attempt, 5), two_words(attempt, 5, step=1)
    changed(attempt, Report, 1, evidence=(b"rubbish", first))
    changed(attempt, Report, 3, evidence=(other, two_words(attempt, 2), first))
    assert accused(attempt, Equivocation) == [5, 2]
    (charge, _) = charges(attempt)
    assert charge == evidence_in(first, attempt)
    assert charge != evidence_in(other, attempt)


def test_a_peer_may_be_charged_with_silence_and_with_equivocation() -> None:
    attempt = complete().attempt
    changed(attempt, Report, 0, evidence=(silent(attempt, 5, 1),))
    changed(attempt, Report, 4, evidence=(silent(attempt, 5, 1), two_words(attempt, 5)))
    found = charges(attempt)
    assert [type(charge) for charge in found] == [Equivocation, Silent]
    assert all(raised(charge, attempt) for charge in found[1:])
    assert not raised(Silent(5, Phase.COMMIT), attempt) and not raised(Silent(4, Phase.AGG), attempt)


def test_what_a_report_carries_beyond_its_share_does_not_count() -> None:
    """It does not fit, but a judge may see it in a damaged file."""
    attempt = complete().attempt
    pieces = tuple(two_words(attempt, peer) for peer in (1, 2, 3, 4, 5))
    changed(attempt, Report, 0, evidence=pieces)
    assert accused(attempt, Equivocation) == [1, 2, 3, 4][:MAX_PROOFS]


def test_evidence_against_the_removed_convicts_nobody() -> None:
    attempt = complete().attempt
    data, of_step_1 = two_words(attempt, 5), silent(attempt, 5, 1)
    assert evidence_in(data, attempt) is not None and evidence_in(of_step_1, attempt) is not None
    attempt.roster = attempt.roster.without([5])
    assert evidence_in(data, attempt) is None
    assert evidence_in(of_step_1, attempt) is None


def test_a_contradiction_never_expires_and_silence_does() -> None:
    attempt = complete().attempt
    assert evidence_in(two_words(attempt, 5, step=0), attempt) is not None
    assert evidence_in(silent(attempt, 5, 1), attempt) == Silent(5, Phase.AGG)
    assert evidence_in(silent(attempt, 5, 0), attempt) is None
    assert evidence_in(b"", attempt) is None


# --- undo steps -------------------------------------------------------------------------------------------------------

ITEMS = (Contribution(0, 0, 1), Contribution(1, 0, 1))


def undoing(*holds: tuple[int, tuple[bool, ...]]) -> Attempt:
    """Both contributions are in question; peers 2 and 3 recompute both, peer 4 the second."""
    attempt = complete().attempt
    replace_state(attempt, undo=ITEMS, undo_checkers=2)
    attempt.shares = {2: ITEMS, 3: ITEMS, 4: ITEMS[1:]}
    for peer, bits in holds:
        changed(attempt, Report, peer, holds=bits)
    return attempt


def test_one_checker_is_enough_to_have_all_recompute() -> None:
    attempt = undoing((2, (True, True)), (3, (True, False)), (4, (True,)))
    assert words(attempt) == {ITEMS[0]: {2: True, 3: True}, ITEMS[1]: {2: True, 3: False, 4: True}}
    assert disowned(attempt) == ITEMS[1:]
    history = FalseHistory(1, 1, 0)
    assert charges(attempt) == (history,)
    assert raised(history, attempt)
    assert not raised(FalseHistory(1, 0, 0), attempt) and not raised(FalseHistory(2, 1, 0), attempt)


def test_what_all_checkers_pass_is_not_disowned() -> None:
    attempt = undoing((2, (True, True)), (3, (True, True)), (4, (True,)))
    assert disowned(attempt) == () == charges(attempt)


# --- order and duplicates ---------------------------------------------------------------------------------------------


def test_charges_come_in_one_order_whatever_arrived_first() -> None:
    attempt = complete().attempt
    peer, (validator, target) = attempt.contributors[0], attempt.pairs[0]
    claims = said(attempt, Checksums, peer)
    changed(attempt, Checksums, peer, s=(*claims.s[:3], math.nan, *claims.s[4:]))  # type: ignore[union-attr]
    changed(attempt, Report, validator, verdicts=(Verdict(target, False),))
    changed(attempt, Report, 1, evidence=(silent(attempt, 2, 1), two_words(attempt, 2)))
    accusation = Accusation(AccusationKind.CHECKSUM, peer, attempt.step, attempt.number, 1)
    changed(attempt, Report, 4, accusations=(accusation,))
    found = charges(attempt)
    kinds = [Equivocation, Silent, OutOfBounds, Averaging, FalseChecksum, FalseGradient]
    assert [type(charge) for charge in found] == kinds
    for held in (attempt.transcript._bodies, attempt.transcript._signed):
        for phase, by in held.items():
            held[phase] = dict(reversed(by.items()))  # type: ignore[assignment]
    assert charges(attempt) == found


def test_an_accuser_is_no_aggregator_and_answers_for_itself() -> None:
    """A part that is recomputed anyway judges its aggregator's bit, and nobody else's word."""
    attempt = complete().attempt
    peer, aggregator = attempt.contributors[0], attempt.roster.active[2]
    report = said(attempt, Report, aggregator)
    accusation = Accusation(AccusationKind.CHECKSUM, peer, attempt.step, attempt.number, 2)
    claims = said(attempt, Checksums, peer)
    changed(attempt, Checksums, peer, s=(*claims.s[:2], math.nan, *claims.s[3:]))  # type: ignore[union-attr]
    raised_by = {
        "its bit": {"checks": (False, *report.checks[1:])},  # type: ignore[union-attr]
        "its accusation": {"accusations": (accusation,)},
    }
    expected = (OutOfBounds(peer, 2), Averaging(2, "V0"))
    changed(attempt, Report, aggregator, **raised_by["its bit"])
    assert charges(attempt) == expected
    changed(attempt, Report, aggregator, checks=report.checks, **raised_by["its accusation"])  # type: ignore[union-attr]
    assert charges(attempt) == (*expected, FalseChecksum(peer, 2, aggregator))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_aggregate_that_is_not_finite_is_recomputed(value: float) -> None:
    attempt = complete().attempt
    attempt.aggregates[3] = torch.tensor([0.0, value, 0.0])
    assert charges(attempt) == (Averaging(3, "V0"),)
    assert raised(Averaging(3, "V0"), attempt) and not raised(Averaging(3, "V2"), attempt)


def test_what_is_published_is_sorted_and_named_once() -> None:
    round_ = complete()
    attempt, past = round_.attempt, round_.past
    peer, step = attempt.contributors[0], attempt.step
    found = (
        Averaging(4, "V2"),
        FalseChecksum(peer, 4, 1),
        FalseChecksum(peer, 1, 2),
        Averaging(4, "accusation", 3),
        FalseHistory(peer, 0, 0),
        Silent(5, Phase.AGG),
    )
    expected = sorted([(peer, 1), *((owner, 4) for owner in attempt.contributors)])
    wanted = publications(found, attempt, past)
    assert wanted == tuple(Publication(step, 0, owner, part) for owner, part in expected)
    assert publications(found, attempt, None) == wanted
    assert publications((), attempt, past) == ()


def test_judged_are_the_accused_that_are_left_each_once() -> None:
    attempt = complete().attempt
    validator, _ = attempt.pairs[0]
    verdicts = (Verdict(4, False), Verdict(2, False), Verdict(4, False), Verdict(3, True), Verdict(99, False))
    changed(attempt, Report, validator, verdicts=verdicts)
    assert judged_peers(attempt) == (4, 2)
    assert FalseGradient(99, validator) in charges(attempt)
    attempt.roster = attempt.roster.without([4])
    assert judged_peers(attempt) == (2,)
