"""The split of a vector, and the radius of a part."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.node.protocol.attempt.partition import Split, part_radius


@given(st.integers(1, 10_000), st.integers(1, 300))
def test_parts_are_contiguous_and_differ_by_at_most_one(dimension: int, count: int) -> None:
    split = Split(dimension, count)
    bounds = split.bounds
    assert (len(bounds), bounds[0][0], bounds[-1][1]) == (count, 0, dimension)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    sizes = [split.size(part) for part in range(count)]
    assert max(sizes) - min(sizes) <= 1
    assert split.largest == max(sizes)
    assert min(sizes) >= 1 or dimension < count


@pytest.mark.parametrize(("dimension", "count", "sizes"), [(6, 6, [1] * 6), (7, 3, [2, 2, 3]), (10, 4, [2, 3, 2, 3])])
def test_sizes(dimension: int, count: int, sizes: list[int]) -> None:
    assert [Split(dimension, count).size(part) for part in range(count)] == sizes


def test_the_radius_of_a_genesis_part_is_tau() -> None:
    assert part_radius(5.0, 16, 6, 96) == pytest.approx(5.0)


@given(st.integers(6, 1000), st.integers(2, 6))
def test_the_total_radius_does_not_change_when_bans_split_the_vector_anew(dimension: int, active: int) -> None:
    split = Split(dimension, active)
    total = math.fsum(part_radius(5.0, split.size(part), 6, dimension) ** 2 for part in range(active))
    assert total == pytest.approx(6 * 25.0)
