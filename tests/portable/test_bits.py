"""Equal bits of the portable kernels on other processors: a bounded part of `python -m tests.portable.digests`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from blake3 import blake3

from btard.node.training.models import transformer
from tests.portable.digests import ARM, PLACES, Place, computed, digests, recorded

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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(ARM) is None or shutil.which("qemu-aarch64") is None, reason="no Arm compiler or qemu")
def test_a_fused_product_would_be_seen(tmp_path: Path) -> None:
    fused = Place("Arm with contraction", (ARM, "-ffp-contract=fast"), ("qemu-aarch64",))
    plain = Place("Arm", (ARM,), ("qemu-aarch64",))
    given = recorded(1, SMALL)
    (_, with_fma), (_, without) = (computed(place, given, tmp_path) for place in (fused, plain))
    assert blake3(with_fma).digest() != blake3(without).digest()
