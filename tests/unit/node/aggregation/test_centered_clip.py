"""CenteredClip: the promise on its residual, its invariances, and how many iterations it takes."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from btard.node.aggregation import centered_clip, mean, median
from btard.node.aggregation.centered_clip import fixed_point
from btard.node.aggregation.residual import residual

EPS = 1e-6


def tolerance(inputs_NP, value_P, radius, eps=EPS):
    return len(inputs_NP) * (eps * radius + 2.0**-23 * float(value_P.double().norm()))


def assert_promise_kept(inputs_NP, radius, eps=EPS):
    value_P = centered_clip(inputs_NP, radius=radius, eps=eps)
    left, _ = residual(inputs_NP, value_P, radius)
    assert left <= tolerance(inputs_NP, value_P, radius, eps)
    return value_P


def reference(inputs_NP, radius, steps=200_000):
    """The plain form in float64, from the median: v += sum_i w_i (x_i - v) / n, until it stops moving."""
    rows_NP = inputs_NP.double()
    value_P = median(inputs_NP).double()
    for _ in range(steps):
        difference_NP = rows_NP - value_P
        weights_N = radius / difference_NP.norm(dim=1).clamp(min=radius)
        move_P = weights_N @ difference_NP / len(rows_NP)
        value_P = value_P + move_P
        if float(move_P.norm()) <= 1e-15 * radius:
            break
    return value_P


def rows(kind, count, columns, seed=0):
    generator = torch.Generator().manual_seed(1000 * count + columns + seed)
    inputs_NP = torch.randn(count, columns, generator=generator)
    few = count // 3
    match kind:
        case "outliers":
            inputs_NP[:few] *= 1000
        case "offset":
            inputs_NP += 1000 * torch.randn(columns, generator=generator)
            inputs_NP[:few] *= -1000
        case "duplicates":
            inputs_NP[: count // 2 + 1] = inputs_NP[0].clone()
        case "zeros":
            inputs_NP[: count // 2] = 0
        case "all zeros":
            inputs_NP.zero_()
        case "largest":
            inputs_NP[: count // 2] = 2.0**40 * inputs_NP[: count // 2].sign()
        case "line":
            inputs_NP = inputs_NP[:1] * torch.randn(count, 1, generator=generator)
        case "scales":
            inputs_NP *= torch.logspace(-6, 6, count)[:, None]
    return inputs_NP


KINDS = ["plain", "outliers", "offset", "duplicates", "zeros", "all zeros", "largest", "line", "scales"]


@pytest.mark.parametrize("radius", [1e-3, 0.1, 5.0, 1e4, 1e30])
@pytest.mark.parametrize(("count", "columns"), [(1, 5), (2, 1), (3, 2), (6, 1000), (6, 40_000), (17, 3), (64, 500)])
@pytest.mark.parametrize("kind", KINDS)
def test_residual_promise(kind, count, columns, radius):
    assert_promise_kept(rows(kind, count, columns), radius)


@pytest.mark.parametrize("kind", ["outliers", "offset"])
@pytest.mark.parametrize(("count", "columns"), [(6, 1_000_000), (64, 50_000)])
def test_residual_promise_on_long_parts(kind, count, columns):
    assert_promise_kept(rows(kind, count, columns), 5.0)


@pytest.mark.parametrize("eps", [1e-8, 1e-4, 0.5])
def test_residual_promise_for_other_eps(eps):
    assert_promise_kept(rows("outliers", 16, 300), 2.0, eps)


NUMBERS = st.floats(-(2.0**40), 2.0**40, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**40, 2.0**-126])


@st.composite
def part_and_radius(draw):
    count, columns = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    row = st.lists(NUMBERS, min_size=columns, max_size=columns)
    inputs_NP = torch.tensor(draw(st.lists(row, min_size=count, max_size=count)), dtype=torch.float32)
    return inputs_NP, 10.0 ** draw(st.floats(-9, 13))


@pytest.mark.slow
@settings(max_examples=300)
@given(part_and_radius())
@example((torch.tensor([[-1.0, 0.0], [-1.0, -2.0], [-1.0, 1.0], [2.0, 2.0]]), 7.18928646538618e-08))
@example((torch.tensor([[0.0], [0.0], [2.0**40], [-(2.0**40)]]), 1e-9))
def test_residual_promise_on_any_input(case):
    inputs_NP, radius = case
    assert_promise_kept(inputs_NP, radius)


@settings(max_examples=150)
@given(st.sampled_from(KINDS), st.integers(1, 64), st.integers(1, 300), st.floats(-6, 6), st.integers(0, 1 << 30))
def test_residual_promise_on_any_family(kind, count, columns, log_radius, seed):
    assert_promise_kept(rows(kind, count, columns, seed), 10.0**log_radius)


@pytest.mark.parametrize(
    ("inputs", "radius", "expected"),
    [
        ([[2.0, -3.0]], 0.1, [2.0, -3.0]),
        ([[0.0], [0.0], [0.0], [100.0]], 3.0, [1.0]),
        ([[0.0], [0.0], [0.0], [1e12]], 3.0, [1.0]),
        ([[0.0, 0.0], [0.0, 0.0], [3e5, 4e5]], 10.0, [3.0, 4.0]),
        ([[1.0, 1.0], [3.0, 5.0]], 10.0, [2.0, 3.0]),
    ],
    ids=["one row", "the outlier pulls by the radius", "however far it is", "towards itself", "nobody clipped"],
)
def test_worked_numbers(inputs, radius, expected):
    assert centered_clip(torch.tensor(inputs), radius=radius).tolist() == pytest.approx(expected, rel=3e-6)


@pytest.mark.parametrize("radius", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("kind", ["plain", "outliers", "zeros", "duplicates"])
def test_equals_the_plain_form_iterated_to_the_end(kind, radius):
    inputs_NP = rows(kind, 7, 12)
    expected_P = reference(inputs_NP, radius)
    error = float((centered_clip(inputs_NP, radius=radius).double() - expected_P).norm())
    # The residual allows n eps tau; divided by the curvature, which is at least the weights' sum without slopes.
    assert error <= 2e-5 * radius


def test_outliers_a_thousand_times_larger_cost_no_digits():
    """Error at most 1e-6 of the honest rows' scale against float64, with a third of the rows 1000 times larger."""
    inputs_NP = rows("outliers", 6, 20_000)
    radius = 150.0
    expected_P = reference(inputs_NP, radius, steps=2_000)
    error = float((centered_clip(inputs_NP, radius=radius).double() - expected_P).norm())
    assert error <= 1e-6 * math.sqrt(20_000)


