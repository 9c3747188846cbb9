"""The link model: a pure function of its seed, with the law that its parameters say."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from btard.node.errors import ConfigError
from btard.node.netem.links import Link, LinkModel

MESSAGES = 4000


def delays(model: LinkModel, size_bytes: int = 0) -> list[list[float]]:
    return [model.deliveries(0, 1, sequence, size_bytes) for sequence in range(MESSAGES)]


def test_the_same_message_always_arrives_at_the_same_time() -> None:
    model = LinkModel(jitter_s=1.0, loss=0.3, duplicate=0.3, seed=5)
    assert delays(model) == delays(LinkModel(jitter_s=1.0, loss=0.3, duplicate=0.3, seed=5))


@pytest.mark.parametrize(
    "other", [(1, 0, 0), (0, 2, 0), (0, 1, 1)], ids=["the other way", "another receiver", "the next message"]
)
def test_every_message_has_its_own_draw(other: tuple[int, int, int]) -> None:
    model = LinkModel(jitter_s=1.0)
    assert model.deliveries(0, 1, 0, 0) != model.deliveries(*other, 0)


def test_another_seed_is_another_network() -> None:
    assert delays(LinkModel(jitter_s=1.0, seed=1)) != delays(LinkModel(jitter_s=1.0, seed=-1))


@pytest.mark.parametrize("values", [{"jitter_s": 0.5}, {"loss": 0.5}, {"duplicate": 0.5}], ids=str)
def test_one_probability_is_enough_to_draw(values: dict[str, float]) -> None:
    assert len(set(map(tuple, delays(LinkModel(**values))))) > 1  # type: ignore[arg-type]


def test_a_plain_link_only_delays() -> None:
    assert LinkModel(delay_s=0.25).deliveries(3, 4, 9, 10**6) == [0.25]


def test_bytes_take_time_on_a_narrow_link() -> None:
    model = LinkModel(delay_s=1.0, bandwidth_bytes_per_s=1000)
    assert model.deliveries(0, 1, 0, 500) == [1.5]


def test_jitter_is_uniform() -> None:
    arrived = [copies[0] for copies in delays(LinkModel(delay_s=2.0, jitter_s=4.0))]
    assert 2.0 <= min(arrived) < 2.01
    assert 5.99 < max(arrived) < 6.0
    assert sum(arrived) / MESSAGES == pytest.approx(4.0, abs=5 * 4 / math.sqrt(12 * MESSAGES))


def test_losses_in_a_row_are_geometric() -> None:
    loss = 0.4
    repeats = Counter(round(copies[0]) for copies in delays(LinkModel(delay_s=0, loss=loss, retransmit_s=1.0)))
    for losses in range(4):
        share = loss**losses * (1 - loss)
        deviation = 5 * math.sqrt(share * (1 - share) / MESSAGES)
        assert repeats[losses] / MESSAGES == pytest.approx(share, abs=deviation)


def test_a_bounded_number_of_transmissions_loses_for_good() -> None:
    model = LinkModel(delay_s=0, loss=0.5, retransmit_s=1.0, transmissions=3)
    arrived = delays(model)
    assert {round(delay) for copies in arrived for delay in copies} == {0, 1, 2}
    assert arrived.count([]) / MESSAGES == pytest.approx(1 / 8, abs=5 * math.sqrt(7 / 64 / MESSAGES))


def test_a_duplicate_has_a_delay_of_its_own() -> None:
    arrived = delays(LinkModel(jitter_s=1.0, duplicate=0.25))
    twice = [copies for copies in arrived if len(copies) == 2]
    assert len(twice) / MESSAGES == pytest.approx(0.25, abs=5 * math.sqrt(3 / 16 / MESSAGES))
    assert all(first != second for first, second in twice)


def test_overrides_hold_for_their_direction_only() -> None:
    model = LinkModel(delay_s=1.0, overrides={(0, 1): Link(loss=1), (0, 2): Link(delay_s=9.0)})
    assert model.deliveries(0, 1, 0, 0) == []
    assert model.deliveries(0, 2, 0, 0) == [9.0]
    assert model.deliveries(1, 0, 0, 0) == [1.0]


@pytest.mark.parametrize(
    "values",
    [
        {"delay_s": -1},
        {"jitter_s": math.inf},
        {"retransmit_s": math.nan},
        {"loss": 1.1},
        {"duplicate": -0.1},
        {"transmissions": 0},
        {"bandwidth_bytes_per_s": 0},
        {"bandwidth_bytes_per_s": math.nan},
    ],
    ids=str,
)
def test_impossible_links_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Link(**values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        LinkModel(**values)  # type: ignore[arg-type]
