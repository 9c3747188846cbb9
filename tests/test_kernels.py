"""The compiled kernels against their torch versions: the same bits where peers compare them, and no need of either."""

from __future__ import annotations

import math
import shutil
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from btard.node import build, kernels
from btard.node.aggregation import median
from btard.node.aggregation.centered_clip import fixed_point
from btard.node.aggregation.clip_solver import plain_steps
from btard.node.aggregation.gram import gram_about_median, gram_by_torch, gram_rounding
from btard.node.aggregation.order import comparators
from btard.node.aggregation.rows import combine, combine_float32, to_float32
from btard.node.config import RunConfig
from btard.node.kernels import building
from btard.node.protocol.attempt.verification import squares, sums
from btard.node.protocol.rule import Aggregated
from btard.node.training.optimisers.sgd import NesterovSgd
from btard.node.training.schedules import LearningRate

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here: the torch versions run")
REORDERED = ("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math")  # -ffast-math would change this process
SIZES = (0, 1, 7, 255, 256, 257, 8191, 8192, 8193, 16_383, 16_384, 32_769, 70_001)


def vectors(count: int, size: int, scale: float = 1.0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(size)) * scale


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_root_is_the_nearest_number_there_is(kind: torch.dtype) -> None:
    """By whole numbers: no floating-point operation judges another."""
    drawn = vectors(1, 400).flatten().abs()
    scales = 2.0 ** torch.linspace(-120, 120, 400).round()
    values = torch.cat([drawn, drawn * scales, torch.tensor([0.0, 1.0, 4.0, 2.0**-149, 3.4e38])]).to(kind)
    found = kernels.roots(values.clone())
    for value, root in zip(values.tolist(), found.tolist(), strict=True):
        step = np.spacing(np.float32(root) if kind == torch.float32 else np.float64(root))
        low, high = (Fraction(root) + sign * Fraction(float(step)) / 2 for sign in (-1, 1))
        assert max(low, 0) ** 2 <= Fraction(value) <= high**2
    assert kernels.roots(torch.tensor(9.0)).item() == 3.0 and kernels.roots(torch.ones(2, 3).T).shape == (3, 2)


@needs_compiler
def test_where_a_compiler_is_there_are_kernels() -> None:
    assert kernels.library() is not None


@needs_compiler
def test_a_library_that_reorders_sums_is_left_out_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, *REORDERED))
    monkeypatch.setattr(building, "BUILT", tmp_path)
    building.build(building.compiler(), tmp_path, building.PASSES)
    kernels.library.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="other bits than they should, so torch's passes take their place"):
            assert kernels.library() is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kernels.gram(vectors(3, 10), comparators(3)) is None
    finally:
        kernels.library.cache_clear()


@needs_compiler
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [0, 1, 5])
def test_sums_have_the_bits_of_torch(size: int, offset: int) -> None:
    whole = vectors(3, size + offset)
    whole[1] += 3.0
    gradient_P, aggregate_P, direction_P = (row_P[offset:] for row_P in whole)
    assert kernels.sums(gradient_P, aggregate_P, direction_P) == sums(gradient_P, aggregate_P, direction_P)
    assert kernels.squares(gradient_P) == squares(gradient_P)


@needs_compiler
@pytest.mark.parametrize("scale", [2.0**40, 1e-30])
def test_sums_of_large_and_of_tiny_numbers_have_the_bits_of_torch(scale: float) -> None:
    gradient_P, aggregate_P, direction_P = vectors(3, 20_000, scale)
    assert kernels.sums(gradient_P, aggregate_P, direction_P) == sums(gradient_P, aggregate_P, direction_P)


