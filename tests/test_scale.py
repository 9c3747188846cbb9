"""docs/scale.md: the cost model is what the simulator shows, and the page has the model's figures."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from docs import scale

PAGE = (Path(scale.__file__).parent / "scale.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("size", "one_way_s"), [(6_000, 0.05), (600_000, 0.1)])
def test_the_simulator_takes_what_the_model_says(size: int, one_way_s: float) -> None:
    said, found = scale.model(6, size, one_way_s), scale.simulated(6, size, one_way_s)
    assert found.peer_bytes == pytest.approx(said.peer_bytes, rel=0.01)
    assert found.seconds == pytest.approx(said.seconds, rel=0.002)
    nothing = scale.simulated(6, size, 0.0).seconds
    assert found.seconds - nothing == pytest.approx(scale.DELAYS * one_way_s), "delays in a row"


def test_the_pages_table_is_of_this_model() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (\d+e6) \| (\d+) ms \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.M
    )
    cases = [(peers, size, one_way_s) for peers, size in scale.CASES for one_way_s in scale.ONE_WAY_S]
    assert [(int(row[0]), int(float(row[1])), int(row[2]) / 1000) for row in rows] == cases
    for case, (*_, said_mb, found_mb, said_s, found_s) in zip(cases, rows, strict=True):
        said = scale.model(*case)
        assert (said_mb, said_s) == (f"{said.peer_bytes / 1e6:.3f}", f"{said.seconds:.3f}")
        assert float(found_mb) == pytest.approx(said.peer_bytes / 1e6, rel=0.01)
        assert float(found_s) == pytest.approx(said.seconds, rel=0.01)


def test_what_a_process_holds_is_looked_at() -> None:
    found = scale.looked_at(os.getpid())
    assert found is not None
    assert 0 < found.own_bytes <= found.shared_bytes
    assert found.descriptors >= 3
    assert scale.looked_at(2**22 + 1) is None, "beyond the largest process id"
