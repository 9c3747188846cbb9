"""How long a peer waits, in numbers worked out by hand from PROTOCOL's formulas; which timers that sets; who is late.

Which pair a late edge ties, and what it adds up to; what each peer signs of its measurements in step 0, what all agree
on, and which bounds hold from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from btard.launcher.run.experiment import Experiment
from btard.node.config import Plugin, RunConfig, Schedule
from btard.node.netem.links import LinkModel
from btard.node.protocol.adjudication.complaints import broken, late_after
from btard.node.protocol.adjudication.judging import Counts
from btard.node.protocol.api import CancelTimer, Output, SetTimer
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import (
    BULK,
    LAGGARDS,
    MESSAGES,
    STALL,
    Deadline,
    Patience,
    Timers,
    Watch,
    Work,
    agreed,
    budget,
    deadline,
    dispute_round_s,
    fetching_s,
    laggards_s,
    late_pairs,
    outcome_s,
    settled_s,
    waited,
)
from btard.node.protocol.attempt.phases import PHASES, misfit
from btard.node.protocol.settings import Settings
from btard.node.protocol.wire.messages import Late, Phase, Report, Reveal, delivery_s
from tests.protocol_attempts import changed, complete, replace_state, said
from tests.simulation.attacked import configuration, play
from tests.simulation.slowness import TASK, pace

SETTINGS = Settings(
    run=bytes(32),
    fingerprint=b"",
    dimension=1000,
    steps=3,
    tau=1.0,
    validators=1,
    validate_every=1,
    delta_max=None,
    audit_share=0.1,
    reform=False,
    data_seed=0,
    delivery_bound_s=1.0,
    gradient_bound_s=10.0,
    minimum_rate=24_000.0,
    recompute_tolerance=0.0,
)
"""D = 1 s, T_g = 10 s; a vector from or to everyone among six takes 1 s."""

WAITS = {
    "COMMIT": (Phase.COMMIT, 0, 0, (0.0, 25.0), (0.0, 14.0)),
    "a gradient beside the loop": (Phase.AGG, 1, 0, (16.0, 41.0), (5.0, 9.0)),
    "nothing": (Phase.RESEND, 0, 0, (0.0, 15.0), (0.0, 4.0)),
    "a tensor": (Phase.REVEAL, 1, 0, (16.0, 31.0), (5.0, 9.0)),
    "REPORT": (Phase.REPORT, 0, 0, (0.0, 25.0), (0.0, 14.0)),
    "REPORT of an undo step": (Phase.REPORT, 0, 3, (0.0, 45.0), (0.0, 34.0)),
    "a phase beside the three of an undo step": (Phase.HELD, 1, 3, (16.0, 41.0), (5.0, 19.0)),
    "judging nothing": (Phase.CLOSE, 0, 0, (0.0, 15.0), (0.0, 4.0)),
    "judging one gradient": (Phase.CLOSE, 0, 1, (0.0, 25.0), (0.0, 14.0)),
    "judging three": (Phase.CLOSE, 0, 3, (0.0, 65.0), (0.0, 34.0)),
    "judging three and two vectors": (Phase.CLOSE, 2, 3, (37.0, 102.0), (6.0, 40.0)),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_waits_of_a_phase(name: str) -> None:
    phase, tensors, recomputed, hard, patient = WAITS[name]
    work = PHASES[phase].work
    assert deadline(work, SETTINGS, 6, tensors, recomputed) == Deadline(*hard)
    assert budget(work, SETTINGS, 6, tensors, recomputed) == Deadline(*patient)


def test_tight_budgets_leave_the_deadlines_and_the_disputes_alone() -> None:
    tight = replace(SETTINGS, budget_delivery_s=0.25, budget_gradient_s=2.0)
    for phase in (Phase.COMMIT, Phase.REVEAL, Phase.CLOSE):
        work = PHASES[phase].work
        assert deadline(work, tight, 6, 1, 2) == deadline(work, SETTINGS, 6, 1, 2)
    assert budget(PHASES[Phase.COMMIT].work, tight, 6, 1, 0) == Deadline(2.0, 5.0)
    assert (laggards_s(SETTINGS), laggards_s(tight)) == (2.0, 0.5)
    for wait_s in (dispute_round_s, outcome_s):
        assert wait_s(tight) == wait_s(SETTINGS)


OTHER = {
    "a round of a dispute": (dispute_round_s(SETTINGS), 2.0),
    "a dispute that never starts": (outcome_s(SETTINGS), 26.0),
    "what an OUTCOME needs, seven vectors": (settled_s(SETTINGS, 6), 33.0),
    "the same where one gradient is judged": (settled_s(SETTINGS, 6, 1), 33.0),
    "the same where three are": (settled_s(SETTINGS, 6, 3), 53.0),
    "a state, five vectors": (fetching_s(SETTINGS, 6), 7.0),
    "a state with Adam's moments, seven": (
        fetching_s(replace(SETTINGS, optimiser_entries=2 * SETTINGS.dimension), 6),
        9.0,
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_waits(name: str) -> None:
    found_s, expected_s = OTHER[name]
    assert found_s == pytest.approx(expected_s)


def test_an_honest_peer_that_enters_last_speaks_in_time() -> None:
    """It enters 2 D + T_g and a delivery after us, its bulk takes all its time, and so does its gradient."""
    for tensors in (0, 1, 5):
        for recomputed in (0, 1, 4):
            for computes in (0, 1):
                work = Work(tensors=tensors, computes=computes)
                waits = deadline(work, SETTINGS, 6, tensors, recomputed)
                entry_s, transfer_s = 2.0 + 10.0 + 1.0, float(tensors)
                assert not tensors or entry_s + 1.0 + transfer_s < waits.bulk_s, "sent at its entry, it arrives in time"
                latest_s = entry_s + (waits.bulk_s if tensors else 0.0) + 10.0 * max(computes, min(recomputed, 1)) + 1.0
                assert latest_s < waits.message_s


# --- timers ---------------------------------------------------------------------------------------------------


def entered(
    phase: Phase, publications: int = 0, recomputed: int = 0, patience_s: float = 0.0
) -> tuple[Timers, dict[str, float]]:
    """The timers of a phase that six have just entered, and how long each of them runs."""
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out, patience_s)
    clock.enter(PHASES[phase].work, publications, recomputed)
    return clock, running(out)


def running(out: list[Output]) -> dict[str, float]:
    """What a driver would have running, from timers that all run before."""
    timers = {BULK: -1.0, STALL: -1.0, MESSAGES: -1.0}
    for output in out:
        if isinstance(output, CancelTimer):
            timers.pop(output.name, None)
        if isinstance(output, SetTimer):
            timers[output.name] = output.after_s
    return timers


SET = {
    "the first phase has no laggards: nothing ended the one before": (Phase.COMMIT, 0, 0, {MESSAGES: 25.0}),
    "bulk": (Phase.AGG, 0, 0, {LAGGARDS: 2.0, BULK: 16.0, MESSAGES: 41.0}),
    "no bulk ends the wait of the phase before": (Phase.RESEND, 0, 0, {LAGGARDS: 2.0, MESSAGES: 15.0}),
    "published parts go where judging needs them": (Phase.HAVE, 2, 0, {LAGGARDS: 2.0, BULK: 17.0, MESSAGES: 32.0}),
    "and nowhere else": (Phase.REPORT, 2, 0, {LAGGARDS: 2.0, MESSAGES: 25.0}),
    "gradients to judge": (Phase.JUDGE, 0, 3, {LAGGARDS: 2.0, MESSAGES: 65.0}),
}


@pytest.mark.parametrize("name", SET)
def test_what_a_phase_sets(name: str) -> None:
    phase, publications, recomputed, timers = SET[name]
    assert entered(phase, publications, recomputed)[1] == timers


def test_the_waits_begin_again_from_the_start() -> None:
    """After a dispute of the step before: all of them, and the end of patience is put off."""
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out)
    clock.enter(PHASES[Phase.AGG].work, 0, 0)
    first = list(out)
    clock.stall()
    out.clear()
    clock.restart()
    assert out == first
    assert CancelTimer(STALL) in out


def test_patience_ends_a_dispute_after_the_phases_own_wait() -> None:
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out)
    clock.enter(PHASES[Phase.JUDGE].work, 0, 3)
    out.clear()
    clock.stall()
    assert out == [SetTimer(STALL, 65.0 + outcome_s(SETTINGS))]


def test_only_the_first_phase_waits_longer_for_those_that_come_late() -> None:
    clock, timers = entered(Phase.COMMIT, patience_s=100.0)
    assert timers == {MESSAGES: 125.0}
    assert clock.budget.message_s == 114.0
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out, 100.0)
    clock.enter(PHASES[Phase.COMMIT].work, 0, 0)
    clock.stall()
    assert running(out)[STALL] == 125.0 + outcome_s(SETTINGS)
    out.clear()
    clock.enter(PHASES[Phase.REVEAL].work, 0, 0)
    assert running(out) == {LAGGARDS: 2.0, BULK: 16.0, MESSAGES: 31.0}
    assert (clock.budget.bulk_s, clock.budget.message_s) == (5.0, 9.0)


def test_before_any_phase_nothing_runs() -> None:
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out, 100.0)
    assert out == []
    assert clock.budget.message_s == 2 * laggards_s(SETTINGS)


# --- lateness -------------------------------------------------------------------------------------------------


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


LATE_SHAPES = [
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


@pytest.mark.parametrize(("waits", "fits"), [row[1:] for row in LATE_SHAPES], ids=[row[0] for row in LATE_SHAPES])
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
LATE_WAITS: list[tuple[str, Phase, Sequence[Move], tuple[Late, ...]]] = [
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


@pytest.mark.parametrize(
    ("phase", "moves", "late"), [row[1:] for row in LATE_WAITS], ids=[row[0] for row in LATE_WAITS]
)
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


# --- measured bounds ------------------------------------------------------------------------------------------


BOTH = {"measure_delivery": True, "measure_gradient": True}

AGREED = [
    ("the floors", [(1, 1)] * 6, BOTH, (250, 1000)),
    ("eight times the third largest, rounded up", [(100, 200), (90, 190), (80, 180), (1, 1), (1, 1), (1, 1)], BOTH,
     (1000, 2000)),
    ("no two liars raise it", [(2**31, 2**31)] * 2 + [(1, 1)] * 4, BOTH, (250, 1000)),
    ("nor does anybody lower it below an honest one", [(0, 0)] * 2 + [(60, 300)] * 4, BOTH, (500, 4000)),
    ("never above what is stated", [(2**31, 2**31)] * 6, BOTH, (2000, 5000)),
    ("a stated delivery stays", [(1, 1)] * 6, {"measure_gradient": True}, (2000, 1000)),
    ("a stated gradient stays", [(1, 1)] * 6, {"measure_delivery": True}, (250, 5000)),
]  # fmt: skip


@pytest.mark.parametrize(("measures", "which", "bounds"), [row[1:] for row in AGREED], ids=[row[0] for row in AGREED])
def test_what_is_agreed_on(measures: list[tuple[int, int]], which: dict[str, bool], bounds: tuple[int, int]) -> None:
    attempt = complete(0, **which).attempt
    for peer, measured in enumerate(measures):
        changed(attempt, Report, peer, measured=measured)
    assert agreed(attempt)[:2] == bounds


SHAPES = [
    ("two", 0, BOTH, (0, 2**31), True),
    ("none", 0, BOTH, (), False),
    ("three", 0, BOTH, (1, 1, 1), False),
    ("negative", 0, BOTH, (-1, 1), False),
    ("enormous", 0, BOTH, (1, 2**31 + 1), False),
    ("in another step", 1, BOTH, (1, 1), False),
    ("not asked for", 0, {}, (1, 1), False),
]


@pytest.mark.parametrize(("step", "which", "measured", "fits"), [row[1:] for row in SHAPES],
                         ids=[row[0] for row in SHAPES])  # fmt: skip
def test_what_a_report_may_say(step: int, which: dict[str, bool], measured: tuple[int, ...], fits: bool) -> None:
    attempt = complete(step, **which).attempt
    changed(attempt, Report, 0, measured=measured)
    assert (misfit(said(attempt, Report, 0), attempt, Counts()) is None) is fits


def test_step_0_measures_and_later_steps_go_by_it() -> None:
    first, later = complete(0, **BOTH).attempt, complete(1, **BOTH).attempt
    assert (first.settings.delivery_bound_s, first.settings.gradient_bound_s) == (2.0, 5.0)
    assert (later.settings.delivery_bound_s, later.settings.gradient_bound_s) == (0.25, 1.0)
    delivery_ms, gradient_ms = said(first, Report, 0).measured  # type: ignore[union-attr]
    assert 0 < delivery_ms < 10 and gradient_ms == 50
    assert agreed(later) == later.state.summary.bounds == (250, 1000, 5, 100)


def test_two_that_say_everything_at_the_last_moment_raise_no_bound() -> None:
    """In step 0, too: n - f messages are there before theirs. Deadlines of the others' liking would cost more."""
    run = RunConfig(peers=6, steps=12, batch_size=2, task=TASK, **BOTH)
    found = pace((Plugin("just_in_time", {"until": "budget", "tensors": True}),), 12, 1, run)
    assert found.removed == ()
    assert found.mean_s < 40 * 0.25 + 2 * 1.0 + 0.1