@needs_compiler
@pytest.mark.parametrize("size", SIZES)
def test_an_update_has_the_bits_of_torch(size: int) -> None:
    rule = NesterovSgd(LearningRate(0.05, 100), 0.9)
    parameters_D, state_D, gradient_D = vectors(3, size)
    for vector_D in (parameters_D, state_D, gradient_D):
        vector_D[: size // 3] = torch.tensor([-0.0, 0.0, 1e-44, -1e-39, 3e38]).repeat(size)[: size // 3]
    for step in (0, 33, 100):
        compiled = kernels.updated(parameters_D, state_D, gradient_D.chunk(3), rule.momentum, rule.rate(step))
        assert compiled is not None
        for ours, expected in zip(compiled, rule.by_torch(parameters_D, state_D, gradient_D, step), strict=True):
            assert ours.numpy().tobytes() == expected.numpy().tobytes()


@needs_compiler
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (5, 257), (6, 70_000), (7, 32_769), (33, 5_000)])
def test_a_gram_matrix_is_torchs(rows: int, columns: int) -> None:
    inputs_NP = vectors(rows, columns)
    inputs_NP[0] *= 1000.0
    ours_NN, expected_NN = kernels.gram(inputs_NP, comparators(rows)), gram_by_torch(inputs_NP)
    assert ours_NN is not None
    norms_N = expected_NN.diagonal().clamp(min=1e-30).sqrt()
    assert ((ours_NN - expected_NN).abs() <= 2 * gram_rounding(rows, columns) * torch.outer(norms_N, norms_N)).all()
    assert torch.equal(ours_NN, ours_NN.T)


