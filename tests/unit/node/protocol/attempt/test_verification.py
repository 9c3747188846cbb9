"""The draw of validators, its bound, and what removals make of it; s and norm, and the checks V0, V2 and V3."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from btard.node.aggregation.factory import build_rule
from btard.node.config import Plugin
from btard.node.protocol.attempt.mprng import projection
from btard.node.protocol.attempt.verification import (
    NORM_WINDOW,
    Checksum,
    Draw,
    NormWindow,
    allowed_pairs,
    checksum,
    draw,
    exact_sum,
    plausible,
    same,
    sums_to_zero,
    too_many_far,
)
from btard.node.protocol.rule import Rule
from btard.node.protocol.wire.encoding import digest, number
from btard.node.protocol.wire.precision import BF16

# --- CheckComputations: validators ----------------------------------------------------------------------------


SIX = (0, 1, 2, 3, 4, 5)


def test_pairs_are_disjoint_contributors_and_uniform() -> None:
    """All 30 ordered pairs of six alike: chi-square over 30,000 draws, 58.3 is the 0.999 quantile at 29 degrees."""
    found: Counter[tuple[int, int]] = Counter()
    for number_ in range(30_000):
        ((validator, target),) = draw(digest("draw", number(number_)), SIX, 1, 1).pairs(SIX)
        assert validator != target
        found[validator, target] += 1
    assert len(found) == 30
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 58.3


@pytest.mark.parametrize(("contributors", "pairs", "expected"),
                         [((), 1, 0), ((4,), 1, 0), ((1, 4), 1, 1), ((1, 2, 4), 2, 1), (SIX, 3, 3), (SIX, 0, 0)],
                         ids=["nobody", "one", "two", "three", "six", "none wanted"])  # fmt: skip
def test_how_many_pairs(contributors: tuple[int, ...], pairs: int, expected: int) -> None:
    drawn = draw(digest("r"), contributors, pairs, 1)
    assert drawn.count == expected
    named = [peer for pair in drawn.pairs(contributors) for peer in pair]
    assert len(set(named)) == 2 * expected
    assert set(named) <= set(contributors)


def test_every_kth_step_on_average() -> None:
    drawn = sum(draw(digest("draw", number(step)), SIX, 1, 3).count for step in range(6000))
    assert drawn == pytest.approx(2000, abs=150)


ORDER = Draw((5, 3, 0, 4, 2, 1), 2)
REMOVALS = [
    ("nobody", (), ((5, 0), (3, 4))),
    ("a validator: the next of the permutation takes over", (5,), ((2, 0), (3, 4))),
    ("both validators", (5, 3), ((2, 0), (1, 4))),
    ("a target stays due", (0,), ((5, 0), (3, 4))),
    ("a validator and its target", (5, 0), ((2, 0), (3, 4))),
    ("the next one is gone too", (5, 2), ((1, 0), (3, 4))),
    ("nobody is left for the second pair", (5, 3, 2), ((1, 0),)),
    ("nobody is left at all", (5, 3, 2, 1), ()),
]


@pytest.mark.parametrize(("removed", "pairs"), [row[1:] for row in REMOVALS], ids=[row[0] for row in REMOVALS])
def test_removals(removed: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    assert ORDER.pairs([peer for peer in SIX if peer not in removed]) == pairs


def test_no_draw_no_pairs() -> None:
    assert Draw().pairs(SIX) == ()
    assert Draw().targets == ()


BOUND = [
    ("the report's six", 1, 6, 2, 0, 1),
    ("after the first ban: five peers still validate", 1, 5, 2, 1, 1),
    ("after both", 1, 4, 2, 2, 1),
    ("never below one", 3, 3, 1, 0, 1),
    ("none wanted", 0, 6, 2, 0, 0),
    ("an honest majority among contributors", 5, 16, 7, 0, 1),
    ("more after removals", 5, 14, 7, 2, 3),
    ("3 m <= n_active", 9, 16, 0, 0, 5),
    ("what was asked for", 2, 16, 0, 0, 2),
]


@pytest.mark.parametrize(("wanted", "active", "faults", "removed", "pairs"), [row[1:] for row in BOUND],
                         ids=[row[0] for row in BOUND])  # fmt: skip
def test_allowed_pairs(wanted: int, active: int, faults: int, removed: int, pairs: int) -> None:
    assert allowed_pairs(wanted, active, faults, removed, contribute=False) == pairs
    if pairs > 1:
        assert active - pairs > 2 * (faults - removed)
        assert 3 * pairs <= active


@pytest.mark.parametrize(
    ("wanted", "active", "pairs"), [(1, 5, 1), (5, 16, 5), (9, 7, 2), (3, 3, 1), (2, 2, 1), (0, 7, 0)]
)
def test_where_everyone_contributes_no_faults_left_lower_it(wanted: int, active: int, pairs: int) -> None:
    for removed in range(active // 2):
        assert allowed_pairs(wanted, active, (active + 1) // 2 - 1, removed, contribute=True) == pairs


# --- checksums, V0, V2 and V3 ---------------------------------------------------------------------------------


CLIP, MEAN = build_rule(Plugin("centered_clip")), build_rule(Plugin("mean"))


def vectors(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def test_equation_3_within_and_beyond_the_radius() -> None:
    gradient_P, aggregate_P = torch.tensor([3.0, 0.0, 4.0]), torch.zeros(3)
    direction_P = torch.tensor([1.0, 1.0, 1.0, 9.0])
    assert checksum(gradient_P, aggregate_P, direction_P, 5.0) == Checksum(7.0, 5.0)
    assert checksum(gradient_P, aggregate_P, direction_P, 2.5) == Checksum(3.5, 5.0)
    assert checksum(gradient_P, aggregate_P, direction_P, math.inf) == Checksum(7.0, 5.0)
    assert checksum(aggregate_P, aggregate_P, direction_P, 1.0) == Checksum(0.0, 0.0)
    assert checksum(torch.empty(0), torch.empty(0), direction_P, 1.0) == Checksum(0.0, 0.0)


def test_bits_do_not_depend_on_where_a_part_lies_in_memory() -> None:
    """A sender slices its gradient, an aggregator received the part in a frame, a judge in another."""
    size = 70_001
    gradient_P, aggregate_P, direction_P = vectors(1, size)[0], vectors(1, size, 1)[0], projection(b"r" * 32, size)
    expected = checksum(gradient_P, aggregate_P, direction_P, 5.0)
    for offset in range(1, 9):
        moved_P = torch.empty(size + offset)[offset:]
        moved_P.copy_(gradient_P)
        assert checksum(moved_P, aggregate_P, direction_P, 5.0) == expected


V0 = [
    ("honest", 1.0, 1.0, True),
    ("the bound", 8.0, 1.0, True),
    ("beyond the bound", 8.001, 1.0, False),
    ("negative s", -8.001, 1.0, False),
    ("clipped: the radius bounds", 40.0, 100.0, True),
    ("clipped and beyond", 40.1, 100.0, False),
    ("zero", 0.0, 0.0, True),
    ("s without a norm", 1e-300, 0.0, False),
    ("a negative norm", 0.0, -1e-300, False),
    ("nan s", math.nan, 1.0, False),
    ("nan norm", 0.0, math.nan, False),
    ("infinite s", math.inf, math.inf, False),
    ("infinite norm", 0.0, math.inf, False),
    ("1e30", 1e30, 1.0, False),
    ("-1e30", -1e30, 1.0, False),
]


@pytest.mark.parametrize(("s", "norm", "fits"), [row[1:] for row in V0], ids=[row[0] for row in V0])
def test_v0(s: float, norm: float, fits: bool) -> None:
    assert bool(plausible(s, norm, 5.0)) is fits


def test_v0_of_many_claims_is_that_of_each() -> None:
    s, norms, fits = (np.array(column) for column in zip(*(row[1:] for row in V0), strict=True))
    assert (plausible([s, s], [norms, norms], np.full(len(s), 5.0)) == fits).all()


def test_honest_checksums_are_always_plausible() -> None:
    for seed in range(300):
        size = 1 + seed % 40
        z = projection(digest("v0", number(seed)), size)
        gradient_P, aggregate_P = vectors(2, size, seed) * 10.0 ** (seed % 9 - 4)
        claim = checksum(gradient_P, aggregate_P, z, 0.5)
        assert plausible(claim.s, claim.norm, 0.5)


SAME = [
    ("equal", 0.0, (1.0, 2.0), True),
    ("one bit of s", 0.0, (1.0000000000000002, 2.0), False),
    ("one bit of the norm", 0.0, (1.0, 2.0000000000000004), False),
    ("nan", 0.0, (math.nan, 2.0), False),
    ("within a tolerance", 1e-9, (1.0 + 1e-9, 2.0 + 1e-9), True),
    ("s beyond it", 1e-9, (1.0 + 1e-7, 2.0), False),
    ("norm beyond it", 1e-9, (1.0, 2.0 + 1e-8), False),
    ("nan within a tolerance", 1e-9, (1.0, math.nan), False),
]


@pytest.mark.parametrize(("tolerance", "claim", "expected"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_v1(tolerance: float, claim: tuple[float, float], expected: bool) -> None:
    assert same(Checksum(*claim), Checksum(1.0, 2.0), 5.0, tolerance) is expected


def test_sums_are_exact_whatever_the_order() -> None:
    values = [1e16, 1.0, -1e16, 1e-9]
    assert exact_sum(values) == exact_sum(reversed(values)) == 1.000000001
    assert math.isnan(exact_sum([1.0, math.nan]))
    assert math.isnan(exact_sum([1.0, math.inf, -math.inf]))
    assert math.isnan(exact_sum([1.7e308, 1.7e308])), "no peer may raise an OverflowError in us"


def column_of(inputs_NP: Tensor, value_P: Tensor, seed: int, radius: float) -> tuple[list[float], list[float]]:
    z = projection(digest("v2", number(seed)), value_P.numel())
    claims = [checksum(row_P, value_P, z, radius) for row_P in inputs_NP]
    return [claim.s for claim in claims], [claim.norm for claim in claims]


@pytest.mark.parametrize("rule", [CLIP, MEAN], ids=["centered_clip", "mean"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_v2_accepts_honest_aggregates_beside_outliers(rule, scale: float) -> None:  # type: ignore[no-untyped-def]
    for seed in range(30):
        inputs_NP = vectors(6, 50, seed) * scale
        inputs_NP[5] *= 1000.0
        radius = rule.clip_radius(5.0)
        value_P = rule.aggregate(inputs_NP, 5.0).value_P
        column = column_of(inputs_NP, value_P, seed, radius)
        assert sums_to_zero(*column, float(value_P.double().norm()), rule, radius)


@pytest.mark.parametrize("length", [1e-3, 0.1, 1.0, 1e2, 1e4, 1e6, 1e9, 1e12, 1e30], ids=str)
def test_v2_finds_a_shift_of_any_length(length: float) -> None:
    """Missed with probability about 0.8 tol / (k ||e||): here 1e-2 at most; and never because ||v|| is large."""
    missed = 0
    for seed in range(100):
        inputs_NP = vectors(6, 50, seed)
        value_P = CLIP.aggregate(inputs_NP, 50.0).value_P
        error_P = vectors(1, 50, seed + 1000)[0]
        shifted_P = value_P + error_P * (length / float(error_P.norm()))
        column = column_of(inputs_NP, shifted_P, seed, 50.0)
        missed += sums_to_zero(*column, float(shifted_P.double().norm()), CLIP, 50.0)
    assert missed <= (60 if length <= 1e-3 else 3)


@pytest.mark.parametrize("length", [1.0, 1e4, 1e9, 1e30], ids=str)
@pytest.mark.parametrize("rule", [CLIP, MEAN], ids=["centered_clip", "mean"])
def test_a_judge_refuses_a_shift_of_any_length(rule, length: float) -> None:  # type: ignore[no-untyped-def]
    inputs_NP = vectors(6, 50)
    value_P = rule.aggregate(inputs_NP, 5.0).value_P
    error_P = vectors(1, 50, 1)[0]
    assert rule.accepts(inputs_NP, value_P, 5.0)
    assert not rule.accepts(inputs_NP, value_P + error_P * length, 5.0)


# --- V2 and a judge where aggregates travel as bfloat16 -------------------------------------------------------


def judged(inputs_NP: Tensor, value_P: Tensor, seed: int, rule: Rule, radius: float) -> bool:
    """V2 of honest contributors' claims against an aggregate, as peers judge it."""
    column = column_of(inputs_NP, value_P, seed, rule.clip_radius(radius))
    norm = float(value_P.double().norm())
    return sums_to_zero(*column, norm, rule, rule.clip_radius(radius), BF16, value_P.numel())