def test_is_the_mean_when_the_radius_is_huge():
    inputs_NP = rows("plain", 9, 5000)
    torch.testing.assert_close(centered_clip(inputs_NP, radius=1e9), mean(inputs_NP), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shift", [1.0, -1024.0, 2.0**20])
def test_moves_with_its_inputs(shift):
    inputs_NP = (rows("outliers", 6, 50) * 4).round() / 4
    shifted_P = centered_clip(inputs_NP + shift, radius=3.0)
    expected_P = centered_clip(inputs_NP, radius=3.0) + shift
    assert torch.equal((inputs_NP + shift) - shift, inputs_NP), "the shift itself must not round"
    bound = 2.0**-22 * float(shifted_P.double().norm()) + 1e-4
    assert float((shifted_P.double() - expected_P.double()).norm()) <= bound


def test_scales_with_its_inputs():
    """Powers of two change no digit, so the bytes agree."""
    inputs_NP = rows("outliers", 6, 50)
    assert torch.equal(
        centered_clip(inputs_NP * 2.0**20, radius=2.0**20), centered_clip(inputs_NP, radius=1.0) * 2.0**20
    )


def test_does_not_depend_on_the_order_of_rows():
    inputs_NP = rows("outliers", 16, 400)
    shuffled_NP = inputs_NP[torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(
        centered_clip(shuffled_NP, radius=20.0), centered_clip(inputs_NP, radius=20.0), rtol=1e-5, atol=1e-6
    )


def test_repeats_bit_for_bit():
    inputs_NP = rows("outliers", 6, 100_000)
    assert torch.equal(centered_clip(inputs_NP), centered_clip(inputs_NP.clone()))


@pytest.mark.parametrize("strength", [1e3, 1e6, 1e12])
def test_an_attacker_moves_it_by_a_bounded_amount(strength):
    """Two of six pull with at most `radius` each against four honest rows that hold with their full distance."""
    honest_NP = rows("plain", 4, 100) * 0.01
    attack_NP = torch.full((2, 100), strength)
    moved = centered_clip(torch.cat([honest_NP, attack_NP]), radius=1.0) - honest_NP.mean(dim=0)
    assert float(moved.norm()) <= 2 * 1.0 / 4 + 1e-3


@pytest.mark.parametrize(
    ("kind", "share_of_distance", "at_most"),
    [("plain", 10.0, 2), ("plain", 0.5, 6), ("plain", 1e-3, 6), ("outliers", 1.5, 4), ("outliers", 1e-3, 8),
     ("offset", 1.5, 4), ("offset", 1e-3, 10), ("zeros", 1e-3, 12), ("duplicates", 1e-3, 4), ("scales", 1e-3, 14)],
)  # fmt: skip
def test_iterations_stay_few(kind, share_of_distance, at_most, record_property):
    """Recorded counts at n = 6, P = 3640, the radius as a share of the honest rows' distance from their centre."""
    taken = fixed_point(rows(kind, 6, 3640), radius=share_of_distance * math.sqrt(3640)).iterations
    record_property("iterations", taken)
    assert 1 <= taken <= at_most


@pytest.mark.parametrize("eps", [0.0, 1e-9, 1.0, -1.0, math.nan])
def test_eps_out_of_range_is_refused(eps):
    with pytest.raises(ValueError, match="eps"):
        centered_clip(torch.ones(2, 2), eps=eps)


def test_rows_that_lie_apart_give_the_same_bits() -> None:
    inputs_NP = torch.randn(5, 3000, generator=torch.Generator().manual_seed(3)) * 4
    together, apart = fixed_point(inputs_NP, radius=2.0), fixed_point([*inputs_NP.clone()], radius=2.0)
    assert together.value_P.equal(apart.value_P) and together.iterations == apart.iterations


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("apart", [False, True])
def test_a_row_that_is_not_finite_is_named(value: float, apart: bool) -> None:
    inputs_NP = torch.ones(6, 700)
    inputs_NP[3, 699] = value
    with pytest.raises(ValueError, match="row 3 of the inputs is not finite"):
        fixed_point([*inputs_NP] if apart else inputs_NP)


def test_rows_that_lie_apart_must_be_of_one_length() -> None:
    with pytest.raises(ValueError, match="pass float32 rows"):
        fixed_point([torch.ones(3), torch.ones(4)])
