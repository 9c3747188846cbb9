"""Measured bounds: what each peer signs in step 0, what all agree on, and which bounds hold from then on."""

from __future__ import annotations

import pytest

from btard.launcher.run.experiment import Experiment
from btard.node.config import Plugin, RunConfig, Schedule
from btard.node.netem.links import LinkModel
from btard.node.protocol.adjudication.case import Counts
from btard.node.protocol.attempt.deadlines import budget, deadline, laggards_s
from btard.node.protocol.attempt.measured_bounds import agreed
from btard.node.protocol.attempt.phases import PHASES, misfit
from btard.node.protocol.wire.messages import Phase, Report, delivery_s
from tests.protocol_attempts import changed, complete, said
from tests.simulation.attacked import configuration, play
from tests.simulation.slowness import TASK, pace

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
