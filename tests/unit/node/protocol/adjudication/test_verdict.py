"""Who is guilty of what: a pure function of the transcript, the published bytes and recomputation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from btard.node.protocol.adjudication.charges import (
    Averaging,
    Charge,
    FalseChecksum,
    FalseGradient,
    Guilt,
    OutOfBounds,
    Ruled,
)
from btard.node.protocol.adjudication.verdict import CaseFile, Judgement, far_from, gradient_fault, judge, suspicious
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.attempt.verification import V0_FACTOR
from btard.node.protocol.state.state import Ban
from btard.node.protocol.wire.messages import Checksums, Removal, Report
from tests.protocol_attempts import changed, complete, replace_state, said, six
from tests.simulation.stage import Stage, run_until

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
