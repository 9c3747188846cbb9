"""From a judged attempt to the next state; undo as a pure function: who recomputes what, where it goes back to."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest
import torch

from btard.node.config import Plugin, RunConfig
from btard.node.errors import ConfigError
from btard.node.protocol.adjudication.charges import FalseHistory
from btard.node.protocol.adjudication.judging import CaseFile, Counts, Fault, Judgement, disowned, judge, raised, words
from btard.node.protocol.api import GradientReady, Purpose
from btard.node.protocol.attempt.gradient_requests import Rechecks
from btard.node.protocol.attempt.phases import misfit
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.evidence.format import contradiction, decode
from btard.node.protocol.evidence.verifier import UnprovenError, Verifier
from btard.node.protocol.state.state import Ban, Contribution, Window, recheck_shares
from btard.node.protocol.state.transition import moved_on, next_state, undone
from btard.node.protocol.state_sync.probation import Review
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import Report
from tests.protocol_attempts import amend, complete, replace_state, said, state_with
from tests.simulation.stage import run_until
from tests.simulation.test_undo import stage_of


def test_the_norm_window_holds_norms_per_root_of_an_entry() -> None:
    """19 entries in six parts of 3 and 4: a norm grows with the root of its entries, so that all are comparable."""
    attempt = complete().attempt
    sizes = [attempt.split.size(part) for part in range(6)]
    assert sorted(set(sizes)) == [3, 4]
    claimed = [[attempt.claim(owner, part).norm for part in range(6)] for owner in attempt.contributors]
    by_hand = [norm / math.sqrt(size) for norms in claimed for norm, size in zip(norms, sizes, strict=True)]
    after = next_state(attempt, Judgement())
    assert after.norms.steps[:-1] == attempt.state.norms.steps
    assert after.norms.steps[-1] == pytest.approx(by_hand, rel=1e-15)


def test_who_comes_back_begins_with_a_clean_record() -> None:
    """Its pairs' charges are what it was removed for: they would remove it again at once."""
    attempt = complete().attempt
    others = tuple(peer for peer in range(6) if peer != 5)
    replace_state(attempt, roster=replace(attempt.roster, active=others), complaints=((0, 1, 2), (0, 5, 2), (4, 5, 2)))
    needed = attempt.settings.probation
    kept = next_state(attempt, Judgement(), review=Review())
    assert kept.summary.complaints == ((0, 1, 2), (0, 5, 2), (4, 5, 2)) and kept.roster.active == others
    replace_state(attempt, admissions=((5, needed - 1),))
    after = next_state(attempt, Judgement(), review=Review(correct=(5,)))
    assert after.roster.active == tuple(range(6)) and after.summary.complaints == ((0, 1, 2),)


# --- undo -----------------------------------------------------------------------------------------------------


ITEMS = tuple(Contribution(step, 0, owner) for step in (3, 4, 5) for owner in (4, 5))
R = bytes(range(32))


def undoing() -> Round:
    """Peer 0 in an undo step: peer 4 lied in steps 3 and 4 and was banned in step 4."""
    return run_until(stage_of([Plugin("sign_flip")], 0), 0, 5, "CLOSE")


# --- shares -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkers", [1, 2, 3])
@pytest.mark.parametrize("active", [(0, 1, 2, 3), (0, 1, 2, 3, 5), (1, 2)], ids=["removed", "reformed", "few"])
def test_every_contribution_has_its_checkers_and_none_is_its_owner(checkers: int, active: tuple[int, ...]) -> None:
    shares = recheck_shares(ITEMS, checkers, active, R)
    for item in ITEMS:
        by = [peer for peer, share in shares.items() if item in share]
        assert len(by) == min(checkers, len([peer for peer in active if peer != item.owner]))
        assert item.owner not in by
        assert set(by) <= set(active)
    sizes = [len(shares.get(peer, ())) for peer in active]
    assert sum(sizes) == sum(len(share) for share in shares.values())


def test_the_work_is_spread_evenly_and_drawn_anew() -> None:
    due = tuple(Contribution(step, 0, 9) for step in range(20))
    shares = recheck_shares(due, 2, (0, 1, 2, 3, 4), R)
    assert {len(share) for share in shares.values()} == {8}
    again, others = (recheck_shares(due, 2, (0, 1, 2, 3, 4), r) for r in (R, bytes(32)))
    assert again == shares != others
    assert recheck_shares((), 0, (0, 1), R) == {}


# --- the state --------------------------------------------------------------------------------------------------


