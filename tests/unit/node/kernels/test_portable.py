"""node/kernels/portable.py: torch in float64 is the oracle; no width, thread or setting changes a bit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import astuple

import pytest
import torch
from blake3 import blake3
from torch import Tensor

from btard.node.errors import BackendError, ConfigError
from btard.node.kernels import portable
from btard.node.training.models import lenet, transformer
from tests.portable.digests import SHAPE, inputs, windows

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here: no portable arithmetic")

RELATIVE_ERROR = 1e-6
"""Of a layer's gradient, in L2, against float64; torch's float32 gradient has 2e-7, ours 3e-7."""

RELATIVE_ERROR_OF_TEXT = 2e-6
"""The same of a transformer, which is deeper; torch's has 6e-7, ours 9e-7."""

GRADIENT = "37b0c3e98bfb9266b34bf95035346df2"
"""Digest of a gradient, on whatever processor this runs."""
OF_TEXT = "84c0578da48066d1809f1a5e14f51de7"
"""The same of a transformer."""

ODD = transformer.Shape(characters=30, context=20, width=20, blocks=2)
"""Neither places nor features are whole vectors."""

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


def test_cosine_and_gelu_are_as_near_as_they_say() -> None:
    turns = torch.arange(-(2**24), 2**24, 97).float() * 2.0**-23
    assert float((portable.cosine(turns) - (2 * torch.pi * turns.double()).cos()).abs().max()) < 2e-7
    values = torch.cat([torch.linspace(-20, 20, 400_001), torch.linspace(-0.1, 0.1, 50_001)])
    wanted = values.double().requires_grad_()
    activated = torch.nn.functional.gelu(wanted)
    activated.sum().backward()
    assert wanted.grad is not None
    for ours, true in zip(portable.gelu(values), (activated.detach(), wanted.grad), strict=True):
        assert float(((ours - true).abs() / values.double().abs().clamp(min=1)).max()) < 3e-7


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


@pytest.mark.parametrize(
    ("shape", "batch"),
    [(SHAPE, 1), (SHAPE, 5), (ODD, 1), (ODD, 3), (ODD, 16), (transformer.Shape(5, 1, 4, 1), 2)],
    ids=["default 1", "default 5", "odd 1", "odd 3", "odd 16", "smallest"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_gradient_of_text_is_torchs_layer_by_layer(shape: transformer.Shape, batch: int, seed: int) -> None:
    generator, layout = torch.Generator().manual_seed(seed), shape.layout()
    parameters_D = transformer.initial(layout, generator, portable=True)
    parameters_D += 0.1 * torch.randn(len(parameters_D), generator=generator)
    text_BT, targets_BT = torch.randint(shape.characters, (2, batch, shape.context), generator=generator)
    gradient_D, loss = portable.transformer_gradient(astuple(shape), parameters_D, text_BT, targets_BT)
    true_D, expected = transformer.gradient(shape, layout, parameters_D.double(), text_BT, targets_BT)
    assert loss == pytest.approx(expected, rel=1e-6)
    for each in layout:
        true = each.view(true_D)
        assert float((each.view(gradient_D) - true).norm() / true.norm()) < RELATIVE_ERROR_OF_TEXT, each.name


def test_nothing_changes_a_bit_of_a_gradient_of_text(settings: None) -> None:
    given = windows(17, ODD)  # a whole group of windows and a part of one
    given[0][: len(given[0]) // 2] *= 2.0**-60
    first_D, loss = portable.transformer_gradient(astuple(ODD), *given)
    assert bool((first_D != 0).any()) and blake3(first_D.numpy().tobytes()).hexdigest(length=16) == OF_TEXT
    for width in portable.widths():
        for threads, flushing in ((1, False), (2, False), (1, True)):
            torch.set_num_threads(threads)
            torch.set_flush_denormal(flushing)
            again_D, again = portable.transformer_gradient(astuple(ODD), *given, width)
            assert again_D.numpy().tobytes() == first_D.numpy().tobytes()
            assert again == loss


@pytest.mark.parametrize("shape", [SHAPE, ODD], ids=["default", "odd"])
def test_scores_of_text_are_torchs(shape: transformer.Shape) -> None:
    parameters_D, text_BT, _ = windows(3, shape)
    expected = transformer.logits(shape, shape.layout(), parameters_D.double(), text_BT)
    for width in portable.widths():
        scores_BTV = portable.transformer_scores(astuple(shape), parameters_D, text_BT, width)
        assert float((scores_BTV - expected).norm() / expected.norm()) < RELATIVE_ERROR_OF_TEXT
        assert torch.equal(scores_BTV, portable.transformer_scores(astuple(shape), parameters_D, text_BT))


@pytest.mark.parametrize("character", [-1, ODD.characters, 2**40])
@pytest.mark.parametrize("which", [1, 2])
def test_a_character_of_no_alphabet_is_refused(which: int, character: int) -> None:
    given = windows(2, ODD)
    given[which][1, 3] = character
    with pytest.raises(ValueError, match="a character is not one of 0 to 29"):
        portable.transformer_gradient(astuple(ODD), *given)


def test_an_arithmetic_is_native_or_portable() -> None:
    assert (portable.chosen("portable", "a"), portable.chosen("native", "a")) == (True, False)
    with pytest.raises(ConfigError, match=r"^task 'a': arithmetic 'exact' is unknown; use native or portable$"):
        portable.chosen("exact", "a")