def rows_of(kind: str, count: int, size: int, seed: int) -> Tensor:
    """Honest contributions as they travel; the rounding of what they come to is as hard as it can be in most kinds."""
    drawn_NP = vectors(count, size, seed)
    match kind:
        case "ties":  # 1 and the next above it: the mean lies half a unit in the last place off, where that is largest
            drawn_NP = torch.where(torch.arange(count)[:, None] % 2 == 0, 1.0, 1.0 + 2.0**-7).expand(count, size)
        case "tiny":  # subnormal numbers, whose rounding is no share of them
            drawn_NP = drawn_NP * 1e-39
        case "huge":
            drawn_NP = drawn_NP * 2.0**38
        case "clipped":  # beyond the radius, and apart
            drawn_NP = drawn_NP * torch.logspace(0, 1.2, count)[:, None]
        case "close":  # far from zero and near to each other
            drawn_NP = 3.0 + drawn_NP * 0.02
    return BF16.rounded(drawn_NP.flatten()).reshape(drawn_NP.shape)


KINDS = ("normal", "ties", "tiny", "huge", "clipped", "close")


@pytest.mark.parametrize("rule", [CLIP, MEAN], ids=["centered_clip", "mean"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "size"), [(1, 7), (2, 1), (3, 50), (6, 500), (64, 40), (200, 3)])
def test_an_honest_rounded_aggregate_never_fails(rule: Rule, kind: str, count: int, size: int) -> None:
    for seed in range(12):
        inputs_NP = rows_of(kind, count, size, seed)
        exact_P = rule.aggregate(inputs_NP, 5.0).value_P
        value_P = BF16.rounded(exact_P)
        # A judge of subnormal numbers alone refuses what is right with float32 already: 2^-23 is no bound of theirs.
        assert kind == "tiny" or rule.accepts(inputs_NP, value_P, 5.0, BF16.nearest)
        blind = rule is CLIP and float(value_P.double().norm()) > 4.0 * 5.0
        assert judged(inputs_NP, value_P, seed, rule, 5.0) is not blind