def test_the_digest_covers_the_window() -> None:
    window = undoing().attempt.state.window
    others = [Window(), replace(window, forgotten=True), replace(window, examined=7),
              replace(window, layers=window.layers[1:]), replace(window, layers=window.layers[:-1])]  # fmt: skip
    assert len({each.digest for each in (window, *others)}) == 6
    state = undoing().attempt.state
    for other in others:
        assert replace(state, window=other).summarise(b"t").digest != state.summarise(b"t").digest
    for facts in ({"undo": state.summary.undo[:1]}, {"undo_checkers": 1}):
        assert state.with_facts(**facts).summarise(b"t").digest != state.summarise(b"t").digest


def test_the_window_holds_the_last_steps_and_knows_that_there_were_more() -> None:
    attempt = complete(2, undo=2).attempt
    window = attempt.state.window
    assert [layer.step for layer in window.layers] == [0, 1]
    assert not window.forgotten
    state = moved_on(attempt, attempt.state.with_facts(step=3), ())
    after = state.window
    assert [layer.step for layer in after.layers] == [1, 2]
    assert after.forgotten
    assert not state.summary.undo
    assert all(layer.record.own_D is None and not layer.record.state.window.layers for layer in after.layers)


def test_without_undo_there_is_no_window() -> None:
    attempt = complete(2).attempt
    assert moved_on(attempt, attempt.state, ()) is attempt.state
    assert attempt.state.window == Window()


def test_every_removed_peer_is_examined_once() -> None:
    attempt = complete(2, undo=8).attempt
    gone = Ban(2, 0, 3, "silent", None, removed=True)
    state = state_with(attempt.state, step=3, bans=(gone,), roster=attempt.roster.without([3]))
    after = moved_on(attempt, state, ())
    window = after.window
    steps = [layer.step for layer in window.layers if 3 in layer.record.contributors]
    assert after.summary.undo == tuple(Contribution(step, 0, 3) for step in steps) != ()
    assert (after.summary.undo_checkers, window.examined) == (2, 1)
    assert not moved_on(attempt, replace(state, window=window), ()).window.undone


LIES = [
    ("none", (), None, 0, False),
    ("the later one", ((4, 4),), 4, 1, False),
    ("both", ((3, 4), (4, 4)), 3, 2, False),
]


@pytest.mark.parametrize(("lies", "to_step", "lost", "older"), [row[1:] for row in LIES], ids=[row[0] for row in LIES])
@pytest.mark.parametrize("forgotten", [False, True])
def test_the_state_goes_back_to_before_the_first_lie(
    lies: tuple[tuple[int, int], ...], to_step: int | None, lost: int, older: bool, forgotten: bool
) -> None:
    attempt = undoing().attempt
    window = replace(attempt.state.window, forgotten=forgotten)
    assert [layer.step for layer in window.layers] == [0, 1, 2, 3, 4]
    attempt.state = replace(attempt.state, window=window)
    items = [Contribution(step, 0, owner) for step, owner in lies]
    after = moved_on(attempt, state_with(attempt.state, step=6, parameters_D=torch.ones(19)), items)
    (told,) = undone(attempt, after)
    first = min(attempt.state.summary.undo)
    assert (told.to_step, told.lost, told.older) == (to_step, lost, forgotten and first in items)
    assert told.lies == lies
    if to_step is None:
        assert torch.equal(after.parameters_D, torch.ones(19))
        assert after.window.layers == window.layers
    else:
        before = window.layers[to_step].record.state
        assert after.parameters_D is before.parameters_D
        assert after.optimiser_D is before.optimiser_D
        assert after.norms == before.norms
        assert [layer.step for layer in after.window.layers] == list(range(to_step))
    assert (after.step, after.bans, after.roster) == (6, attempt.state.bans, attempt.state.roster)


# --- messages and judging ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", [(), (True,) * 9], ids=["none", "too many"])
def test_a_report_without_its_words_is_malformed(holds: tuple[bool, ...]) -> None:
    attempt = undoing().attempt
    report = said(attempt, Report, 0)
    assert misfit(report, attempt, Counts()) is None
    wrong = misfit(msgspec.structs.replace(report, holds=holds), attempt, Counts())  # type: ignore[arg-type]
    assert wrong == f"REPORT must say of {len(attempt.shares[0])} contributions whether they hold"


