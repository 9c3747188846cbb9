"""The sorting network behind the medians."""

import itertools

import pytest
import torch

from btard.node.aggregation.order import _selection_network, middle, ordered


@pytest.mark.parametrize("count", range(1, 13))
def test_network_is_right_on_all_zeros_and_ones(count):
    """The zero-one principle: a network that is right on every 0/1 input is right on every input."""
    columns_NB = torch.tensor(list(itertools.product([0.0, 1.0], repeat=count))).T.contiguous()
    sorted_NB = columns_NB.sort(dim=0).values
    expected_B = (sorted_NB[(count - 1) // 2] + sorted_NB[count // 2]) / 2
    assert torch.equal(middle(columns_NB), expected_B)


@pytest.mark.parametrize("count", [13, 16, 17, 31, 64, 100, 256])
def test_network_agrees_with_a_sort(count):
    block_NB = torch.randn(count, 200, generator=torch.Generator().manual_seed(count))
    sorted_NB = block_NB.sort(dim=0).values
    assert torch.equal(middle(block_NB), sorted_NB[(count - 1) // 2] * 0.5 + sorted_NB[count // 2] * 0.5)


def test_the_largest_numbers_do_not_overflow():
    largest = torch.finfo(torch.float32).max
    assert middle(torch.full((4, 2), largest)).tolist() == [largest, largest]


def test_comparators_that_the_middle_does_not_read_are_left_out():
    assert sum(c.keep_low + c.keep_high for c in _selection_network(6, 2, 4)) == 20
    assert _selection_network(1, 0, 1) == ()


@pytest.mark.parametrize("count", range(1, 18))
def test_any_run_of_places_is_what_sorting_gives(count):
    rows = torch.randn(count, 40, generator=torch.Generator().manual_seed(count))
    expected = rows.sort(dim=0).values
    for first in range(count):
        for stop in range(first + 1, count + 1):
            assert torch.equal(torch.stack(ordered(rows, first, stop)), expected[first:stop])
