"""What runs decide: intervals against the enumeration of all signs, their coverage, and what they must leave open."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest

from btard.launcher.report.inference import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Comparison,
    Effect,
    decide,
    estimate,
    needed,
)

LABEL_LESS_SIGN = (0.0017, -0.0022, -0.0047, 0.0008, 0.0006, 0.0021, 0.0036, -0.0013, 0.0037)
"""Final accuracies of docs/reports/paper.html: label flip less sign flip, by protocol seed and seed."""
CONSTANT = (
    (101, (-0.0068, -0.0061, -0.0060)),
    (102, (-0.0042, -0.0045, -0.0033)),
    (103, (-0.0011, -0.0007, -0.0009)),
)
"""Of the same page: constant direction less clean, by protocol seed."""


def of(values: tuple[float, ...], parts: int = 1) -> Effect:
    found = estimate(enumerate(values), parts)
    assert found is not None
    return found


def rejected(values: tuple[float, ...], effect: float, level: float) -> bool:
    """The two-sided sign-flip test of a symmetric centre, every pattern of signs written out."""
    off = [value - effect for value in values]
    total = math.fsum(off)
    flipped = [
        math.fsum(s * x for s, x in zip(signs, off, strict=True))
        for signs in itertools.product((1, -1), repeat=len(off))
    ]
    tails = [sum(other >= total for other in flipped), sum(other <= total for other in flipped)]
    return 2 * min(tails) / len(flipped) <= 1.0 - level + 1e-12


@pytest.mark.parametrize(("count", "parts"), [(6, 1), (7, 1), (7, 2), (8, 4), (8, 6), (9, 1), (9, 10), (10, 3)])
def test_the_interval_is_what_the_sign_flip_test_does_not_reject(count: int, parts: int) -> None:
    dice = np.random.default_rng(10 * count + parts)
    values = tuple(map(float, dice.normal(size=count)))
    found = of(values, parts)
    assert found.interval is not None
    assert found.level == pytest.approx(1 - 0.05 / parts)
    for end, inward in zip(found.interval, (1e-6, -1e-6), strict=True):
        assert rejected(values, end - inward, found.level)
        assert not rejected(values, end + inward, found.level)
    assert not rejected(values, found.mean, found.level)


@pytest.mark.parametrize("parts", [1, 2, 4, 6, 10])
def test_fewer_draws_than_needed_can_reject_nothing(parts: int) -> None:
    level = 1 - 0.05 / parts
    least = needed(level)
    assert rejected((1.0,) * least, -1.0, level)
    assert not rejected((1.0,) * (least - 1), -1.0, level)
    assert of((1.0,) * least, parts).interval == (1.0, 1.0)
    assert of((1.0,) * (least - 1), parts).interval is None


@pytest.mark.parametrize(("count", "runs", "exact"), [(6, 4000, 1 - 2 / 64), (9, 4000, 1 - 24 / 512), (20, 300, 0.95)])
def test_coverage_is_what_is_promised(count: int, runs: int, exact: float) -> None:
    """Counted over simulated effects with heavy tails: within four standard deviations of the exact chance."""
    dice = np.random.default_rng(count)
    covered = 0
    for values in dice.standard_t(2, size=(runs, count)) + 3.0:
        interval = of(tuple(map(float, values))).interval
        assert interval is not None
        covered += interval[0] <= 3.0 <= interval[1]
    assert abs(covered - runs * exact) < 4 * math.sqrt(runs * exact * (1 - exact))


def test_a_difference_of_half_a_standard_error_is_undecided() -> None:
    nine = of(LABEL_LESS_SIGN)
    assert nine.mean / (statistics.stdev(LABEL_LESS_SIGN) / 3) == pytest.approx(0.52, abs=0.005)
    assert Comparison("label flip less sign flip", nine, below=0.0).verdict == UNDECIDED
    assert nine.interval is not None and nine.interval[0] < 0 < nine.interval[1]


def test_runs_that_share_a_draw_are_one_observation() -> None:
    clustered = estimate((draw, value) for draw, values in CONSTANT for value in values)
    assert clustered is not None
    assert (clustered.runs, len(clustered.by_draw), clustered.interval) == (9, 3, None)
    assert clustered.bounds() == "none: 3 of 6 draws"
    assert clustered.by_draw[102] == pytest.approx(-0.0040)
    assert Comparison("", clustered, below=0.0).verdict == UNDECIDED
    crossed = of(tuple(value for _, values in CONSTANT for value in values))
    assert Comparison("", crossed, below=0.0).verdict == SUPPORTED, "as nine draws they would decide"


def test_draws_count_alike_however_many_runs_they_have() -> None:
    found = estimate([("a", 1.0), ("a", 1.0), ("a", 1.0), ("b", 3.0)])
    assert found is not None
    assert (found.mean, found.runs) == (2.0, 4)
    assert found.standardised == pytest.approx(2.0 / math.sqrt(2.0))
    assert of((1.0, 1.0)).standardised is None and of((1.0,)).standardised is None
    assert estimate([]) is None


AROUND = tuple(0.001 * place for place in range(-4, 5))


@pytest.mark.parametrize(
    ("centre", "above", "below", "verdict"),
    [
        (-0.01, -math.inf, 0.0, SUPPORTED),
        (0.01, -math.inf, 0.0, CONTRADICTED),
        (0.001, -math.inf, 0.0, UNDECIDED),
        (0.0, -0.01, 0.01, SUPPORTED),
        (0.02, -0.01, 0.01, CONTRADICTED),
        (-0.02, -0.01, 0.01, CONTRADICTED),
        (0.009, -0.01, 0.01, UNDECIDED),
        (0.01, 0.0, math.inf, SUPPORTED),
    ],
)
def test_verdicts_of_a_comparison(centre: float, above: float, below: float, verdict: str) -> None:
    effect = of(tuple(centre + off for off in AROUND))
    assert Comparison("", effect, above, below).verdict == verdict
    assert Comparison("", of((0.0,) * 9), below=0.0).verdict == UNDECIDED, "zero is not below zero"
    assert Comparison("", None, above, below).verdict == UNDECIDED


def test_a_claim_is_what_its_comparisons_are() -> None:
    yes, no = (Comparison("", of(tuple(c + off for off in AROUND)), below=0.0) for c in (-0.01, 0.01))
    open_ = Comparison("", of(AROUND), below=0.0)
    assert decide([yes, yes], complete=True) == SUPPORTED
    assert decide([yes, yes], complete=False) == UNDECIDED
    assert decide([yes, open_], complete=True) == UNDECIDED
    assert decide([yes, no, open_], complete=False) == CONTRADICTED
    assert decide([yes], complete=True, refuted=True) == CONTRADICTED
    assert decide([], complete=True) == UNDECIDED
