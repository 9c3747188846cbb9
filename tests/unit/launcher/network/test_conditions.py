"""The network that a user asks for on the command line: what it becomes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from btard.launcher.monitor import live_view
from btard.launcher.monitor.summary_table import weather
from btard.launcher.network import conditions
from btard.launcher.run import plan
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.summary import LinkRow
from btard.node.errors import ConfigError
from btard.node.netem.conditions import Change

TOY = {"task": "quadratic", "peers": 3}


def asked(**options: Any) -> tuple[Change, ...]:
    found = conditions.of(Experiment(**TOY, **options))
    assert found is not None
    return found.changes


def test_nothing_asked_for_is_nothing() -> None:
    assert conditions.of(Experiment()) is None
    assert plan.make(Experiment(**TOY)).conditions is None


def test_options_hold_for_all_links_and_exceptions_follow() -> None:
    assert asked(delay=0.05, loss=0.01, link=("0->2:delay=200ms,bandwidth=10mbit",)) == (
        Change(values={"delay_s": 0.05, "loss": 0.01}),
        Change(values={"delay_s": 0.2, "bandwidth_bytes_per_s": 1.25e6}, pairs=((0, 2),)),
    )


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("0->1", ((0, 1),)),
        ("0<->1", ((0, 1), (1, 0))),
        ("*->1", ((0, 1), (2, 1))),
        ("1->*", ((1, 0), (1, 2))),
        ("*<->1", ((0, 1), (1, 0), (1, 2), (2, 1))),
    ],
)
def test_arrows(text: str, pairs: tuple[tuple[int, int], ...]) -> None:
    assert asked(link=(f"{text}:loss=5%",)) == (Change(values={"loss": 0.05}, pairs=pairs),)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": 1.5}, "loss 1.5 is a probability"),
        ({"delay": -1.0}, "delay_s -1.0 must be finite"),
        ({"link": ("0->3:delay=1s",)}, "there is no peer 3; the peers are 0 to 2"),
        ({"link": ("0->0:delay=1s",)}, "no link to itself"),
        ({"link": ("0-1:delay=1s",)}, "write 0->4:delay=50ms"),
        ({"link": ("0->1",)}, "write 0->4:delay=50ms"),
        ({"link": ("0->1:lag=1s",)}, "'lag=1s' is not one of delay, jitter"),
        ({"link": ("0->1:loss=7",)}, "loss '7' is not a share; write 1% or 0.01"),
        ({"link": ("0->1:bandwidth=fast",)}, "'fast' is not a rate; write 10mbit"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("*", r"\*").replace("(", r"\(")) as refused:
        conditions.of(Experiment(**TOY, **options))
    assert "\n" not in str(refused.value)


def test_the_plan_says_what_is_asked_and_warns_of_delays_beyond_the_bound() -> None:
    lines = live_view.headline(plan.make(Experiment(**TOY, bandwidth=2e6, link=("0->1:delay=1.9s,loss=0.5%",))))
    assert "all links: bandwidth 2 MB/s" in lines
    assert "links 0->1: delay 1900 ms, loss 0.5%" in lines
    assert any("more than --delivery-bound 2 s" in line for line in lines)


@pytest.mark.parametrize("options", [{"delay": 2.0}, {"delay": 1.5, "jitter": 0.5}, {"link": ("0->1:delay=3s",)}])
def test_links_that_take_all_of_the_delivery_bound_are_refused(options: dict[str, Any]) -> None:
    """D counts from signing to handling: on such links nothing would be left for the handling."""
    with pytest.raises(ConfigError, match=r"a message take [23] s, and --delivery-bound 2 s .*; raise") as refused:
        plan.make(Experiment(**TOY, **options))
    assert "\n" not in str(refused.value)
    plan.make(Experiment(**TOY, **options, delivery_bound=4.0))


def test_the_summary_sets_what_was_asked_against_what_was_measured() -> None:
    row = LinkRow(0, 1, 100, 7, 0.05, 0.051, 0.01, 0.02, 1e6, 0.9e6, 0.1)
    other = LinkRow(1, 0, 100, 0, 0.03, 0.031, 0.01, 0.0, None, None, None)
    assert weather([row, other]) == [
        "delay asked 40.0 ms, measured 41.0 ms (mean of 2 directions, worst off by 1.0 ms)",
        "loss asked 1.00%, measured 1.00% of transmissions, all repeated",
        "rate asked 1.00 MB/s, measured 0.90 MB/s",
        "7 messages waited for the end of a partition",
    ]
    assert weather([LinkRow(0, 1, 5, 0, 0.0, 0.0, 0.0, 0.0, None, None, None)]) == []
