"""From a judged attempt to the next state."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from btard.node.protocol.adjudication.verdict import Judgement
from btard.node.protocol.state.transition import next_state
from btard.node.protocol.state_sync.probation import Review
from tests.protocol_attempts import complete, replace_state


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


def test_who_comes_back_begins_with_a_clean_record() -> None:
    """Its pairs' charges are what it was removed for: they would remove it again at once."""
    attempt = complete().attempt
    others = tuple(peer for peer in range(6) if peer != 5)
    replace_state(attempt, roster=replace(attempt.roster, active=others), complaints=((0, 1, 2), (0, 5, 2), (4, 5, 2)))
    needed = attempt.settings.probation
    kept = next_state(attempt, Judgement(), review=Review())
    assert kept.summary.complaints == ((0, 1, 2), (0, 5, 2), (4, 5, 2)) and kept.roster.active == others
    replace_state(attempt, probation=((5, needed - 1),))
    after = next_state(attempt, Judgement(), review=Review(correct=(5,)))
    assert after.roster.active == tuple(range(6)) and after.summary.complaints == ((0, 1, 2),)
