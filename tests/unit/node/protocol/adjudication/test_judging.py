"""Which charges a transcript raises, who is guilty of them, and the phases of judging.

Beyond test_charges.py: evidence, undo steps, order and duplicates. Guilt is a pure function of the transcript, the
published bytes and recomputation. Which phases there are, what is published, and when the verdict is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer
from btard.node.protocol.adjudication.charges import (
    Averaging,
    Charge,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    Guilt,
    OutOfBounds,
    Publication,
    Ruled,
    Silent,
    Withheld,
    encode_equivocation,
)
from btard.node.protocol.adjudication.judging import (
    Case,
    CaseFile,
    Counts,
    Judgement,
    charges,
    disowned,
    evidence_in,
    far_from,
    gradient_fault,
    judge,
    judged_peers,
    publications,
    raised,
    suspicious,
    words,
)
from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.attempt.verification import V0_FACTOR
from btard.node.protocol.state.state import Ban, Contribution
from btard.node.protocol.wire.encoding import encode, encode_body, signing_bytes, stub_bytes
from btard.node.protocol.wire.messages import (
    MAX_PROOFS,
    Accusation,
    AccusationKind,
    Checksums,
    Judge,
    Phase,
    Place,
    Publish,
    Removal,
    Report,
    Signed,
    Slot,
    Stub,
    Suspect,
    Verdict,
)
from tests.protocol_attempts import PEERS, changed, complete, replace_state, said, six
from tests.simulation.stage import Stage, run_until

# --- accusations ----------------------------------------------------------------------------------------------


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


# --- verdicts -------------------------------------------------------------------------------------------------


PART = 2


class Court:
    """Step 2 of six honest peers up to REPORT, with every contributor's part 2 published."""

    def __init__(self) -> None:
        self.stage: Stage = six()
        self.round: Round = run_until(self.stage, 0, 2, "CLOSE")
        self.attempt: Attempt = self.round.attempt
        assert self.round.past is not None
        self.past: Attempt = self.round.past
        self.aggregator = self.attempt.roster.active[PART]
        self.honest = [peer for peer in self.attempt.contributors if peer != self.aggregator]
        self.liar = self.honest[0]
        for owner in self.attempt.contributors:
            self.publish(owner, self.attempt.slice(self.gradient(self.attempt, owner), PART))

    def gradient(self, attempt: Attempt, owner: int) -> Tensor:
        return self.stage.task.gradient(attempt.state.parameters_D, attempt.seed(owner))[0]

    def publish(self, owner: int, values_P: Tensor) -> None:
        self.attempt.publications[(self.attempt.step, self.attempt.number, owner, PART)] = values_P

    def lie(self, peer: int, factor: float = 1.5) -> None:
        body = said(self.attempt, Checksums, peer)
        assert isinstance(body, Checksums)
        s = tuple(value * factor if part == PART else value for part, value in enumerate(body.s))
        changed(self.attempt, Checksums, peer, s=s)

    def flag(self, contributor: int) -> None:
        place = self.attempt.contributors.index(contributor)
        body = said(self.attempt, Report, self.aggregator)
        assert isinstance(body, Report)
        checks = tuple(bit and at != place for at, bit in enumerate(body.checks))
        changed(self.attempt, Report, self.aggregator, checks=checks)

    def shift(self, by: float) -> None:
        self.attempt.aggregates[self.aggregator] = self.attempt.aggregates[self.aggregator] + by

    def judge(self, *charges: Charge, recomputed: dict[int, Tensor] | None = None) -> tuple[set[Removal], bool]:
        found = judge(charges, CaseFile(self.attempt, self.past, recomputed or {}))
        return set(found.removals), found.void


@pytest.fixture
def court() -> Court:
    return Court()


def test_recomputing_an_honest_part_finds_nobody_guilty(court: Court) -> None:
    assert court.judge(Averaging(PART, "V2")) == (set(), False)


def test_a_false_aggregate_voids_the_attempt(court: Court) -> None:
    court.shift(1.0)
    removals, void = court.judge(Averaging(PART, "V2"))
    assert Removal(court.aggregator, "aggregate", None) in removals
    assert void


def test_a_false_claim_that_its_aggregator_noticed(court: Court) -> None:
    court.lie(court.liar)
    court.flag(court.liar)
    expected = ({Removal(court.liar, "checksum", court.aggregator)}, False)
    assert court.judge(Averaging(PART, "V2")) == expected
    assert court.judge(FalseChecksum(court.liar, PART, court.aggregator)) == expected


