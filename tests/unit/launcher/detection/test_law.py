"""The law of detection against enumeration of all orders, against simulated draws, and against the stated figures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import permutations

import pytest
import torch

from btard.launcher.detection import law, markov
from btard.launcher.detection.law import Detection, Setting, detection_distribution, per_step_probability
from btard.launcher.detection.markov import Waiting
from btard.node.errors import ConfigError
from btard.node.protocol.attempt.verification import Draw, draw
from btard.node.protocol.wire.encoding import digest, number

LEVEL = 1e-3
"""Probability that one of the chi-square tests below rejects a true law, were its seed not fixed."""

REPORT = Setting(peers=6, byzantine=2, validators=1)


# --- one transition: every order of the contributors, counted ----------------------------------------------------


def enumerated(setting: Setting, state: law._State, attacking: bool) -> dict[law._State, float]:
    """The law of the next state by trying every permutation through `Draw.pairs`."""
    n, b = setting.peers, setting.byzantine
    attackers = range(n - b, n)[: state.active]
    honest = range(n - b)
    serving = {*attackers[: state.serving_byzantine], *honest[: state.serving - state.serving_byzantine]}
    doomed = set(attackers[state.serving_byzantine :][: state.doomed])
    active = {*honest, *attackers} - doomed
    contributors = sorted({*honest, *attackers} - serving)
    removed = b - state.active + state.doomed
    pairs = setting.pairs(len(active), removed)
    count = min(pairs, len(contributors) // 2)
    found: dict[law._State, float] = defaultdict(float)
    orders = list(permutations(contributors))
    for order in orders:
        drawn = Draw(order, count).pairs(active)
        lenient = {validator for validator, _ in drawn if validator in attackers}
        caught = {t for v, t in drawn if attacking and v not in attackers and t in attackers and t in active}
        idle = (0, 0) if setting.everyone_contributes else (len(drawn), len(lenient))
        after = law._State(state.active - state.doomed, *idle, len(caught))
        found[after] += 1.0 / setting.validate_every / len(orders)
    if setting.validate_every > 1:
        found[law._State(state.active - state.doomed, 0, 0, 0)] += 1.0 - 1.0 / setting.validate_every
    return found


TRANSITIONS = [
    ("step 0 of the report", REPORT, (2, 0, 0, 0), True),
    ("an honest validator serves", REPORT, (2, 1, 0, 0), True),
    ("a doomed peer may be drawn", REPORT, (2, 1, 0, 1), True),
    ("an attacker serves", REPORT, (2, 1, 1, 0), True),
    ("one attacker left", REPORT, (1, 1, 1, 0), True),
    ("before the attack", REPORT, (2, 1, 1, 0), False),
    ("every third step", Setting(6, 2, 1, validate_every=3), (2, 1, 0, 1), True),
    ("two pairs, one doomed", Setting(8, 2, 3), (2, 1, 0, 1), True),
    ("two pairs, two doomed", Setting(8, 3, 3), (3, 1, 0, 1), True),
    ("two pairs served, two doomed", Setting(9, 3, 2, contribute="off"), (2, 2, 0, 2), True),
    ("everyone contributes", Setting(7, 3, 2), (3, 0, 0, 0), True),
    ("everyone contributes, one doomed", Setting(7, 3, 2), (3, 0, 0, 1), True),
    ("everyone contributes, of six", Setting(6, 2, 2, contribute="on"), (2, 0, 0, 2), True),
    ("two pairs, one lenient", Setting(8, 3, 2), (2, 2, 1, 1), True),
    ("three peers", Setting(3, 1, 1, contribute="off"), (1, 1, 0, 1), True),
    ("two doomed, too few spare", Setting(4, 2, 1), (2, 0, 0, 2), True),
    ("a majority of attackers", Setting(5, 3, 2, contribute="off"), (3, 1, 1, 1), True),
]


@pytest.mark.parametrize(("setting", "numbers", "attacking"), [row[1:] for row in TRANSITIONS],
                         ids=[row[0] for row in TRANSITIONS])  # fmt: skip
def test_transition_equals_the_count_of_all_orders(
    setting: Setting, numbers: tuple[int, int, int, int], attacking: bool
) -> None:
    state = law._State(*numbers)
    expected = enumerated(setting, state, attacking)
    computed = dict(law._transitions(setting, state, attacking))
    assert computed.keys() == expected.keys()
    assert computed == pytest.approx(expected, abs=1e-12)


def test_per_step_probability_is_the_share_of_orders() -> None:
    """C = 5 contributors, 2 of them attackers, one pair: target 1/5, honest validator 3/4."""
    assert per_step_probability(5, 2, 1) == pytest.approx(0.15)
    assert per_step_probability(5, 2, 1, validate_every=3) == pytest.approx(0.05)
    assert per_step_probability(6, 2, 1) == pytest.approx(2 / 15)
    assert per_step_probability(4, 1, 9) == pytest.approx(0.5)
    assert per_step_probability(1, 1, 1) == 0.0
    caught = sum(order[0] < 3 and order[1] == 4 for order in permutations(range(5)))
    assert per_step_probability(5, 2, 1) == pytest.approx(caught / 120)


# --- the whole law: simulated draws -------------------------------------------------------------------------------


def simulate(setting: Setting, seed: int, runs: int) -> list[tuple[int, int, int, int]]:
    """(last steps, last attacked, tagged steps, tagged contributed) of runs of nothing but `validators.draw`."""
    return [_run(setting, digest("law test", number(seed), number(run))) for run in range(runs)]


def _run(setting: Setting, seed: bytes) -> tuple[int, int, int, int]:
    n, b = setting.peers, setting.byzantine
    tagged = n - 1
    active, drawn = list(range(n)), Draw()
    attacked_before: set[int] = set()
    steps = attacked = tagged_steps = tagged_contributed = 0
    step = 0
    while any(peer >= n - b for peer in active):
        pairs = drawn.pairs(active)
        serving = {validator for validator, _ in pairs}
        contributors = [peer for peer in active if setting.everyone_contributes or peer not in serving]
        attackers = {peer for peer in contributors if peer >= n - b and step >= setting.start}
        if step >= setting.start:
            steps += 1
            attacked += bool(attackers)
            tagged_steps += tagged in active
            tagged_contributed += tagged in attackers
        convicted = {t for v, t in pairs if v < n - b and t in attacked_before}
        active = [peer for peer in active if peer not in convicted]
        allowed = setting.pairs(len(active), n - len(active))
        drawn = draw(digest("r", seed, number(step)), contributors, allowed, setting.validate_every)
        attacked_before = attackers
        step += 1
    return steps, attacked, tagged_steps, tagged_contributed


def chi_square_p(times: list[int], waiting: Waiting) -> float:
    """P-value of observed times against a law; neighbouring times are pooled to 20 expected each."""
    observed = Counter(times)
    statistic, cells, expected_cell, observed_cell = 0.0, 0, 0.0, 0
    remaining = float(len(times))
    for time in range(len(waiting.survival)):
        expected_cell += len(times) * waiting.probability(time)
        observed_cell += observed[time]
        remaining = len(times) * waiting.survival[time]
        if expected_cell >= 20 and remaining >= 20:
            statistic += (observed_cell - expected_cell) ** 2 / expected_cell
            cells, expected_cell, observed_cell = cells + 1, 0.0, 0
    expected_cell += remaining
    observed_cell += sum(count for time, count in observed.items() if time >= len(waiting.survival))
    statistic += (observed_cell - expected_cell) ** 2 / expected_cell
    half = torch.tensor([cells / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def waitings(detection: Detection) -> tuple[Waiting, Waiting, Waiting, Waiting]:
    return (detection.last_steps, detection.last_attacked, detection.tagged_steps, detection.tagged_contributed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "runs"),
    [
        (REPORT, 20_000),
        (Setting(6, 2, 1, start=3), 3_000),
        (Setting(6, 1, 1, validate_every=3), 3_000),
        (Setting(9, 3, 3, start=1, contribute="off"), 3_000),
        (Setting(13, 4, 4), 2_000),
        (Setting(5, 2, 1, start=2), 3_000),
    ],
    ids=[
        "the report's",
        "started late",
        "one attacker, every third step",
        "pairs grow after bans",
        "thirteen peers",
        "five peers, all of them contributing",
    ],
)
def test_the_draw_follows_the_law(setting: Setting, runs: int) -> None:
    """Chi-square, each of the four waiting times at level 1e-3, fixed seeds."""
    detection = detection_distribution(setting, 300)
    outcomes = simulate(setting, seed=1, runs=runs)
    for column, waiting in enumerate(waitings(detection)):
        assert chi_square_p([outcome[column] for outcome in outcomes], waiting) > LEVEL


def test_the_chi_square_test_rejects_another_law() -> None:
    """The test has power: the law of five peers does not pass for that of six."""
    outcomes = [outcome[0] for outcome in simulate(REPORT, seed=2, runs=2_000)]
    assert chi_square_p(outcomes, detection_distribution(Setting(7, 2, 1), 300).last_steps) < LEVEL


# --- figures and properties ---------------------------------------------------------------------------------------


def test_the_figures_of_the_report_setting() -> None:
    """PROTOCOL section 8: about 0.155 per attacking peer and contributed step, both gone after about 8 attacked
    steps on average, 24 at the 99th percentile. Those count up to the last convicted gradient; ours counts one more
    step, the one in which the verdict is reported."""
    detection = detection_distribution(REPORT, 300)
    assert detection.hazard == pytest.approx(0.155, abs=0.005)
    assert detection.last_attacked.mean - 1 == pytest.approx(8.0, abs=0.1)
    assert detection.last_attacked.quantile(0.99) - 1 == 24
    assert detection.last_steps.mean == pytest.approx(10.1042, abs=5e-5)
    assert detection.tagged_contributed.mean == pytest.approx(6.3396, abs=5e-5)


@pytest.mark.parametrize("setting", [REPORT, Setting(9, 3, 3, start=4), Setting(7, 1, 2, validate_every=2)], ids=str)
def test_properties(setting: Setting) -> None:
    detection = detection_distribution(setting, 200)
    for waiting in waitings(detection):
        assert waiting.survival[0] == pytest.approx(1.0)
        assert waiting.survival[-1] == pytest.approx(0.0, abs=1e-6)
        assert all(
            math.isclose(a, b, abs_tol=1e-12) or a > b
            for a, b in zip(waiting.survival, waiting.survival[1:], strict=False)
        )
    assert 0.0 < detection.hazard < 1.0
    assert detection.last_steps.mean >= detection.last_attacked.mean >= detection.tagged_contributed.mean
    assert detection.last_steps.mean >= detection.tagged_steps.mean


def test_one_attacker_is_the_last_one() -> None:
    detection = detection_distribution(Setting(6, 1, 1), 300)
    assert detection.last_steps.survival == pytest.approx(detection.tagged_steps.survival)
    assert detection.last_attacked.survival == pytest.approx(detection.tagged_contributed.survival)


def test_one_attacker_by_hand() -> None:
    """n = 3, b = 1: step 0 convicts with probability 1/3 (target 1/3, the validator is honest); gone after step 1."""
    detection = detection_distribution(Setting(3, 1, 1, contribute="off"), 100)
    assert detection.last_steps.probability(1) == pytest.approx(0.0)
    assert detection.last_steps.probability(2) == pytest.approx(1 / 3)
    # Then: it serves in step 1 (1/3): nothing there, again three... or it contributes with the honest target (1/3)
    # to step 1: two contributors, it is the target with probability 1/2.
    assert detection.last_steps.probability(3) == pytest.approx(1 / 6)


def test_everyone_contributes_by_hand() -> None:
    """n = 3, b = 1, as by default: each step's gradient is convicted with probability 1/3, whoever validates in it."""
    detection = detection_distribution(Setting(3, 1, 1), 100)
    for steps in range(2, 9):
        assert detection.last_steps.probability(steps) == pytest.approx((2 / 3) ** (steps - 2) / 3)
    assert detection.tagged_contributed == detection.tagged_steps == detection.last_attacked == detection.last_steps


