"""Portable arithmetic for any module: near torch's in float64, the same bits elsewhere, and honest about the rest."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from btard.node.kernels.dispatch import Portable
from tests.portable import modules

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 4), (5, 6)),
    "linear of more dimensions": (nn.Linear(6, 4, bias=False), (2, 3, 6)),
    "convolution": (nn.Conv2d(4, 6, 3), (2, 4, 7, 6)),
    "strided, padded": (nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(2, 1)), (2, 4, 7, 9)),
    "dilated, in groups": (nn.Conv2d(4, 6, 3, dilation=2, padding=1, groups=2, bias=False), (3, 4, 8, 9)),
    "of one channel each": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),
    "over a line": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "batch norm": (nn.BatchNorm2d(4), (3, 4, 5, 5)),
    "layer norm": (nn.LayerNorm((4, 5)), (3, 4, 5)),
    "group norm": (nn.GroupNorm(2, 4), (3, 4, 5)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), (3, 4, 5, 5)),
    "maximum": (nn.MaxPool2d(3, 2, 1), (2, 3, 8, 8)),
    "mean": (nn.AvgPool2d(3, 2, 1), (2, 3, 8, 8)),
    "adaptive mean": (nn.AdaptiveAvgPool2d(1), (2, 3, 8, 8)),
    "softmax": (nn.Softmax(1), (3, 5)),
    "log softmax": (nn.LogSoftmax(0), (3, 5)),
    **{
        type(layer).__name__: (layer, (4, 7))
        for layer in (
            nn.ReLU(),
            nn.LeakyReLU(0.2),
            nn.ELU(),
            nn.GELU(),
            nn.GELU(approximate="tanh"),
            nn.SiLU(),
            nn.Sigmoid(),
            nn.Tanh(),
            nn.Softplus(),
            nn.Hardswish(),
            nn.Hardtanh(),
            nn.LogSigmoid(),
        )
    },
}
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross entropy": lambda x: functional.cross_entropy(x, torch.arange(4) % 3),
    "smoothed": lambda x: functional.cross_entropy(x, torch.arange(4) % 3, label_smoothing=0.1),
    "squares": lambda x: functional.mse_loss(x, torch.ones_like(x)),
    "absolute": lambda x: functional.l1_loss(x, torch.ones_like(x)),
    "huber": lambda x: functional.smooth_l1_loss(x, torch.ones_like(x)),
    "binary": lambda x: functional.binary_cross_entropy_with_logits(x, torch.ones_like(x)),
    "with decay": lambda x: (x**2).sum() + x.norm() + x.var(0).mean() + x.std() + torch.log1p(x.exp()).sqrt().mean(),
}


def slopes(compute: Callable[[Tensor], Tensor], inputs: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The result and its gradients, by everything that it depends on."""
    inputs = inputs.clone().requires_grad_()
    outputs = compute(inputs)
    weights = ((torch.arange(outputs.numel()) % 7) - 2).to(outputs.dtype).view(outputs.shape)
    return [outputs, *torch.autograd.grad((outputs * weights).sum(), [inputs, *parameters])]


def same(compute: Callable[[torch.dtype], Callable[[Tensor], Tensor]], inputs: Tensor, mode: Portable, parameters: list[
    list[Tensor]]) -> None:  # fmt: skip
    with mode.on():
        found = slopes(compute(torch.float32), inputs, parameters[0])
    wanted = slopes(compute(torch.float64), inputs.double(), parameters[1])
    for mine, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=2e-5, atol=2e-6)
    assert not mode.foreign


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_torchs_in_double_precision(name: str) -> None:
    layer, shape = LAYERS[name]
    torch.manual_seed(1)
    exact = copy.deepcopy(layer).double()
    inputs = torch.randn(shape)
    parameters = [list(each.parameters()) for each in (layer, exact)]
    same(lambda kind: layer if kind == torch.float32 else exact, inputs, Portable(), parameters)


