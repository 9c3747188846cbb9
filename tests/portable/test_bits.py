"""Equal bits of the compiled kernels on other processors: a bounded part of `python -m tests.portable.digests`."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3
from torch import Tensor

from btard.node import kernels
from btard.node.aggregation.order import comparators
from btard.node.training.models import transformer
from tests.portable.digests import ARM, PLACES, Place, computed, digests, recorded

PASSES = Path(__file__).parent / "passes.c"
BATCH = 17  # one block of images and a part of one
SMALL = transformer.Shape(characters=30, context=20, width=20, blocks=2)  # the same of places, and of features
CHOSEN = tuple(
    each
    for each in PLACES
    if each.name
    in ("this processor", "x86_64 Nehalem", "x86_64 Haswell", "x86_64 Skylake-Server", "aarch64 Neoverse-N1")
)
LACKING = sorted({missing for place in CHOSEN if (missing := place.missing()) is not None})
needs_emulators = pytest.mark.skipif(
    bool(LACKING),
    reason=f"NOT SHOWN HERE: equal bits on other processors; {', '.join(LACKING)} missing: apt-get install qemu-user "
    "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
)


@pytest.mark.slow
@needs_emulators
def test_processors_of_15_years_and_arm_find_the_same_bits() -> None:
    assert len(CHOSEN) == 5
    found = list(digests(BATCH, CHOSEN, SMALL))
    assert [width for _, width, _ in found] == [found[0][1], 4, 8, 8, 4]
    assert len({digest for _, _, digest in found}) == 1, found


def passes(rows_NP: Tensor) -> bytes:
    """What tests/portable/passes.c is given: sizes, comparators, rows."""
    network = np.array(comparators(len(rows_NP)), np.int32)
    return struct.pack("<3q", *rows_NP.shape, len(network)) + network.tobytes() + rows_NP.numpy().tobytes()


def passed(rows_NP: Tensor) -> bytes:
    """What it gives, by this process's library."""
    gram_NN = kernels.gram(rows_NP, comparators(len(rows_NP)))
    assert gram_NN is not None
    solved = kernels.clipped(gram_NN, 300.0, 1e-6, 1e-12, 8)
    assert solved is not None
    vectors = (
        kernels.combined(rows_NP, solved[0], 1 / 3),
        kernels.updated(rows_NP[0], rows_NP[1], [rows_NP[2]], 0.9, 0.1),
    )
    sums, square = kernels.sums(*rows_NP[:3]), kernels.squares(rows_NP[0])
    assert vectors[0] is not None and vectors[1] is not None
    parts = [gram_NN, solved[0], torch.tensor(solved[2:], dtype=torch.float64), vectors[0]]
    parts += [torch.tensor([*sums, square], dtype=torch.float64), *vectors[1]]
    return b"".join(each.numpy().tobytes() for each in parts) + kernels.ANSWER.to_bytes(8, "little")


@pytest.mark.slow
@needs_emulators
@pytest.mark.parametrize(("rows", "columns"), [(3, 129), (5, 40_000), (13, 700), (64, 300)])
def test_passes_over_vectors_have_the_same_bits_on_every_processor(rows: int, columns: int, tmp_path: Path) -> None:
    rows_NP = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    rows_NP[0] *= 1000.0
    found = [computed(place, passes(rows_NP), tmp_path, PASSES) for place in CHOSEN]
    assert [width for width, _ in found[1:]] == [4, 8, 8, 4]
    assert {result for _, result in found} == {passed(rows_NP)}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(ARM) is None or shutil.which("qemu-aarch64") is None, reason="no Arm compiler or qemu")
def test_a_fused_product_in_a_pass_would_be_seen(tmp_path: Path) -> None:
    fused = Place("Arm with contraction", (ARM, "-ffp-contract=fast"), ("qemu-aarch64",))
    rows_NP = torch.randn(5, 700, generator=torch.Generator().manual_seed(5))
    _, result = computed(fused, passes(rows_NP), tmp_path, PASSES)
    assert result[-8:] != kernels.ANSWER.to_bytes(8, "little")
    assert result != passed(rows_NP)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(ARM) is None or shutil.which("qemu-aarch64") is None, reason="no Arm compiler or qemu")
def test_a_fused_product_would_be_seen(tmp_path: Path) -> None:
    fused = Place("Arm with contraction", (ARM, "-ffp-contract=fast"), ("qemu-aarch64",))
    plain = Place("Arm", (ARM,), ("qemu-aarch64",))
    given = recorded(1, SMALL)
    (_, with_fma), (_, without) = (computed(place, given, tmp_path) for place in (fused, plain))
    assert blake3(with_fma).digest() != blake3(without).digest()
