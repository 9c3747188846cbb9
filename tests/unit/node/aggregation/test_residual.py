"""The judge's float64 residual."""

import math

import pytest
import torch

from btard.node.aggregation.residual import clip_weights, distances, residual


@pytest.mark.parametrize(
    ("rows", "value", "radius", "expected"),
    [
        ([[3.0, 4.0]], [0.0, 0.0], 10.0, 5.0),
        ([[3.0, 4.0]], [0.0, 0.0], 2.0, 2.0),
        ([[3.0, 4.0], [-3.0, -4.0]], [0.0, 0.0], 2.0, 0.0),
        ([[3.0, 4.0], [0.0, 1.0]], [0.0, 0.0], 2.5, math.hypot(1.5, 3.0)),
        ([[3.0, 4.0], [1.0, 0.0]], [0.0, 0.0], math.inf, math.hypot(4.0, 4.0)),
    ],
    ids=["unclipped", "clipped", "balanced", "one of two clipped", "a rule that does not clip"],
)
def test_worked_numbers(rows, value, radius, expected):
    norm, norms = residual(torch.tensor(rows), torch.tensor(value), radius)
    assert norm == pytest.approx(expected, rel=1e-14, abs=1e-15)
    assert norms == [math.hypot(*row) for row in rows]


def test_weights_are_exactly_one_within_the_radius():
    weights_N = clip_weights(torch.tensor([0.0, 2.0, 5.0, 10.0], dtype=torch.float64), 5.0)
    assert weights_N.tolist() == [1.0, 1.0, 1.0, 0.5]
    assert clip_weights(torch.tensor([49.0], dtype=torch.float64), 49.0).tolist() == [1.0], "whose reciprocal rounds"


def test_distances_keep_float64_digits_beside_a_large_offset():
    inputs_NP = torch.full((2, 50_000), 2.0**20)
    inputs_NP[1] += 0.125
    assert distances(inputs_NP, inputs_NP[0]).tolist() == pytest.approx([0.0, 0.125 * math.sqrt(50_000)], rel=1e-12)
