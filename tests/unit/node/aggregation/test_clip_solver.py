"""CenteredClip's iteration in coefficient space: where it must converge, and in how many steps."""

import math

import pytest
import torch

from btard.node.aggregation.clip_solver import solve
from btard.node.aggregation.gram import gram_about_median

ROUNDING = 1e-13


def gram(rows):
    rows_NP = torch.tensor(rows, dtype=torch.float64)
    return rows_NP @ rows_NP.T


@pytest.mark.parametrize(
    ("rows", "radius", "expected"),
    [
        ([[2.0]], 1.0, [2.0]),
        ([[-1.0], [2.0]], 5.0, [0.5]),
        ([[-1.0], [0.0], [10.0]], 3.0, [1.0]),
        ([[3.0, 0.0], [-3.0, 0.0], [0.0, 4.0], [0.0, -4.0]], 1.0, [0.0, 0.0]),
    ],
    ids=["one row", "mean of two", "outlier pulls by the radius", "a cross"],
)
def test_worked_numbers(rows, radius, expected):
    solution = solve(gram(rows), radius, 1e-9, ROUNDING)
    assert solution.certain
    rows_NP = torch.tensor(rows, dtype=torch.float64)
    value = (solution.coefficients_N @ rows_NP).tolist()
    assert value == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("radius", [1e-12, 1e-6, 0.1, 1.0, 1e6])
@pytest.mark.parametrize(
    "rows",
    [
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 5.0]],
        [[-1.0, 0.0], [-1.0, -2.0], [-1.0, 1.0], [2.0, 2.0]],
        [[0.0, 0.8991, 0.0], [0.0, -0.9694, 0.2506], [0.0, 0.9003, 0.0], [0.0, 0.0, 0.0]],
        [[1.0, 0.0], [-0.5, math.sqrt(0.75)], [-0.5, -math.sqrt(0.75)], [1e-9, 0.0]],
        [[1.0], [2.0], [3.0], [100.0]],
        [[1e6, 0.0], [-1e6, 1.0], [0.0, 1e-3], [1e-3, 0.0], [0.0, 0.0]],
    ],
    ids=["a lone row wins", "the minimum at a corner", "near a corner", "hardly a corner", "a line", "scales"],
)
def test_converges_where_plain_steps_crawl(rows, radius):
    """At a row that is itself the minimum Weiszfeld's steps shrink without end: Newton's from the row do not."""
    solution = solve(gram(rows), radius, 1e-6, ROUNDING)
    assert solution.iterations <= 60
    assert float(solution.coefficients_N.sum()) == pytest.approx(1, abs=1e-9)


def test_says_so_when_rounding_hides_the_answer():
    """Distances of 1e-6 under norms of 1e3 have no digits left in a Gram matrix."""
    rows_NP = torch.full((4, 8), 1e3, dtype=torch.float64) + 1e-6 * torch.eye(4, 8, dtype=torch.float64)
    assert not solve(rows_NP @ rows_NP.T, 1e-7, 1e-6, ROUNDING).certain


def test_repeats_bit_for_bit():
    rows_NP = torch.randn(9, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = (solve(rows_NP @ rows_NP.T, 0.01, 1e-6, ROUNDING) for _ in range(2))
    assert torch.equal(first.coefficients_N, second.coefficients_N)
    assert first.iterations == second.iterations


def test_converges_between_two_groups_that_pull_alike():
    """Three against three, each beyond the other's radius: the objective is nearly flat from the one to the other."""
    rows_NP = torch.tensor([
        [41.953, -91.713], [0.399, 1.207], [0.317, 1.124], [42.382, -92.65], [42.114, -92.066], [0.712, 1.075],
    ])  # fmt: skip
    solution = solve(gram_about_median(rows_NP), 19.32, 1e-6, ROUNDING)
    assert solution.certain
    assert solution.iterations <= 60