@pytest.mark.parametrize(
    "compute",
    [torch.sum, torch.mean, torch.var, lambda x: x.view(2, -1).sum(1), lambda x: x @ x, lambda x: x[None] @ x[:, None]],
    ids=["sum", "mean", "variance", "along one dimension", "dot product", "matrix product"],
)
def test_a_long_sum_keeps_its_bits(compute: Callable[[Tensor], Tensor]) -> None:
    """100,000 terms that all round the same way, one after the other, would lose a thousandth."""
    torch.manual_seed(4)
    terms = torch.rand(100_000) + 1
    with Portable().on():
        found = compute(terms)
    torch.testing.assert_close(found.double(), compute(terms.double()), rtol=2e-6, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_torchs_in_double_precision(name: str) -> None:
    torch.manual_seed(2)
    same(lambda _: LOSSES[name], torch.randn(4, 3), Portable(), [[], []])


@pytest.mark.parametrize("name", modules.MODELS)
def test_a_model_is_near_torchs_own(name: str) -> None:
    inputs, targets = modules.batch(name)
    torch.manual_seed(3)
    model = modules.MODELS[name][0]().eval()  # draws are others here
    mode = Portable()
    with mode.on():
        mine = torch.autograd.grad(functional.cross_entropy(model(inputs), targets), list(model.parameters()))
    exact = copy.deepcopy(model).double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    wanted = torch.autograd.grad(functional.cross_entropy(exact(inputs), targets), list(exact.parameters()))
    for each, right in zip(mine, wanted, strict=True):
        torch.testing.assert_close(each.double(), right, rtol=1e-4, atol=1e-6)
    assert not mode.foreign


def test_what_has_no_portable_form_is_named_and_computed() -> None:
    mode, values = Portable(), torch.rand(3, 4)
    with mode.on():
        found = values.cumsum(0) + values.double().sum().float() + torch.erfinv(values)
        values.argmax(), values.long().sum(), values.view(4, 3).flip(0)
    torch.testing.assert_close(found, values.cumsum(0) + values.double().sum().float() + torch.erfinv(values))
    assert mode.foreign == {"cumsum", "sum", "erfinv"}
    assert not torch.backends.mha.get_fastpath_enabled() or torch._C._get_mkldnn_enabled(), "switches are as before"


def test_every_form_of_a_product_and_results_into_given_tensors() -> None:
    torch.manual_seed(6)
    a, b, c, v, w = torch.randn(4, 3), torch.randn(3, 5), torch.randn(4, 5), torch.randn(3), torch.randn(5)
    batch, others = torch.randn(2, 4, 3), torch.randn(2, 3, 5)
    mode, out = Portable(), [torch.empty(4, 5) for _ in range(2)]
    forms: list[Callable[..., Tensor]] = [
        lambda a, b, c, v, w, *_: a @ b,
        lambda a, b, c, v, w, *_: a @ v,
        lambda a, b, c, v, w, *_: v @ v,
        lambda a, b, c, v, w, *_: v @ b,
        lambda a, b, c, v, w, *_: torch.addmm(w, a, b, beta=0.5, alpha=3.0),
        lambda a, b, c, v, w, x, y: x @ y,
        lambda a, b, c, v, w, x, y: torch.baddbmm(c, x, y, beta=2.0),
        lambda a, b, c, v, w, *_: nn.functional.linear(v, b.T, w),
        lambda a, b, c, v, w, *_: torch.einsum("ij,jk->ki", a, b),
    ]
    given = (a, b, c, v, w, batch, others)
    for form in forms:
        with mode.on():
            found = form(*given)
        torch.testing.assert_close(found.double(), form(*(each.double() for each in given)), rtol=2e-5, atol=2e-6)
    with mode.on():
        torch.mm(a, b, out=out[0])
        torch.add(c, c, alpha=3, out=out[1])
        c.add_(c, alpha=3)
    torch.testing.assert_close(out[0], a @ b)
    assert torch.equal(out[1], c) and not mode.foreign


def test_draws_follow_the_seed_alone() -> None:
    mode = Portable()

    def drawn(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        with mode.on():
            empty = torch.empty(100, 100)
            return [functional.dropout(torch.ones(100, 100), 0.25), torch.rand(100, 100), torch.randn(100, 100),
                    empty.uniform_(-2.0, 1.0), torch.rand(100, 100)]  # fmt: skip

    first = drawn(4)
    assert all(torch.equal(*pair) for pair in zip(first, drawn(4), strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, drawn(5), strict=True))
    kept, shares, normal, spread, again = first
    assert not torch.equal(shares, again)
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    # Five standard errors of ten thousand draws.
    assert float((kept == 0.0).double().mean()) == pytest.approx(0.25, abs=5 * 0.00433)
    assert float(shares.double().mean()) == pytest.approx(0.5, abs=5 * 0.00289)
    assert float(shares.min()) >= 0.0 and float(shares.max()) < 1.0
    assert float(normal.double().mean()) == pytest.approx(0.0, abs=5 * 0.01)
    assert float(normal.double().std()) == pytest.approx(1.0, abs=5 * 0.0071)
    assert -2.0 <= float(spread.min()) < -1.9 and 0.9 < float(spread.max()) <= 1.0


def printed(*before: str, **variables: str) -> str:
    """The digests that another process finds."""
    command = [*before, sys.executable, "-m", "tests.portable.modules"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch has no other kernels here")
def test_torchs_other_kernels_change_no_bit() -> None:
    here = printed()
    assert len(here.splitlines()) == len(modules.MODELS)
    assert printed(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE") == here
    assert [modules.digest(name) for name in modules.MODELS] == [line.split()[1] for line in here.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None, reason="NOT SHOWN HERE: other processors; apt install qemu-user"
)
def test_a_processor_without_avx_finds_the_same_bits() -> None:
    assert printed("qemu-x86_64", "-cpu", "Nehalem") == printed()
