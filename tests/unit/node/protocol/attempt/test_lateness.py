"""Late edges: who is named, which pair that ties, and what it adds up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from btard.node.protocol.adjudication.case import Counts
from btard.node.protocol.adjudication.complaints import broken, late_after
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import Deadline, budget, deadline
from btard.node.protocol.attempt.lateness import Patience, Watch, late_pairs, waited
from btard.node.protocol.attempt.phases import PHASES, misfit
from btard.node.protocol.attempt.timers import Timers
from btard.node.protocol.wire.messages import Late, Phase, Report, Reveal
from tests.protocol_attempts import changed, complete, replace_state, said

AGG, CLOSE = Phase.AGG, Phase.CLOSE


def reporting(waits: dict[int, tuple[Late, ...]]) -> Attempt:
    """Step 2 among six, with these waits in its REPORTs."""
    attempt = complete().attempt
    for peer, late in waits.items():
        changed(attempt, Report, peer, late=late)
    return attempt


PAIRS = [
    ("nobody is named", {}, []),
    ("a message", {0: (Late(AGG, False, 5),)}, [(0, 5)]),
    ("a tensor", {5: (Late(AGG, True, 0),)}, [(0, 5)]),
    ("a message that waited for a tensor", {0: (Late(AGG, False, 1),), 1: (Late(AGG, True, 5),)}, [(1, 5)]),
    ("a message in another phase", {0: (Late(CLOSE, False, 1),), 1: (Late(AGG, True, 5),)}, [(0, 1), (1, 5)]),
    ("all name one", {peer: (Late(CLOSE, False, 5),) for peer in range(5)}, [(peer, 5) for peer in range(5)]),
    ("one pair, by both", {0: (Late(AGG, False, 5),), 5: (Late(CLOSE, False, 0),)}, [(0, 5)]),
]


@pytest.mark.parametrize(("waits", "pairs"), [row[1:] for row in PAIRS], ids=[row[0] for row in PAIRS])
def test_whom_a_wait_ties(waits: dict[int, tuple[Late, ...]], pairs: list[tuple[int, int]]) -> None:
    attempt = reporting(waits)
    assert sorted(late_pairs(attempt)) == pairs
    assert late_after(attempt, attempt.roster.active) == tuple((low, high, (1,)) for low, high in pairs)


def test_where_more_than_f_are_late_towards_more_than_f_nobody_is() -> None:
    """The network was slow."""
    waits = (Late(Phase.COMMIT, False, 3), Late(AGG, False, 4), Late(CLOSE, False, 5))
    attempt = reporting(dict.fromkeys((0, 1), waits))
    assert len(late_after(attempt, attempt.roster.active)) == 6
    attempt = reporting(dict.fromkeys((0, 1, 2), waits))
    assert len(late_pairs(attempt)) == 9
    assert late_after(attempt, attempt.roster.active) == ()


def test_late_edges_leave_with_the_window_and_with_a_peer() -> None:
    attempt = reporting({0: (Late(AGG, False, 5),)})
    old, young = 1 - 100, 2 - 100
    replace_state(attempt, late=((0, 5, (old, young)), (1, 4, (old,)), (2, 3, (young,))))
    assert late_after(attempt, attempt.roster.active) == ((0, 5, (young, 1)), (2, 3, (young,)))
    assert late_after(attempt, (0, 1, 3, 4, 5)) == ((0, 5, (young, 1)),)


def often(*pairs: tuple[int, int], steps: int = 10) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """Pairs that were late in as many steps before."""
    return tuple((low, high, tuple(range(-steps, 0))) for low, high in pairs)


REMOVED = [
    ("ten steps", often((0, 5)), {}, []),
    ("an eleventh", often((0, 5)), {0: (Late(AGG, False, 5),)}, [(0, "eliminated"), (5, "eliminated")]),
    ("eleven towards f_0", often((0, 5), (1, 5), steps=11), {}, [(0, "eliminated"), (5, "eliminated")]),
    ("eleven towards more", often((0, 5), (1, 5), (2, 5), steps=11), {}, [(5, "late")]),
    ("two alone", often((0, 4), (0, 5), (1, 4), (1, 5), (2, 4), (2, 5), steps=11), {}, [(4, "late"), (5, "late")]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "waits", "removed"), [row[1:] for row in REMOVED], ids=[row[0] for row in REMOVED])
def test_who_is_removed(
    before: tuple[tuple[int, int, tuple[int, ...]], ...], waits: dict[int, tuple[Late, ...]],
    removed: list[tuple[int, str]],
) -> None:  # fmt: skip
    attempt = reporting(waits)
    replace_state(attempt, late=before)
    assert [(guilt.peer, guilt.reason) for guilt in broken(attempt, frozenset())] == removed


SHAPES = [
    ("none", (), True),
    ("in order", (Late(AGG, False, 1), Late(AGG, True, 1), Late(CLOSE, False, 5)), True),
    ("twice", (Late(AGG, False, 1), Late(AGG, False, 2)), False),
    ("out of order", (Late(CLOSE, False, 1), Late(AGG, False, 1)), False),
    ("of oneself", (Late(AGG, False, 0),), False),
    ("of a stranger", (Late(AGG, False, 6),), False),
    ("of a negative peer", (Late(AGG, False, -1),), False),
    ("of a greeting", (Late(Phase.HELLO, False, 1),), False),
    ("of a dispute", (Late(Phase.VIEW, False, 1),), False),
]


@pytest.mark.parametrize(("waits", "fits"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_what_a_report_may_name(waits: tuple[Late, ...], fits: bool) -> None:
    attempt = reporting({0: waits})
    assert (misfit(said(attempt, Report, 0), attempt, Counts()) is None) is fits


# --- waiting ------------------------------------------------------------------------------------------------------


def patience(attempt: Attempt, phase: Phase) -> tuple[Patience, Watch, Timers]:
    """Somebody who has just entered a phase, at second 100."""
    clock, watch = Timers(attempt.settings, len(attempt.roster.active), []), Watch(100.0)
    waiting = Patience(attempt, clock, watch)
    clock.enter(PHASES[phase].work, 0, 0)
    waiting.enter()
    return waiting, watch, clock


Move = tuple[float, Callable[[Patience], None]]
WAITS: list[tuple[str, Phase, Sequence[Move], tuple[Late, ...]]] = [
    ("in time", AGG, [(0.9, lambda it: it.got(5)), (0.0, lambda it: it.said(AGG)), (0.9, lambda it: it.heard(4, AGG)),
                      (0.0, lambda it: it.complete(AGG))], ()),
    ("a tensor", AGG, [(1.1, lambda it: it.got(5)), (0.0, lambda it: it.said(AGG)), (0.9, lambda it: it.heard(4, AGG)),
                       (0.0, lambda it: it.complete(AGG))], (Late(AGG, True, 5),)),
    ("our own", AGG, [(1.1, lambda it: it.got(0)), (0.0, lambda it: it.said(AGG))], ()),
    ("a message", CLOSE, [(0.0, lambda it: it.said(CLOSE)), (0.5, lambda it: it.heard(3, CLOSE)),
                          (0.6, lambda it: it.heard(5, CLOSE)), (0.0, lambda it: it.complete(CLOSE))],
     (Late(CLOSE, False, 5),)),
    ("before we said ours", CLOSE, [(0.0, lambda it: it.heard(5, CLOSE)), (9.9, lambda it: it.said(CLOSE)),
                                    (0.0, lambda it: it.complete(CLOSE))], ()),
]  # fmt: skip
"""What comes when, in budgets."""


@pytest.mark.parametrize(("phase", "moves", "late"), [row[1:] for row in WAITS], ids=[row[0] for row in WAITS])
def test_waits_beyond_the_budget_are_noted(phase: Phase, moves: Sequence[Move], late: tuple[Late, ...]) -> None:
    attempt = complete().attempt
    attempt.late.clear()
    waiting, watch, clock = patience(attempt, phase)
    budget_s = clock.budget.bulk_s or clock.budget.message_s
    for after, move in moves:
        watch.now_s += after * budget_s
        move(waiting)
    assert tuple(attempt.late) == late


def test_what_others_answer_for_elsewhere_is_not_late() -> None:
    wait = Late(CLOSE, False, 5)
    attempt = complete().attempt

    def past(**changes: object) -> Attempt:
        found = complete(1).attempt
        found.late.append(wait)
        for name, value in changes.items():
            setattr(found, name, value)
        return found

    assert waited(past(), attempt) == (wait,)
    assert waited(past(disputed=True), attempt) == ()
    assert waited(past(shaken=True), attempt) == ()
    assert waited(past(number=1), attempt) == ()
    lacking = past()
    changed(lacking, Reveal, 3, have=(True,) * 5 + (False,))
    assert waited(lacking, attempt) == ()


def test_a_report_names_each_wait_once_and_in_order() -> None:
    """The tensor's wait ends before the message's; a phase may be looked at twice."""
    attempt, past = complete().attempt, complete(1).attempt
    past.late += [Late(AGG, True, 5), Late(AGG, False, 4), Late(AGG, False, 3), Late(Phase.COMMIT, False, 5)]
    waits = waited(past, attempt)
    assert waits == (Late(Phase.COMMIT, False, 5), Late(AGG, False, 4), Late(AGG, True, 5))
    changed(attempt, Report, 0, late=waits)
    assert misfit(said(attempt, Report, 0), attempt, Counts()) is None


@pytest.mark.parametrize("of", [budget, deadline])
def test_a_contributing_validator_has_one_more_gradient_for_its_commit(of: Callable[..., Deadline]) -> None:
    idle = complete().attempt.settings
    both = replace(idle, validators_contribute=True)
    for phase in (phase for phase in Phase if Phase.COMMIT.value <= phase.value <= CLOSE.value):
        more_s = of(PHASES[phase].work, both, 6, 0, 0).message_s - of(PHASES[phase].work, idle, 6, 0, 0).message_s
        assert more_s == pytest.approx(idle.gradient_bound_s if phase is Phase.COMMIT else 0.0)
    nobody = replace(both, validators=0)
    assert of(PHASES[Phase.COMMIT].work, nobody, 6, 0, 0) == of(PHASES[Phase.COMMIT].work, idle, 6, 0, 0)


@pytest.mark.parametrize("phase", [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value])
@pytest.mark.parametrize("recomputed", [0, 3])
def test_a_budget_ends_before_the_deadline(phase: Phase, recomputed: int) -> None:
    settings = complete().attempt.settings
    tensors = 1 if phase in (AGG, Phase.REVEAL) else 0
    patient, hard = (of(PHASES[phase].work, settings, 6, tensors, recomputed) for of in (budget, deadline))
    assert patient.bulk_s <= hard.bulk_s and patient.message_s < hard.message_s