def granted(inputs_NP: Tensor, value_P: Tensor, radius: float) -> float:
    """The tolerance, worked out here: 8 (n eps tau + E sum w)."""
    off = 2.0**-8 * float(value_P.double().norm()) + 2.0**-134 * math.sqrt(value_P.numel())
    near = [max(radius, float((row_P.double() - value_P.double()).norm()) - off) for row_P in inputs_NP]
    return 8 * (len(inputs_NP) * 1e-6 * radius + off * sum(radius / norm for norm in near))


@pytest.mark.parametrize("kind", ["normal", "clipped", "close"])
@pytest.mark.parametrize("count", [2, 6, 64])
def test_a_shift_just_beyond_the_tolerance_is_seen_and_just_within_is_not(kind: str, count: int) -> None:
    """An aggregator that knew z, and pushed along it, one unit in the last place of one entry after the other."""
    radius = 60.0
    for seed in range(1 if count > 6 else 3):
        inputs_NP = rows_of(kind, count, 400, seed)
        value_P = BF16.rounded(CLIP.aggregate(inputs_NP, radius).value_P)
        z = projection(digest("v2", number(seed)), 400)
        last = 0.0
        for entry in range(400 * 40):
            column = column_of(inputs_NP, value_P, seed, radius)
            share = abs(math.fsum(column[0])) / granted(inputs_NP, value_P, radius)
            norm = float(value_P.double().norm())
            assert sums_to_zero(*column, norm, CLIP, radius, BF16, 400) is (share <= 1.0)
            if share > 1.0:
                break
            last = share
            value_P = value_P.clone()
            bits = value_P.numpy().view(np.int32)[entry % 400 : entry % 400 + 1]
            bits += 0x10000 if (float(z[entry % 400]) < 0) == (int(bits[0]) < 0) else -0x10000
        assert 0.9 < last <= 1.0 < share < 1.1
        assert not CLIP.accepts(inputs_NP, value_P, radius, BF16.nearest)


