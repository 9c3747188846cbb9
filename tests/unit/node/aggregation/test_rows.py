"""What every rule checks first, and sums of rows."""

import math

import pytest
import torch

from btard.node.aggregation import centered_clip, mean, median
from btard.node.aggregation.rows import block_columns, blocks, check_radius, combine, to_float32

RULES = pytest.mark.parametrize("rule", [centered_clip, mean, median], ids=lambda rule: rule.__name__)


@RULES
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_a_row_that_is_not_finite_is_named(rule, bad):
    inputs_NP = torch.ones(4, 7)
    inputs_NP[2, 5] = bad
    with pytest.raises(ValueError, match="row 2 of the inputs is not finite"):
        rule(inputs_NP)


@RULES
@pytest.mark.parametrize(
    "inputs",
    [torch.ones(3), torch.ones(0, 3), torch.ones(2, 2, 2), torch.ones(2, 3, dtype=torch.float64)],
    ids=["one axis", "no rows", "three axes", "float64"],
)
def test_other_shapes_and_types_are_refused(rule, inputs):
    with pytest.raises(ValueError, match="pass float32 rows"):
        rule(inputs)


@RULES
def test_an_empty_part_has_an_empty_aggregate(rule):
    assert rule(torch.empty(3, 0)).shape == (0,)


@RULES
def test_inputs_are_not_changed_and_the_value_is_fresh(rule):
    inputs_NP = torch.randn(1, 9)
    before_NP = inputs_NP.clone()
    value_P = rule(inputs_NP)
    assert value_P.data_ptr() != inputs_NP.data_ptr()
    assert torch.equal(inputs_NP, before_NP)
    assert value_P.dtype == torch.float32
    assert value_P.is_contiguous()


@RULES
def test_minus_zero_has_the_bytes_of_zero(rule):
    assert not rule(torch.full((3, 4), -0.0)).signbit().any()


@RULES
def test_any_memory_layout_gives_the_same_bytes(rule):
    inputs_NP = torch.randn(6, 500, generator=torch.Generator().manual_seed(3))
    assert torch.equal(rule(inputs_NP), rule(inputs_NP.T.contiguous().T))


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_a_radius_out_of_range_is_refused(radius):
    with pytest.raises(ValueError, match="must be a positive, finite number"):
        check_radius(radius)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (6, 100_000), (64, 8192), (64, 8193), (256, 5000)])
def test_blocks_cover_each_column_once(rows, columns):
    covered = [i for block in blocks(rows, columns) for i in range(block.start, block.stop)]
    assert covered == list(range(columns))
    assert all(block.stop - block.start <= block_columns(rows) for block in blocks(rows, columns))


def test_combine_sums_in_float64():
    inputs_NP = torch.tensor([[1e8, 1.0], [1.0, 2.0], [-1e8, 4.0]])
    assert combine(inputs_NP, torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64)).tolist() == [0.5, 6.0]


def test_combine_crosses_block_borders():
    inputs_NP = torch.randn(3, 2 * block_columns(3) + 5, generator=torch.Generator().manual_seed(1))
    coefficients_N = torch.tensor([0.2, -1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(combine(inputs_NP, coefficients_N), coefficients_N @ inputs_NP.double())


def test_to_float32_rounds_to_nearest():
    assert to_float32(torch.tensor([1 + 2.0**-25, -0.0], dtype=torch.float64)).tolist() == [1.0, 0.0]
