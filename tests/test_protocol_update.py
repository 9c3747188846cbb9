"""From a judged attempt to the next state."""

from __future__ import annotations

import math

import pytest

from node.protocol.tribunal import Judgement
from node.protocol.update import next_state
from tests.protocol_attempts import complete


def test_the_norm_window_holds_norms_per_root_of_an_entry() -> None:
    """19 entries in six parts of 3 and 4: a norm grows with the root of its entries, so that all are comparable."""
    attempt = complete().attempt
    sizes = [attempt.split.size(part) for part in range(6)]
    assert sorted(set(sizes)) == [3, 4]
    claimed = [[attempt.claim(owner, part).norm for part in range(6)] for owner in attempt.contributors]
    by_hand = [norm / math.sqrt(size) for norms in claimed for norm, size in zip(norms, sizes, strict=True)]
    after = next_state(attempt, Judgement())
    assert after.norms.steps[:-1] == attempt.state.norms.steps
    assert after.norms.steps[-1] == pytest.approx(by_hand, rel=1e-15)