def test_a_false_claim_that_its_aggregator_passed(court: Court) -> None:
    court.lie(court.liar)
    assert court.judge(Averaging(PART, "V2")) == (
        {Removal(court.liar, "checksum", None), Removal(court.aggregator, "false_report", None)}, False
    )  # fmt: skip


def test_a_true_claim_called_false(court: Court) -> None:
    court.flag(court.liar)
    assert court.judge(Averaging(PART, "V3")) == ({Removal(court.aggregator, "false_accusation", None)}, False)
    assert court.judge(FalseChecksum(court.liar, PART, court.aggregator)) == (
        {Removal(court.aggregator, "false_accusation", None)}, False
    )  # fmt: skip


def test_an_aggregate_accused_without_cause(court: Court) -> None:
    assert court.judge(Averaging(PART, "accusation", 5)) == ({Removal(5, "false_accusation", None)}, False)


def test_an_aggregate_accused_with_cause(court: Court) -> None:
    court.shift(1.0)
    removals, void = court.judge(Averaging(PART, "accusation", 5))
    assert Removal(court.aggregator, "aggregate", 5) in removals
    assert Removal(5, "false_accusation", None) not in removals
    assert void


@pytest.mark.parametrize("value", [math.nan, math.inf, 2.0**41], ids=str)
def test_a_published_part_that_nobody_can_compute_with(court: Court, value: float) -> None:
    """Its owner is guilty, and its aggregator, who did not say so; judging does not crash on it."""
    court.publish(court.liar, torch.full((court.attempt.split.size(PART),), value))
    assert court.judge(Averaging(PART, "V2")) == (
        {Removal(court.liar, "unusable", None), Removal(court.aggregator, "aggregate", None)}, True
    )  # fmt: skip


def test_the_gravest_reason_is_the_one(court: Court) -> None:
    court.lie(court.liar, math.inf)
    court.flag(court.liar)
    removals, _ = court.judge(Averaging(PART, "V0"), OutOfBounds(court.liar, PART))
    assert removals == {Removal(court.liar, "bounds", None)}


def test_the_outcome_does_not_depend_on_the_order_of_charges(court: Court) -> None:
    court.lie(court.liar)
    court.shift(0.5)
    charges = (Averaging(PART, "V2"), OutOfBounds(court.honest[1], PART), Averaging(PART, "accusation", 5))
    assert court.judge(*charges)[0] >= court.judge(*reversed(charges))[0] - {Removal(court.aggregator, "aggregate", 5)}


def test_removed_peers_are_not_judged_again(court: Court) -> None:
    assert court.judge(OutOfBounds(77, PART)) == (set(), False)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.fixture
def examined(court: Court) -> tuple[Court, int, int]:
    """(court, validator, target) of the step."""
    validator, target = court.attempt.pairs[0]
    return court, validator, target


def test_a_true_gradient_convicts_its_accuser(examined: tuple[Court, int, int]) -> None:
    court, validator, target = examined
    truth = {target: court.gradient(court.past, target)}
    assert court.judge(FalseGradient(target, validator), recomputed=truth) == (
        {Removal(validator, "false_accusation", None)}, False
    )  # fmt: skip


def test_a_gradient_that_recomputation_does_not_give(examined: tuple[Court, int, int]) -> None:
    court, validator, target = examined
    other = {target: court.gradient(court.past, target) + 1e-6}
    assert court.judge(FalseGradient(target, validator), recomputed=other) == (
        {Removal(target, "gradient", validator)}, False
    )  # fmt: skip


def test_a_true_gradient_with_false_checksums(examined: tuple[Court, int, int]) -> None:
    """Guilty: the sender, and every aggregator that passed it."""
    court, validator, target = examined
    body = said(court.past, Checksums, target)
    assert isinstance(body, Checksums)
    other = next(part for part, peer in enumerate(court.past.roster.active) if peer != target)
    s = tuple(value + (part == other) for part, value in enumerate(body.s))
    changed(court.past, Checksums, target, s=s)
    truth = {target: court.gradient(court.past, target)}
    assert court.judge(FalseGradient(target, validator), recomputed=truth)[0] == {
        Removal(target, "checksum", validator), Removal(court.past.roster.active[other], "false_report", validator)
    }  # fmt: skip


def test_a_reformed_peer_is_not_punished_for_what_it_did_before(examined: tuple[Court, int, int]) -> None:
    court, validator, target = examined
    replace_state(court.attempt, bans=(Ban(court.past.step, 0, target, "gradient", 0, False),))
    false = {target: court.gradient(court.past, target) + 1.0}
    assert court.judge(FalseGradient(target, validator), recomputed=false) == (set(), False)
    replace_state(court.attempt, bans=(Ban(court.past.step - 1, 0, target, "gradient", 0, False),))
    assert court.judge(FalseGradient(target, validator), recomputed=false)[0]


