"""A network whose links change: windows, cuts, rates and what is counted; the clock is the test's."""

from __future__ import annotations

import math

import pytest

from btard.node.errors import ConfigError
from btard.node.netem.conditions import Change, Conditions, Window
from btard.node.netem.links import LinkModel
from btard.node.netem.network import Network, of

SLOW = Change(Window("s", 30.0, 60.0), {"delay_s": 0.05}, ((0, 4),))


def network(*changes: Change, seed: int = 0) -> Network:
    return of(Conditions(changes, seed=seed))


def total(net: Network, *message: float, step: int = 0) -> list[float]:
    sender, receiver, size, now_s = message
    passages = net.send(int(sender), int(receiver), int(size), now_s, step)
    assert passages is not None
    return [passage.total_s for passage in passages]


@pytest.mark.parametrize(
    ("now_s", "pair", "expected"),
    [(29.9, (0, 4), 0.0), (30.0, (0, 4), 0.05), (59.9, (0, 4), 0.05), (60.0, (0, 4), 0.0), (30.0, (4, 0), 0.0)],
)
def test_a_window_changes_its_direction_only_and_only_while_it_lasts(
    now_s: float, pair: tuple[int, int], expected: float
) -> None:
    assert total(network(SLOW), *pair, 100, now_s) == [expected]


@pytest.mark.parametrize(("step", "expected"), [(49, 0.0), (50, 0.2), (10**6, 0.2)])
def test_a_window_of_steps_goes_by_the_senders_step(step: int, expected: float) -> None:
    lasting = Change(Window("step", 50), {"delay_s": 0.2})
    assert total(network(lasting), 0, 1, 100, 0.0, step=step) == [expected]


def test_later_changes_go_over_earlier_ones_field_by_field() -> None:
    net = network(Change(values={"delay_s": 0.1, "loss": 0.0}), Change(Window("s", 5.0), {"delay_s": 0.3}, ((1, 0),)))
    before, after = net.link(1, 0, 4.0, 0), net.link(1, 0, 5.0, 0)
    assert before is not None
    assert after is not None
    assert (before.delay_s, after.delay_s) == (0.1, 0.3)


def test_a_cut_link_carries_nothing_until_its_window_ends() -> None:
    net = network(Change(Window("s", 1.0, 2.0), pairs=((0, 1),), cut=True))
    assert net.send(0, 1, 10, 1.5, 0) is None
    assert total(net, 1, 0, 10, 1.5) == [0.0]
    assert net.next_edge_s(1.5) == 2.0
    assert total(net, 0, 1, 10, 2.0) == [0.0]
    assert net.next_edge_s(2.0) == math.inf


def test_bytes_queue_behind_each_other_on_a_narrow_link() -> None:
    net = network(Change(values={"bandwidth_bytes_per_s": 1000.0, "delay_s": 0.5}))
    arrivals = [total(net, 0, 1, 500, 0.0)[0] for _ in range(3)]
    assert arrivals == [1.0, 1.5, 2.0]
    assert total(net, 0, 2, 500, 0.0) == [1.0], "another receiver has a link of its own"
    assert total(net, 0, 1, 500, 10.0) == [1.0], "and an idle one is free again"


def test_lost_transmissions_are_counted_and_repeated() -> None:
    net = network(Change(values={"loss": 0.25, "retransmit_s": 1.0}), seed=3)
    late = sum(total(net, 0, 1, 10, 0.0)[0] for _ in range(4000))
    tally = net.tally((0, 1))
    assert tally.lost == late, "each loss costs one wait"
    assert tally.transmissions == 4000 + tally.lost
    deviation = 5 * math.sqrt(0.25 * 0.75 / tally.transmissions)
    assert tally.lost / tally.transmissions == pytest.approx(0.25, abs=deviation)


def test_the_same_seed_draws_the_same() -> None:
    jitter = Change(values={"jitter_s": 1.0})
    one, two, other = (network(jitter, seed=seed) for seed in (1, 1, 2))
    first = [total(one, 0, 1, 10, 0.0) for _ in range(5)]
    assert first == [total(two, 0, 1, 10, 0.0) for _ in range(5)]
    assert first != [total(other, 0, 1, 10, 0.0) for _ in range(5)]


def test_without_conditions_it_is_the_model_itself() -> None:
    model = LinkModel(delay_s=0.25, jitter_s=1.0, seed=7)
    net = Network(model)
    assert [total(net, 2, 3, 10, 0.0) for _ in range(3)] == [model.deliveries(2, 3, place, 10) for place in (1, 2, 3)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change(values={"delya_s": 1.0}), "delya_s"),
        (Change(values={"loss": 2.0}), "loss"),
        (Change(values={"transmissions": 0}), "transmissions"),
    ],
    ids=str,
)
def test_an_impossible_change_is_refused_at_once(change: Change, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        network(change)


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        Window("s", 5.0, 5.0)
