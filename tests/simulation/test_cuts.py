"""A few of the random cuts that `tests.simulation.cuts` plays at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.cuts import broken


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_cut_of_honest_peers_breaks_no_promise(seed: int, tmp_path: Path) -> None:
    assert broken(seed, tmp_path) == []