def test_within_tight_budgets_a_step_takes_less_than_ten_honest_ones() -> None:
    """With the default deadlines: from step 1 on, whoever takes longer is late, and reminded sooner."""
    run = RunConfig(peers=6, steps=12, batch_size=2, task=TASK, tight_budgets=True)
    honest = pace((), 12, 1, run)
    attack = Plugin("just_in_time", {"until": "budget", "tensors": True, "before_s": 0.004})
    found = pace((attack,), 12, 1, run)
    assert found.removed == ()
    assert 5 * honest.mean_s < found.mean_s < 10 * honest.mean_s


def test_with_tight_budgets_deadlines_stay_and_reminders_come_sooner() -> None:
    stated, tight = complete(1).attempt.settings, complete(1, tight_budgets=True).attempt.settings
    assert deadline(PHASES[Phase.REVEAL].work, tight, 6, 1, 0) == deadline(PHASES[Phase.REVEAL].work, stated, 6, 1, 0)
    assert (tight.budget_delivery_s, tight.budget_gradient_s) == (0.005, 0.1)
    assert budget(PHASES[Phase.COMMIT].work, tight, 6, 0, 0).message_s == pytest.approx(4 * 0.005 + 0.1)
    assert laggards_s(tight) == 0.01 and laggards_s(stated) == 4.0


