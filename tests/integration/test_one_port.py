"""Clusters of real processes whose peers have one port each, or some of them: they train, and ban who lies."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from btard.node.config import Plugin
from tests.integration.clusters import RUN, Attacker, Plan, keeps_the_promises, run_all

pytestmark = pytest.mark.sockets

LIES = msgspec.structs.replace(RUN, task=Plugin("quadratic", {"dimension": 300_000}), validators=2, steps=8)
"""Parts of 200 kB: two pieces at an only port."""
NOISE = Attacker((Plugin("noise"),))
CLUSTERS = {"one port each": frozenset(range(6)), "some have two": frozenset({0, 3, 4})}


def test_noise_is_banned_whoever_has_one_port(tmp_path: Path) -> None:
    plans = {name: Plan({4: NOISE, 5: NOISE}, LIES, one_port=ports) for name, ports in CLUSTERS.items()}
    for end in run_all(tmp_path, plans, at_once=max(1, (os.cpu_count() or 2) // 2)).values():
        keeps_the_promises(end)
        removed = {(peer, reason) for _, peer, reason in end.removed}
        assert removed == {(peer, "gradient") for peer in end.plan.attackers if end.struck(peer)} != set()
        assert not any(reason.startswith("bulk") for reason in end.dropped), end.dropped
