"""The undefended mean."""

import pytest
import torch

from btard.node.aggregation import mean


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 2.0]], [1.0, 2.0]),
        ([[1.0, 2.0], [3.0, -2.0]], [2.0, 0.0]),
        ([[0.1], [0.1], [0.1]], [0.1]),
        ([[2.0**38], [1.0], [-(2.0**38)]], [1 / 3]),
    ],
    ids=["one row", "two rows", "equal rows", "cancelling outliers"],
)
def test_worked_numbers(rows, expected):
    assert torch.equal(mean(torch.tensor(rows)), torch.tensor(expected))


def test_equals_the_float64_mean_rounded_once():
    inputs_NP = torch.randn(64, 40_000, generator=torch.Generator().manual_seed(0)) * 1000
    torch.testing.assert_close(mean(inputs_NP), inputs_NP.double().mean(dim=0).float(), rtol=2**-23, atol=0)