def test_how_often_a_shift_passes() -> None:
    """Of length 8 k E with all rows within the radius: whenever a normal draw lies below 1 / k; the page says so."""
    inputs_NP = rows_of("normal", 6, 400, 0)
    value_P = BF16.rounded(CLIP.aggregate(inputs_NP, 60.0).value_P)
    off = 2.0**-8 * float(value_P.double().norm())
    for times, share in ((0.25, 1.0), (1.0, 0.683), (4.0, 0.197), (16.0, 0.050)):
        errors = torch.nn.functional.normalize(vectors(300, 400, 7)) * (8 * times * off)
        shifted = [BF16.rounded(value_P + error_P) for error_P in errors]
        passed = sum(judged(inputs_NP, each_P, seed, CLIP, 60.0) for seed, each_P in enumerate(shifted))
        assert abs(passed / 300 - share) <= 4 * math.sqrt(share * (1 - share) / 300) + 0.01


def test_an_aggregate_that_may_hide_an_eighth_of_the_radius_is_recomputed() -> None:
    inputs_NP = rows_of("close", 6, 50, 0)
    value_P = BF16.rounded(CLIP.aggregate(inputs_NP, 60.0).value_P)
    edge = 8 * 8 * 2.0**-8 * float(value_P.double().norm())
    assert judged(inputs_NP, value_P, 0, CLIP, 1.001 * edge)
    assert not judged(inputs_NP, value_P, 0, CLIP, 0.999 * edge)


