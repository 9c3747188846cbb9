"""The coordinate-wise median."""

import pytest
import torch

from btard.node.aggregation import median


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[3.0, -1.0]], [3.0, -1.0]),
        ([[1.0], [4.0]], [2.5]),
        ([[5.0], [1.0], [1e30]], [5.0]),
        ([[0.0, 8.0], [1.0, 6.0], [2.0, 4.0], [9.0, -2.0]], [1.5, 5.0]),
    ],
    ids=["one row", "two rows: their average", "odd", "even: the average of the middle two"],
)
def test_worked_numbers(rows, expected):
    assert median(torch.tensor(rows)).tolist() == expected


def test_does_not_depend_on_the_order_of_rows():
    generator = torch.Generator().manual_seed(5)
    inputs_NP = torch.randn(10, 1000, generator=generator)
    assert torch.equal(median(inputs_NP), median(inputs_NP[torch.randperm(10, generator=generator)]))


def test_a_minority_cannot_move_it_out_of_the_honest_range():
    inputs_NP = torch.randn(7, 300, generator=torch.Generator().manual_seed(6))
    honest_NP = inputs_NP[3:].clone()
    inputs_NP[:3] = 1e30
    value_P = median(inputs_NP)
    assert (value_P >= honest_NP.amin(dim=0)).all()
    assert (value_P <= honest_NP.amax(dim=0)).all()


def test_crosses_block_borders():
    inputs_NP = torch.randn(3, 70_001, generator=torch.Generator().manual_seed(7))
    assert torch.equal(median(inputs_NP), inputs_NP.median(dim=0).values)
