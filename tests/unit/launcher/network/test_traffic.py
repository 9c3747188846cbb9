"""The formula of a step's bytes."""

from __future__ import annotations

import pytest

from btard.launcher.network import traffic
from btard.node.protocol.attempt.attempt import Split


@pytest.mark.parametrize(("dimension", "count"), [(6, 6), (64, 6), (21_840, 6), (21_840, 5), (1001, 7)])
def test_parts_are_those_of_the_protocol(dimension: int, count: int) -> None:
    split = Split(dimension, count)
    sizes = [traffic.part_size(dimension, count, place) for place in range(count)]
    assert sizes == [split.size(part) for part in range(count)]


@pytest.mark.parametrize(
    ("active", "contributors"),
    [((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5)), ((0, 1, 2, 3, 4, 5), (0, 2, 3, 4, 5)), ((0, 2, 5), (2, 5))],
    ids=["all", "one validates", "after bans"],
)
def test_a_step_counts_every_float_that_crosses(active: tuple[int, ...], contributors: tuple[int, ...]) -> None:
    dimension, floats = 1001, 0
    split = Split(dimension, len(active))
    for place, aggregator in enumerate(active):
        floats += sum(split.size(place) for sender in contributors if sender != aggregator)
        floats += sum(split.size(place) for receiver in active if receiver != aggregator)
    assert traffic.step_bytes(dimension, active, contributors) == 4 * floats


def test_each_peer_sends_two_d_times_n_minus_one_over_n() -> None:
    assert traffic.step_bytes(600, range(6), range(6)) == 4 * 6 * 2 * 600 * 5 // 6


def test_a_step_without_gradients_moves_nothing() -> None:
    assert traffic.step_bytes(600, range(6), ()) == 0


def test_a_run_without_bans() -> None:
    first, later = traffic.step_bytes(600, range(6), range(6)), traffic.step_bytes(600, range(6), range(1, 6))
    assert traffic.run_bytes(600, 6, 10, 1) == first + 9 * later


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (7e12, "7.0 TB")]
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert traffic.human(count) == text