@pytest.mark.parametrize("peers", range(2, 20))
def test_attackers_are_never_half_of_the_contributors(peers: int) -> None:
    """PROTOCOL section 10, rule 8: f_0 attackers, with the one validator that m is never below."""
    setting = Setting(peers, max(1, (peers - 1) // 2), 1)
    contributors = peers if setting.everyone_contributes else peers - setting.pairs(peers, 0)
    assert contributors > 2 * ((peers - 1) // 2)
    assert setting.everyone_contributes == (peers % 2 == 1)


def test_nobody_validates_nobody_is_caught() -> None:
    detection = detection_distribution(Setting(6, 2, 0), 50)
    assert detection.hazard == 0.0
    assert detection.last_steps.survival[-1] == 1.0
    with pytest.raises(ConfigError, match="beyond the horizon of 50"):
        detection.last_steps.quantile(0.5)


def test_a_chain_by_hand() -> None:
    """It idles one step, then works until a fair coin ends it: P(more than k steps of work) is 2^-k."""
    moves = {"idle": (("work", 1.0),), "work": (("work", 0.5), (None, 0.5))}
    coin = markov.chain({"idle": 1.0}, lambda place: moves[place])
    assert markov.absorbed(coin, lambda place: place == "work", 4).survival == (1.0, 0.5, 0.25, 0.125, 0.125)
    assert markov.absorbed(coin, lambda place: True, 4).survival == (1.0, 1.0, 0.5, 0.25, 0.125)


def test_waiting_figures_by_hand() -> None:
    waiting = Waiting((1.0, 0.5, 0.25, 0.0))
    assert waiting.mean == 1.75
    assert [waiting.probability(time) for time in range(4)] == [0.0, 0.5, 0.25, 0.25]
    assert [waiting.quantile(level) for level in (0.5, 0.6, 0.75, 1.0)] == [1, 2, 2, 3]


@pytest.mark.parametrize(
    "numbers", [(6, 0), (6, 6), (6, 2, -1), (6, 2, 1, 0), (6, 2, 1, 1, -1)],
    ids=["no attacker", "only attackers", "pairs", "every", "start"],
)  # fmt: skip
def test_impossible_settings_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="use"):
        Setting(*numbers)