@pytest.mark.parametrize("name", ["centered_clip", "mean", "median", "krum", "trimmed_mean"])
@pytest.mark.parametrize("count", [5, 16, 64])
def test_a_judge_grants_rounding_and_nothing_more(name: str, count: int) -> None:
    """What may have been rounded to an aggregate is judged as float32 is: one unit in the last place too many, or a
    wrong neighbour whose interval does not come near, is another aggregate."""
    rule = build_rule(Plugin(name))
    for seed in range(5):
        inputs_NP = rows_of("normal", count, 60, seed)
        exact_P = rule.aggregate(inputs_NP, 5.0).value_P
        value_P = BF16.rounded(exact_P)
        assert rule.accepts(inputs_NP, value_P, 5.0, BF16.nearest)
        largest = int(value_P.abs().argmax())
        for units in (-2, 2):
            moved_P = value_P.clone()
            moved_P.numpy().view(np.int32)[largest] += units * 0x10000
            assert not rule.accepts(inputs_NP, moved_P, 5.0, BF16.nearest)
        assert not rule.accepts(inputs_NP, torch.full((60,), math.inf), 5.0, BF16.nearest)


V3 = [
    ("no limit yet", [9.0, 9.0, 9.0], None, False),
    ("exactly half", [9.0, 9.0, 1.0, 1.0], 4.0, False),
    ("more than half", [9.0, 9.0, 9.0, 1.0], 4.0, True),
    ("at the limit", [4.0, 4.0, 4.0], 4.0, False),
    ("nobody", [], 4.0, False),
]


@pytest.mark.parametrize(("norms", "limit", "fails"), [row[1:] for row in V3], ids=[row[0] for row in V3])
def test_v3(norms: list[float], limit: float | None, fails: bool) -> None:
    assert too_many_far(norms, limit) is fails


def test_the_norm_window() -> None:
    """4 times the median of the last 10 steps, per root of an entry; no check before there are 10."""
    window = NormWindow()
    for step in range(NORM_WINDOW):
        assert window.scale() is None
        window = window.append([1.0 + step, 1.0 + step])
    assert window.scale() == pytest.approx(4 * 5.5)
    window = window.append([100.0])
    assert len(window.steps) == NORM_WINDOW
    assert window.steps[0] == (2.0, 2.0)
    for _ in range(NORM_WINDOW):
        window = window.append([math.inf, math.nan, 2.0])
    assert window.scale() == pytest.approx(8.0), "what V0 convicts does not count"
    for _ in range(NORM_WINDOW):
        window = window.append([])
    assert window.scale() is None