@needs_compiler
@pytest.mark.parametrize("columns", [1, 7, 128, 1000, 32_769, 70_000])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 13])
def test_a_gram_matrix_has_the_bits_of_its_stated_order(rows: int, columns: int) -> None:
    """Products in eight lanes, column k in lane k mod 8, anew each 32,768 columns; then lane after lane."""
    inputs_NP = vectors(rows, columns).numpy()
    middle_P = np.sort(inputs_NP, axis=0)[[(rows - 1) // 2, rows // 2]]
    centred_NP = inputs_NP.astype(np.float64) - (middle_P[0] * np.float32(0.5) + middle_P[1] * np.float32(0.5))
    padded_NP = np.pad(centred_NP, ((0, 0), (0, -columns % 32_768)))
    expected_NN = np.zeros((rows, rows))
    for chain_NP in np.split(padded_NP, padded_NP.shape[1] // 32_768, axis=1):
        for i, j in np.ndindex(rows, rows):
            for lane in np.cumsum((chain_NP[i] * chain_NP[j]).reshape(-1, 8), axis=0)[-1]:
                expected_NN[i, j] += lane
    found_NN = kernels.gram(torch.from_numpy(inputs_NP), comparators(rows))
    assert found_NN is not None
    assert found_NN.numpy().tobytes() == expected_NN.tobytes()


def matrices(rows: int, columns: int, radius: float) -> tuple[Tensor, Tensor, float, float]:
    """Rows of which a third are far out, their Gram matrix, a radius and a goal."""
    inputs_NP = vectors(rows, columns)
    inputs_NP[: rows // 3] *= 1000.0
    gram_NN = gram_by_torch(inputs_NP)
    radius *= float(gram_NN.diagonal().sqrt().median()) + 1e-9
    return inputs_NP, gram_NN, radius, 5e-7 * rows * radius


@needs_compiler
@pytest.mark.parametrize("radius", [1e-3, 0.9, 1.1, 30.0, 1e200])
@pytest.mark.parametrize("columns", [1, 2, 40])
@pytest.mark.parametrize("rows", [1, 2, 6, 13, 64])
def test_steps_of_centered_clip_have_the_bits_of_torch(rows: int, columns: int, radius: float) -> None:
    _, gram_NN, radius, goal = matrices(rows, columns, radius)
    for end, steps in ((goal, 8), (0.0, 5), (goal, 1)):
        compiled, expected = (each(gram_NN, radius, end, 1e-12, steps) for each in (kernels.clipped, plain_steps))
        assert compiled is not None
        assert compiled[0].numpy().tobytes() == expected[0].numpy().tobytes()
        assert compiled[1:] == expected[1:]


@needs_compiler
@pytest.mark.parametrize(("rows", "radius"), [(1, 0.5), (5, 0.7), (6, 1.1), (64, 0.9)])
def test_steps_of_centered_clip_are_those_of_its_definition(rows: int, radius: float) -> None:
    inputs_NP, gram_NN, radius, goal = matrices(rows, 40, radius)
    found = kernels.clipped(gram_NN, radius, goal, 0.0, 8)
    assert found is not None
    coefficients_N, taken, residual, _ = found
    centred_NP = (inputs_NP.double() - median(inputs_NP).double()).numpy()
    value_P = np.zeros(40)
    for _ in range(taken + 1):
        weights_N = radius / np.maximum(np.linalg.norm(centred_NP - value_P, axis=1), radius)
        left = float(np.linalg.norm(weights_N @ (centred_NP - value_P)))
        reached_P, value_P = value_P, weights_N @ centred_NP / weights_N.sum()
    np.testing.assert_allclose(coefficients_N.numpy() @ centred_NP, reached_P, rtol=0, atol=1e-9 * radius)
    assert left <= residual * (1 + 1e-9) + 1e-9 * radius
    assert residual <= goal or taken == 8


@needs_compiler
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 257), (6, 70_000)])
def test_a_combination_is_torchs(rows: int, columns: int) -> None:
    inputs_NP = vectors(rows, columns)
    inputs_NP[:, 0] = -0.0
    coefficients_N = torch.rand(rows, dtype=torch.float64)
    ours_P = kernels.combined(inputs_NP, coefficients_N)
    assert ours_P is not None
    torch.testing.assert_close(ours_P, to_float32(combine(inputs_NP, coefficients_N)), rtol=2.0**-23, atol=1e-30)
    thirds_P = kernels.combined(inputs_NP, coefficients_N, 1 / 3)
    torch.testing.assert_close(thirds_P, to_float32(combine(inputs_NP, coefficients_N) / 3), rtol=2.0**-23, atol=1e-30)
    assert not bool(torch.signbit(ours_P[0]))


def test_views_of_other_layouts_are_no_other_rows() -> None:
    transposed_NP = vectors(300, 6).T
    copied_NP = transposed_NP.clone(memory_format=torch.contiguous_format)
    assert torch.equal(gram_about_median(transposed_NP), gram_about_median(copied_NP))
    coefficients_N = torch.rand(6, dtype=torch.float64)
    assert torch.equal(combine_float32(transposed_NP, coefficients_N), combine_float32(copied_NP, coefficients_N))


def test_without_a_compiler_torch_gives_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs_NP = vectors(6, 10_000, 0.1)
    inputs_NP[0] *= 1000.0
    vectors_D = vectors(3, 1000)

    def results() -> tuple[Aggregated, tuple[Tensor, Tensor], tuple[float, float]]:
        update = NesterovSgd(LearningRate(0.1, 9), 0.9).apply(vectors_D[0], vectors_D[1], vectors_D[2].chunk(2), 2)
        return fixed_point(inputs_NP), update, build.tools_of(RunConfig()).arithmetic.sums(*vectors_D)

    compiled = results()
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert kernels.gram(inputs_NP, comparators(6)) is None
    alone = results()
    assert alone[0].iterations == compiled[0].iterations
    torch.testing.assert_close(alone[0].value_P, compiled[0].value_P)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone[1], compiled[1], strict=True))
    assert alone[2] == compiled[2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_squares_are_finite_exactly_if_every_entry_is(bad: float) -> None:
    for of in (build.tools_of(RunConfig()).arithmetic.squares, squares):
        assert math.isfinite(of(torch.full((9000,), 3e38)))
        for place in (0, 8191, 8999):
            values_P = torch.full((9000,), 3e38)
            values_P[place] = bad
            assert not math.isfinite(of(values_P))