def test_a_majority_of_judges_decides_across_environments(examined: tuple[Court, int, int]) -> None:
    court, validator, target = examined
    charge = (FalseGradient(target, validator),)
    guilty = judge(charge, CaseFile(court.attempt, court.past, {}, frozenset({target})))
    innocent = judge(charge, CaseFile(court.attempt, court.past, {}, frozenset()))
    assert guilty.removals == (Removal(target, "gradient", validator),)
    assert innocent.removals == (Removal(validator, "false_accusation", None),)


CHANGES: list[tuple[str, Callable[[Tensor], Tensor], str | None]] = [
    ("the same", lambda gradient_D: gradient_D.clone(), None),
    ("one bit", lambda gradient_D: torch.nextafter(gradient_D, gradient_D + 1), "gradient"),
    ("its opposite", lambda gradient_D: -gradient_D, "gradient"),
]


@pytest.mark.parametrize(("change", "reason"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_bit_for_bit(court: Court, change: Callable[[Tensor], Tensor], reason: str | None) -> None:
    owner = court.past.contributors[0]
    recomputed_D = change(court.gradient(court.past, owner))
    fault = gradient_fault(court.past, owner, recomputed_D)
    assert (fault.reason if fault is not None else None) == reason
    assert suspicious(court.past, owner, recomputed_D) is (reason is not None)


@pytest.mark.parametrize(("drift", "expected"), [(0.5e-3, False), (0.5, True)], ids=["within", "beyond"])
def test_a_validator_elsewhere_accuses_beyond_twice_the_tolerance(drift: float, expected: bool) -> None:
    round_ = complete(recompute_tolerance=1e-3)
    past = round_.past
    assert past is not None
    target = round_.attempt.pairs[0][1]
    own_D = six().task.gradient(past.state.parameters_D, past.seed(target))[0]
    noise_D = torch.randn(own_D.shape, generator=torch.Generator().manual_seed(1))
    noise_D *= drift * own_D.norm() / noise_D.norm()
    assert suspicious(past, target, own_D + noise_D) is expected


@pytest.mark.parametrize(("share", "expected"), [(0.9, False), (1.1, True)], ids=["within", "beyond"])
def test_what_a_claim_elsewhere_may_be_off_follows_from_the_whole_gradient(share: float, expected: bool) -> None:
    round_ = complete(recompute_tolerance=1e-3)
    past, target = round_.past, round_.attempt.pairs[0][1]
    assert past is not None
    own_D = six().task.gradient(past.state.parameters_D, past.seed(target))[0]
    assert past.true_checksum(past.slice(own_D, PART), PART).norm <= past.clip_radii[PART], "nothing is clipped"
    claims = said(past, Checksums, target)
    assert isinstance(claims, Checksums)
    off = share * V0_FACTOR * 2e-3 * float(own_D.double().norm())
    changed(past, Checksums, target, s=tuple(value + off * (part == PART) for part, value in enumerate(claims.s)))
    assert suspicious(past, target, own_D) is expected


FAR = [("near", [1.0, 0.0], False), ("far", [1.2, 0.0], True), ("nan", [math.nan, 0.0], True),
       ("infinite", [math.inf, 0.0], True)]  # fmt: skip


@pytest.mark.parametrize(("published", "expected"), [row[1:] for row in FAR], ids=[row[0] for row in FAR])
def test_far_from(published: list[float], expected: bool) -> None:
    assert far_from(torch.tensor(published), torch.tensor([1.0, 0.0]), 0.1) is expected


def test_what_a_majority_signed_is_guilt_without_a_proof_of_ours() -> None:
    removal = Removal(4, "silent", 2)
    guilt = Guilt.ruled(removal)
    assert guilt.removal == removal and guilt.charge == Ruled(4, "silent")


def test_no_charge_voids_nothing() -> None:
    attempt = complete().attempt
    assert judge((), CaseFile(attempt, None, {})) == Judgement()
    assert Judgement().removals == () and not Judgement().void


# --- a case ---------------------------------------------------------------------------------------------------


def accusing(**more: object) -> tuple[Round, int]:
    """A step whose validator accuses its (honest) target."""
    round_ = complete(**more)
    validator, target = round_.attempt.pairs[0]
    changed(round_.attempt, Report, validator, verdicts=(Verdict(target, False),))
    return round_, target


def averaging(**more: object) -> Round:
    """A step in which V3 fails everywhere."""
    return complete(delta_max=1e-9, **more)


PHASES = [
    ("nothing to judge", lambda: complete(), [Phase.CLOSE]),
    ("a gradient on one platform", lambda: accusing()[0], [Phase.CLOSE]),
    ("bytes needed", averaging, [Phase.PUBLISH, Phase.HAVE, Phase.CLOSE]),
    ("a gradient across environments", lambda: accusing(recompute_tolerance=1e-6)[0],
     [Phase.PUBLISH, Phase.HAVE, Phase.JUDGE, Phase.CLOSE]),
]  # fmt: skip


@pytest.mark.parametrize(("made", "phases"), [row[1:] for row in PHASES], ids=[row[0] for row in PHASES])
def test_phases(made, phases: list[Phase]) -> None:  # type: ignore[no-untyped-def]
    round_ = made()
    trial = Case(round_.attempt, round_.past)
    assert list(trial.phases) == phases
    path, phase = [], Phase.REPORT
    while phase is not Phase.CLOSE:
        phase = trial.phase_after(phase)
        path.append(phase)
    assert path == phases


def test_publications_are_kept_if_they_are_what_was_committed_to() -> None:
    round_ = averaging()
    trial = Case(round_.attempt, round_.past)
    attempt = round_.attempt
    attempt.publications.clear()
    owner = attempt.contributors[-1]
    key = BulkKey(attempt.step, attempt.number, BulkKind.PUBLICATION, owner, 3)
    true_D = six(delta_max=1e-9).task.gradient(attempt.state.parameters_D, attempt.seed(owner))[0]
    assert not trial.accept(key, torch.zeros(attempt.split.size(3)))
    assert trial.accept(key, attempt.slice(true_D, 3))
    assert not trial.accept(BulkKey(attempt.step, 7, BulkKind.PUBLICATION, owner, 3), attempt.slice(true_D, 3))
    assert {item.owner for item in trial.missing()} == set(attempt.contributors)
    assert trial.have(overdue=False) is None


def test_it_publishes_what_it_committed_to() -> None:
    round_ = averaging(node=2)
    attempt = round_.attempt
    ours = Case(attempt, round_.past).ours()
    assert [key.part for key, _ in ours] == list(range(6))
    assert all(key.owner == 2 and attempt.part_matches(2, key.part, values_P) for key, values_P in ours)


def test_it_says_that_its_publications_follow() -> None:
    round_ = averaging()
    attempt = round_.attempt
    assert Case(attempt, round_.past).publish() == Publish(attempt.slot(Phase.PUBLISH), attempt.transcript.prefix)


@pytest.mark.parametrize("lie", ["nothing", "the gradient", "its checksums"])
def test_a_judge_across_environments_compares_what_was_published(lie: str) -> None:
    """V3 has other parts published too: those of this step say nothing of the one before."""
    round_, target = accusing(recompute_tolerance=1e-6, delta_max=1e-9)
    attempt, past = round_.attempt, round_.past
    assert past is not None
    own_D = six(recompute_tolerance=1e-6).task.gradient(past.state.parameters_D, past.seed(target))[0]
    if lie == "its checksums":
        claims = said(past, Checksums, target)
        changed(past, Checksums, target, s=(claims.s[0] + 1.0, *claims.s[1:]))  # type: ignore[union-attr]
    trial = Case(attempt, past)
    assert {item.step for item in trial.publications} == {attempt.step, past.step} and trial.judging == (target,)
    attempt.publications.clear()
    assert trial.judge({}, ()) is None and trial.judge({target: own_D}, ()) is None, "what it compares is not here"
    for item in trial.publications:
        here = item.step == past.step and item.owner == target
        values_P = past.slice(own_D, item.part) if here else torch.zeros(attempt.split.size(item.part))
        attempt.publications[(item.step, item.attempt, item.owner, item.part)] = values_P
    found = trial.judge({target: own_D + (lie == "the gradient")}, ())
    assert found is not None and found.guilty == (lie != "nothing",)


def test_what_too_few_hold_stays_undecided_and_voids_an_aggregate_that_it_would_have_checked() -> None:
    round_ = averaging()
    attempt = round_.attempt
    trial = Case(attempt, round_.past)
    true = {
        owner: six(delta_max=1e-9).task.gradient(attempt.state.parameters_D, attempt.seed(owner))[0]
        for owner in attempt.contributors
    }
    owner = attempt.contributors[0]
    for item in trial.publications:
        values_P = attempt.slice(true[item.owner], item.part)
        attempt.publications[(item.step, item.attempt, item.owner, item.part)] = values_P
    assert trial.verdict({}, (), (), {}) == Judgement()
    (lost,) = (item for item in trial.publications if (item.owner, item.part) == (owner, 3))
    del attempt.publications[(lost.step, lost.attempt, lost.owner, lost.part)]
    assert trial.missing() == (lost,) and trial.verdict({}, (), (), {}) is None
    guilt = Guilt(owner, "withheld", None, Withheld(owner, "publication", attempt.step, 3))
    assert trial.verdict({}, (lost,), (guilt,), {}) == Judgement((guilt,), void=True)


def test_the_verdict_waits_for_recomputation() -> None:
    round_, target = accusing()
    trial = Case(round_.attempt, round_.past)
    assert trial.verdict({}, (), (), {}) is None
    assert round_.past is not None
    true_D = six().task.gradient(round_.past.state.parameters_D, round_.past.seed(target))[0]
    judgement = trial.verdict({target: true_D}, (), (), {})
    assert judgement is not None
    assert [removal.reason for removal in judgement.removals] == ["false_accusation"]


@pytest.mark.parametrize(("guilty", "reason"), [(3, "false_accusation"), (4, "gradient")], ids=["half", "most"])
def test_across_environments_most_of_the_active_roster_decides(guilty: int, reason: str) -> None:
    round_, target = accusing(recompute_tolerance=1e-6)
    attempt = round_.attempt
    trial = Case(attempt, round_.past)
    for place, peer in enumerate(attempt.roster.active):
        body = Judge(attempt.slot(Phase.JUDGE, peer), attempt.transcript.prefix, (place < guilty,))
        attempt.transcript.add(body, Signed(encode_body(body), bytes(64)))
    for item in trial.publications:
        attempt.publications[(item.step, item.attempt, item.owner, item.part)] = torch.zeros(1)
    judgement = trial.verdict({}, (), (), {})
    assert judgement is not None
    assert [(removal.peer == target, removal.reason) for removal in judgement.removals] == [
        (reason == "gradient", reason)
    ]


COUNTS = [
    ("nothing to judge", lambda: complete(), Counts(0, 0)),
    ("six parts of five contributors", averaging, Counts(30, 0)),
    ("a gradient across environments", lambda: accusing(recompute_tolerance=1e-6)[0], Counts(6, 1)),
]


@pytest.mark.parametrize(("made", "counts"), [row[1:] for row in COUNTS], ids=[row[0] for row in COUNTS])
def test_how_many_bits_and_findings_are_asked_for(made, counts: Counts) -> None:  # type: ignore[no-untyped-def]
    round_ = made()
    assert Case(round_.attempt, round_.past).counts == counts


SCARCE: list[tuple[str, int, int, bool]] = [
    ("all of its gradient", 0, PEERS, False),
    ("a part of its gradient", 0, 1, False),
    ("a part of this step's", 1, 1, True),
]
"""What too few hold, so many parts of it, of the past step (0) or of this one; and what is said of a false gradient."""


@pytest.mark.parametrize(("age", "parts", "guilty"), [row[1:] for row in SCARCE], ids=[row[0] for row in SCARCE])
def test_a_judge_waits_for_no_bytes_that_too_few_hold(age: int, parts: int, guilty: bool) -> None:
    """Else who withholds them would keep everybody from saying JUDGE, and the run would end there."""
    round_, target = accusing(recompute_tolerance=1e-6, delta_max=1e-9)
    attempt, past = round_.attempt, round_.past
    assert past is not None
    own_D = six(recompute_tolerance=1e-6).task.gradient(past.state.parameters_D, past.seed(target))[0]
    trial = Case(attempt, past)
    theirs = [item for item in trial.publications if item.owner == target and item.step == past.step + age]
    few = tuple(theirs[:parts])
    attempt.publications.clear()
    for item in trial.publications:
        assert trial.judge({target: -own_D}, few) is None, f"{item} is not here"
        if item not in few:
            source = past if item.step == past.step else attempt
            attempt.publications[(item.step, item.attempt, item.owner, item.part)] = source.slice(own_D, item.part)
        if not set(trial.missing()) - set(few):
            break
    found = trial.judge({target: -own_D}, few)
    assert found is not None and found.guilty == (guilty,)


def test_who_was_silent_in_the_step_before_is_guilty_as_it_stands() -> None:
    attempt = complete().attempt
    charge = Silent(4, Phase.AGG)
    judgement = judge((charge,), CaseFile(attempt, None, {}))
    assert judgement == Judgement((Guilt(4, "silent", None, charge),), void=False)
