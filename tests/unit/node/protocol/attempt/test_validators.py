"""The draw of validators, its bound, and what removals make of it."""

from __future__ import annotations

from collections import Counter

import pytest

from btard.node.protocol.attempt.validators import Draw, allowed_pairs, draw
from btard.node.protocol.wire.encoding import digest, number

SIX = (0, 1, 2, 3, 4, 5)


def test_pairs_are_disjoint_contributors_and_uniform() -> None:
    """All 30 ordered pairs of six alike: chi-square over 30,000 draws, 58.3 is the 0.999 quantile at 29 degrees."""
    found: Counter[tuple[int, int]] = Counter()
    for number_ in range(30_000):
        ((validator, target),) = draw(digest("draw", number(number_)), SIX, 1, 1).pairs(SIX)
        assert validator != target
        found[validator, target] += 1
    assert len(found) == 30
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 58.3


@pytest.mark.parametrize(("contributors", "pairs", "expected"),
                         [((), 1, 0), ((4,), 1, 0), ((1, 4), 1, 1), ((1, 2, 4), 2, 1), (SIX, 3, 3), (SIX, 0, 0)],
                         ids=["nobody", "one", "two", "three", "six", "none wanted"])  # fmt: skip
def test_how_many_pairs(contributors: tuple[int, ...], pairs: int, expected: int) -> None:
    drawn = draw(digest("r"), contributors, pairs, 1)
    assert drawn.count == expected
    named = [peer for pair in drawn.pairs(contributors) for peer in pair]
    assert len(set(named)) == 2 * expected
    assert set(named) <= set(contributors)


def test_every_kth_step_on_average() -> None:
    drawn = sum(draw(digest("draw", number(step)), SIX, 1, 3).count for step in range(6000))
    assert drawn == pytest.approx(2000, abs=150)


ORDER = Draw((5, 3, 0, 4, 2, 1), 2)
REMOVALS = [
    ("nobody", (), ((5, 0), (3, 4))),
    ("a validator: the next of the permutation takes over", (5,), ((2, 0), (3, 4))),
    ("both validators", (5, 3), ((2, 0), (1, 4))),
    ("a target stays due", (0,), ((5, 0), (3, 4))),
    ("a validator and its target", (5, 0), ((2, 0), (3, 4))),
    ("the next one is gone too", (5, 2), ((1, 0), (3, 4))),
    ("nobody is left for the second pair", (5, 3, 2), ((1, 0),)),
    ("nobody is left at all", (5, 3, 2, 1), ()),
]


@pytest.mark.parametrize(("removed", "pairs"), [row[1:] for row in REMOVALS], ids=[row[0] for row in REMOVALS])
def test_removals(removed: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    assert ORDER.pairs([peer for peer in SIX if peer not in removed]) == pairs


def test_no_draw_no_pairs() -> None:
    assert Draw().pairs(SIX) == ()
    assert Draw().targets == ()


BOUND = [
    ("the report's six", 1, 6, 2, 0, 1),
    ("after the first ban: five peers still validate", 1, 5, 2, 1, 1),
    ("after both", 1, 4, 2, 2, 1),
    ("never below one", 3, 3, 1, 0, 1),
    ("none wanted", 0, 6, 2, 0, 0),
    ("an honest majority among contributors", 5, 16, 7, 0, 1),
    ("more after removals", 5, 14, 7, 2, 3),
    ("3 m <= n_active", 9, 16, 0, 0, 5),
    ("what was asked for", 2, 16, 0, 0, 2),
]


@pytest.mark.parametrize(("wanted", "active", "faults", "removed", "pairs"), [row[1:] for row in BOUND],
                         ids=[row[0] for row in BOUND])  # fmt: skip
def test_allowed_pairs(wanted: int, active: int, faults: int, removed: int, pairs: int) -> None:
    assert allowed_pairs(wanted, active, faults, removed, contribute=False) == pairs
    if pairs > 1:
        assert active - pairs > 2 * (faults - removed)
        assert 3 * pairs <= active


@pytest.mark.parametrize(
    ("wanted", "active", "pairs"), [(1, 5, 1), (5, 16, 5), (9, 7, 2), (3, 3, 1), (2, 2, 1), (0, 7, 0)]
)
def test_where_everyone_contributes_no_faults_left_lower_it(wanted: int, active: int, pairs: int) -> None:
    for removed in range(active // 2):
        assert allowed_pairs(wanted, active, (active + 1) // 2 - 1, removed, contribute=True) == pairs