def test_a_peer_that_another_one_starves_is_reminded_before_it_is_late() -> None:
    """The attacker's message reaches all but peer 0, which everyone waits for: it answers for nothing."""
    run = configuration(steps=20, delivery_bound_s=2.0, gradient_bound_s=5.0, tight_budgets=True)
    attack = Plugin("last_instant", {"phase": "CHECKSUMS", "to": "all_but_one", "before_s": 1e6})
    story = play([attack], schedule=Schedule(start=1), run=run, links=LinkModel(), honest_lost=1)
    assert story.removed == [] and not story.suspected


@pytest.mark.parametrize("attack", ["just_in_time", "stall", "split_aggregate"])
@pytest.mark.parametrize("bounds", [BOTH, {"tight_budgets": True}], ids=["measured", "tight"])
def test_every_promise_holds_with_measured_bounds(attack: str, bounds: dict[str, bool]) -> None:
    run = configuration(steps=6, delivery_bound_s=2.0, gradient_bound_s=5.0, **bounds)
    story = play([Plugin(attack)], schedule=Schedule(start=0), run=run, honest_lost=1)
    assert story.honest


@pytest.mark.parametrize(("peers", "rate", "bound_s"), [(4, 1e6, 2.0), (6, 1e6, 2.0), (16, 1e6, 3.3), (16, 1e9, 2.0)])
def test_the_stated_delivery_covers_the_largest_views(peers: int, rate: float, bound_s: float) -> None:
    assert delivery_s(peers, rate) == bound_s
    run = Experiment(peers=peers, minimum_rate=rate, rule="mean").run_config("cpu")
    assert run.delivery_bound_s == bound_s


@pytest.mark.parametrize(("given", "measured"), [
    ({}, (False, False)),
    ({"measure_bounds": True}, (True, True)),
    ({"measure_bounds": True, "delivery_bound": 1.0}, (False, True)),
    ({"measure_bounds": True, "gradient_bound": 1.0}, (True, False)),
])  # fmt: skip
def test_a_bound_that_is_given_wins(given: dict[str, object], measured: tuple[bool, bool]) -> None:
    run = Experiment(**given).run_config("cpu")  # type: ignore[arg-type]
    assert (run.measure_delivery, run.measure_gradient) == measured
