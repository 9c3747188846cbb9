"""node/kernels/portable.py: torch in float64 is the oracle; no width, thread or setting changes a bit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from blake3 import blake3
from torch import Tensor

from btard.node.errors import BackendError
from btard.node.kernels import portable
from btard.node.training.models import lenet
from tests.portable.digests import inputs

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here: no portable arithmetic")

RELATIVE_ERROR = 1e-6
"""Of a layer's gradient, in L2, against float64; torch's float32 gradient has 2e-7, ours 3e-7."""

GRADIENT = "37b0c3e98bfb9266b34bf95035346df2"
"""Digest of a gradient, on whatever processor this runs."""

EXTREMES = torch.tensor(
    [0.0, -0.0, torch.inf, -torch.inf, torch.nan, -1.0, 1.0, 88.8, -87.5, -103.9, -200.0, 1e-45, 3e38]
)


def ulps(ours: Tensor, true: Tensor) -> float:
    """Largest error in units of the last place of the rounded float64 value."""
    rounded = true.float()
    unit = torch.nextafter(rounded.abs(), torch.tensor(torch.inf)).double() - rounded.abs().double()
    return float(((ours.double() - true).abs() / unit).max())


def layer_errors(ours_D: Tensor, given: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Relative L2 error of each layer's gradient against float64."""
    parameters_D, inputs_B, targets_B, channels, hidden = given
    kept = lenet.Dropout(channels.double(), hidden.double())
    true_D, _ = lenet.gradient(parameters_D.double(), inputs_B.double(), targets_B, kept)
    errors_D = ours_D.double() - true_D
    return {each.name: float(each.view(errors_D).norm() / each.view(true_D).norm()) for each in lenet.LAYOUT}


@pytest.fixture
def settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_exp_and_log_are_within_two_units_in_the_last_place() -> None:
    exponents = torch.cat([torch.linspace(-103, 88.7, 200_001), torch.linspace(-0.4, 0.4, 50_001)])
    assert ulps(portable.exp(exponents), exponents.double().exp()) < 2
    positive = torch.arange(1, 0x7F800000, 9_973, dtype=torch.int32).view(torch.float32)  # subnormal ones too
    near_one = torch.linspace(0.5, 2, 200_001)
    for values in (positive, near_one[near_one != 1]):
        assert ulps(portable.log(values), values.double().log()) < 2


@pytest.mark.parametrize("function", ["exp", "log"])
def test_extremes_are_torchs(function: str) -> None:
    ours, expected = getattr(portable, function)(EXTREMES), getattr(torch, function)(EXTREMES)
    torch.testing.assert_close(ours, expected, rtol=2e-7, atol=3e-45, equal_nan=True)


@pytest.mark.parametrize(("m", "n", "depth"), [(1, 1, 1), (5, 16, 3), (7, 33, 300), (50, 19, 513), (11, 8, 0)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_adds_one_after_the_other(m: int, n: int, depth: int, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(m)
    left = torch.randn(depth, m, generator=generator).t() if transposed else torch.randn(m, depth, generator=generator)
    right = torch.randn(depth, n, generator=generator)
    expected = torch.zeros(m, n)
    for k in range(depth):
        expected += left[:, k, None] * right[k]
    for width in portable.widths():
        assert torch.equal(portable.product(left, right, width), expected)


@pytest.mark.parametrize("batch", [1, 16, 33, 256])
def test_a_gradient_is_torchs_layer_by_layer(batch: int) -> None:
    given = inputs(batch)
    gradient_D, loss = portable.lenet_gradient(*given)
    assert max(layer_errors(gradient_D, given).values()) < RELATIVE_ERROR
    _, expected = lenet.gradient(*given[:3], lenet.Dropout(*given[3:]))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_of_equal_values_the_first_one_is_pooled() -> None:
    parameters_D, inputs_B, *rest = inputs(17)
    given = (parameters_D, torch.full_like(inputs_B, 0.75), *rest)
    gradient_D, _ = portable.lenet_gradient(*given)
    assert max(layer_errors(gradient_D, given).values()) < RELATIVE_ERROR


def test_neither_width_nor_repetition_nor_threads_nor_flushing_changes_a_bit(settings: None) -> None:
    given = inputs(40)
    given[0][: lenet.DIMENSION // 2] *= 2.0**-60  # subnormal numbers in between
    first_D, loss = portable.lenet_gradient(*given)
    assert bool((first_D != 0).any())
    for width in portable.widths():
        for threads, flushing in ((1, False), (2, False), (1, True)):
            torch.set_num_threads(threads)
            torch.set_flush_denormal(flushing)
            again_D, again = portable.lenet_gradient(*given, width)
            assert again_D.numpy().tobytes() == first_D.numpy().tobytes()
            assert again == loss


def test_every_processor_finds_this_gradient() -> None:
    gradient_D, _ = portable.lenet_gradient(*inputs(19))
    assert blake3(gradient_D.numpy().tobytes()).hexdigest(length=16) == GRADIENT


def test_without_a_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "compiled", lambda *files: None)
    portable.library.cache_clear()
    with pytest.raises(BackendError, match=r"^--arithmetic portable: no C compiler here .*use --arithmetic native$"):
        portable.library()


def test_scores_are_torchs() -> None:
    parameters_D, inputs_B, *_ = inputs(33)
    expected = lenet.logits(parameters_D.double(), inputs_B.double()).t()
    for width in portable.widths():
        scores = portable.lenet_scores(parameters_D, inputs_B, width)
        assert float((scores - expected).norm() / expected.norm()) < RELATIVE_ERROR
        assert torch.equal(scores, portable.lenet_scores(parameters_D, inputs_B))