def test_both_sides_of_a_disagreement_are_judged_by_what_is_true() -> None:
    attempt = undoing().attempt
    item = attempt.state.summary.undo[0]
    doubter, believer = words(attempt)[item]
    for peer, word in ((doubter, False), (believer, True)):
        share = attempt.shares[peer]
        holds = tuple(word if each == item else False for each in share)
        report = said(attempt, Report, peer)
        amend(attempt, msgspec.structs.replace(report, holds=holds))  # type: ignore[arg-type]
    charge = FalseHistory(item.owner, item.step, item.attempt)
    assert item in disowned(attempt)
    assert raised(charge, attempt)
    assert not raised(FalseHistory(item.owner, 17, 0), attempt)

    def found(fault: Fault | None) -> list[tuple[int, str]]:
        guilty = judge((charge,), CaseFile(attempt, None, {}, faults={item: fault})).guilts
        return [(guilt.peer, guilt.reason) for guilt in guilty]

    assert found(None) == [(doubter, "false_accusation")]
    assert found(Fault("gradient", (0,))) == [(believer, "false_report")]


def test_a_contribution_is_asked_for_once_and_compared_with_its_commitment() -> None:
    attempt = undoing().attempt
    item, rechecks = attempt.state.summary.undo[0], Rechecks()
    (wanted,) = rechecks.want(attempt, item)
    past = attempt.earlier(item)
    assert (wanted.purpose, wanted.step, wanted.peer) == (Purpose.UNDO, item.step, item.owner)
    assert (wanted.parameters_D, wanted.seed) == (past.state.parameters_D, past.seed(item.owner))
    assert rechecks.want(attempt, item) == []
    assert not rechecks.take(GradientReady(Purpose.UNDO, 17, item.owner, torch.zeros(19), 0.0))
    assert rechecks.take(GradientReady(Purpose.UNDO, item.step, item.owner, torch.zeros(19), 0.0))
    assert rechecks.faults[item] is not None


def test_contributions_are_asked_for_one_by_one_and_a_new_attempt_forgets_those_that_wait() -> None:
    attempt = undoing().attempt
    item = attempt.state.summary.undo[0]
    rechecks = Rechecks()
    (wanted,) = rechecks.want(attempt, item)
    others = [msgspec.structs.replace(item, owner=owner) for owner in attempt.roster.active]
    assert [rechecks.want(attempt, other) for other in others] == [[]] * len(others)
    rechecks.forget()
    assert rechecks.take(GradientReady(Purpose.UNDO, item.step, wanted.peer, torch.zeros(19), 0.0))
    assert rechecks.next() == [], "what waited is wanted no more"
    assert rechecks.want(attempt, item) == [], "it is known"


# --- evidence ---------------------------------------------------------------------------------------------------


def test_evidence_about_another_contribution_proves_nothing() -> None:
    attacks = {4: [Plugin("sign_flip")], 5: [Plugin("false_recheck")]}
    stage = stage_of(attacks, 0)
    verifier = Verifier(stage.ground())
    for seen in stage.simulation.run():
        ban = seen.output
        if seen.node == 0 and type(ban).__name__ == "Banned":
            proof = verifier.check(ban.evidence)  # type: ignore[union-attr]
            if proof.ban.reason == "false_report":
                break
            verifier.settle([proof.ban])
    assert proof.kind == "recomputation"
    assert "contributed to step 3" in proof.explanation
    evidence = decode(ban.evidence)  # type: ignore[union-attr]
    assert isinstance(evidence.charge, FalseHistory)
    moved = msgspec.structs.replace(evidence, charge=FalseHistory(4, 2, 0))
    assert contradiction(moved) == "the step judged is not the one of the charge"
    for charge in (FalseHistory(4, 2, 0), FalseHistory(3, 3, 0)):
        with pytest.raises(UnprovenError):
            verifier.check(encode(msgspec.structs.replace(evidence, charge=charge)))
    with pytest.raises(UnprovenError, match=r"not those that the certificate covers"):
        verifier.check(encode(msgspec.structs.replace(evidence, parameters=bytes(len(evidence.parameters)))))


# --- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [-1, 1, 129])
def test_a_window_out_of_range_is_one_line(window: int) -> None:
    with pytest.raises(ConfigError, match=rf"^--undo {window} must be 0 \(off\) or lie between 2 and 128$"):
        RunConfig(undo=window)


def test_undo_needs_equal_bits() -> None:
    with pytest.raises(ConfigError, match="--undo 8 recomputes gradients bit for bit; leave out --recompute-tolerance"):
        RunConfig(undo=8, recompute_tolerance=1e-6)
