"""Gram matrices of centred rows."""

import pytest
import torch

from btard.node.aggregation import median
from btard.node.aggregation.gram import gram_about, gram_about_median, gram_rounding


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (6, 70_000), (33, 20_000)])
def test_equals_the_products_of_centred_rows(rows, columns):
    inputs_NP = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)) + 5
    centred_NP = inputs_NP.double() - median(inputs_NP).double()
    expected_NN = centred_NP @ centred_NP.T
    torch.testing.assert_close(gram_about_median(inputs_NP), expected_NN, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(gram_about(inputs_NP, median(inputs_NP).double()), expected_NN, rtol=1e-12, atol=1e-9)


def test_rounding_stays_within_its_bound():
    columns = 200_000
    inputs_NP = torch.full((4, columns), 0.1)
    exact = columns * float(torch.tensor(0.1).double()) ** 2
    gram_NN = gram_about(inputs_NP, torch.zeros(columns, dtype=torch.float64))
    assert ((gram_NN - exact).abs() <= gram_rounding(4, columns) * exact).all()


def test_the_largest_numbers_do_not_overflow():
    inputs_NP = torch.tensor([[3e38, -3e38], [-3e38, 3e38], [1.0, 1.0]])
    assert torch.isfinite(gram_about_median(inputs_NP)).all()
