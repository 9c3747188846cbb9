"""Broken pairs: what complaints add up to, and whom they remove. Six peers, so f_0 = 2."""

from __future__ import annotations

import pytest

from btard.node.protocol.adjudication import complaints
from btard.node.protocol.adjudication.charges import Broken
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.wire.messages import Agg, Missing, Reveal
from tests.protocol_attempts import changed, complete, replace_state

Counts = tuple[tuple[int, int, int], ...]


def attempt_with(counts: Counts, *now: tuple[int, int]) -> Attempt:
    """Earlier complaints by pair, and (aggregator, contributor) of those in the attempt itself."""
    attempt = complete(step=0).attempt
    replace_state(attempt, complaints=counts)
    for aggregator in {aggregator for aggregator, _ in now}:
        owners = tuple(owner for by, owner in now if by == aggregator)
        changed(attempt, Agg, aggregator, aggregate=Missing(owners))
    return attempt


def broken(counts: Counts, *now: tuple[int, int], out: frozenset[int] = frozenset()) -> list[tuple[int, str, object]]:
    guilts = complaints.broken(attempt_with(counts, *now), out)
    assert all(guilt.accuser is None for guilt in guilts)
    return [(guilt.peer, guilt.reason, guilt.charge) for guilt in guilts]


def both(low: int, high: int) -> list[tuple[int, str, object]]:
    return [(low, "eliminated", Broken(low, high)), (high, "eliminated", Broken(high, low))]


def alone(peer: int) -> list[tuple[int, str, object]]:
    return [(peer, "edges", Broken(peer, None))]


def test_a_step_counts_once_for_a_pair_in_either_direction() -> None:
    assert complaints.after(attempt_with(())) == ()
    assert complaints.after(attempt_with((), (4, 1))) == ((1, 4, 1),)
    assert complaints.after(attempt_with(((0, 5, 3), (1, 4, 2)), (4, 1), (1, 4), (0, 3))) == (
        (0, 3, 1),
        (0, 5, 3),
        (1, 4, 3),
    )
    assert complaints.after(attempt_with((), (2, 2))) == ((2, 2, 1),)


@pytest.mark.parametrize(("before", "removed"), [(1, []), (2, []), (3, both(1, 4)), (4, both(1, 4))])
def test_the_fourth_complaint_of_a_pair_removes_both(before: int, removed: list[object]) -> None:
    assert broken(((1, 4, before),), (4, 1)) == removed


@pytest.mark.parametrize(("before", "removed"), [(2, []), (3, alone(2))])
def test_the_fourth_complaint_about_oneself_removes_one(before: int, removed: list[object]) -> None:
    assert broken(((2, 2, before),), (2, 2)) == removed


def test_edges_to_more_than_f0_peers_remove_one_alone() -> None:
    assert broken((), (0, 5), (1, 5), (2, 5)) == [], "once may be the network: no edge"
    assert broken(((0, 5, 2), (1, 5, 1)), (1, 5)) == [], "two are not more than f_0"
    assert broken(((0, 5, 2), (1, 5, 2), (2, 5, 1)), (2, 5)) == alone(5)
    assert broken(((0, 5, 2), (1, 5, 2), (5, 5, 1)), (5, 5)) == [], "an edge to oneself ties nobody to another"
    assert broken(((0, 5, 2), (1, 5, 2)), (5, 0)) == [], "the same peer twice is one peer"


def test_whoever_is_removed_alone_goes_first_and_saves_its_pairs() -> None:
    assert broken(((0, 5, 3), (1, 5, 2), (2, 5, 1)), (0, 5), (2, 5)) == alone(5)
    assert broken(((0, 3, 3), (0, 5, 2), (1, 5, 2), (2, 5, 1)), (0, 3), (2, 5)) == [*alone(5), *both(0, 3)]


def test_pairs_break_in_roster_order_and_a_broken_pair_spares_the_next() -> None:
    assert broken(((1, 4, 3), (1, 5, 3), (2, 5, 3)), (4, 1), (5, 1), (5, 2)) == [*alone(5), *both(1, 4)][1:] + both(
        2, 5
    )


def test_whoever_is_out_anyway_takes_nobody_along() -> None:
    assert broken(((1, 4, 3),), (4, 1), out=frozenset({4})) == []
    assert broken(((2, 2, 3),), (2, 2), out=frozenset({2})) == []
    assert broken(((0, 5, 2), (1, 5, 2), (2, 5, 1)), (2, 5), out=frozenset({5})) == []


def test_a_cut_network_breaks_no_pair() -> None:
    """Three peers tied to three each cannot all be faulty; two can."""
    across = tuple((low, high, 1) for low in (0, 1) for high in (3, 4, 5))
    assert complaints.after(attempt_with((), *((high, low) for low, high, _ in across))) == across
    whole = [(high, low) for low in (0, 1, 2) for high in (3, 4, 5)]
    assert complaints.after(attempt_with(((0, 1, 2),), *whole)) == ((0, 1, 2),)
    assert broken((), *whole) == []


def test_an_aggregate_that_one_lacks_counts_as_a_part() -> None:
    assert attempt_lacking(()) == (((1, 4, 1),), [])
    assert attempt_lacking((), (1, 4), (2, 4)) == (((1, 4, 1), (2, 4, 1)), []), "both in one step are one"
    assert attempt_lacking(((0, 4, 2), (4, 5, 2))) == (((0, 4, 2), (1, 4, 1), (4, 5, 2)), [])
    assert attempt_lacking(((0, 4, 2), (1, 4, 1), (4, 5, 2)))[1] == alone(4)
    assert attempt_lacking(((1, 4, 2),))[1] == []
    assert attempt_lacking(((1, 4, 3),))[1] == both(1, 4)


def attempt_lacking(charges: Counts, *now: tuple[int, int]) -> tuple[Counts, list[tuple[int, str, object]]]:
    """Charges and removals after an attempt in which peer 1 says that it has no aggregate of peer 4."""
    attempt = attempt_with(charges, *now)
    changed(attempt, Reveal, 1, have=tuple(place != 4 for place in range(6)))
    guilts = complaints.broken(attempt, frozenset())
    return complaints.after(attempt), [(guilt.peer, guilt.reason, guilt.charge) for guilt in guilts]
