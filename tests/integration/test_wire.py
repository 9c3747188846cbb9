"""Clusters of real processes whose parts and aggregates travel as bfloat16: half the bytes, and liars are banned."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from btard.launcher.network.traffic import step_bytes
from btard.node.config import Plugin
from tests.integration.clusters import RUN, Attacker, Plan, keeps_the_promises, run_all

pytestmark = pytest.mark.sockets

NARROW = msgspec.structs.replace(RUN, task=Plugin("quadratic", {"dimension": 6000}), validators=2, steps=6, wire="bf16")
PLANS = {
    "honest": Plan(run=NARROW),
    "false gradients": Plan({4: Attacker((Plugin("noise"),)), 5: Attacker((Plugin("noise"),))}, NARROW),
    "a false aggregate": Plan({5: Attacker((Plugin("shift_aggregate", {"scale": 1.0}),), stop=2)}, NARROW),
    "a lie about a checksum": Plan({5: Attacker((Plugin("lie_checksum"),), stop=2)}, NARROW),
}
HEADER_BYTES = 64
"""More than a tensor's header has."""


def test_half_the_bytes_and_every_attacker_banned_and_verified(tmp_path: Path) -> None:
    ends = run_all(tmp_path, PLANS, at_once=max(1, (os.cpu_count() or 2) // 2))
    for name, end in ends.items():
        keeps_the_promises(end)
        struck = {peer for peer in end.plan.attackers if end.struck(peer)}
        assert struck == set(end.plan.attackers), name
        assert not any(reason.startswith("bulk") for reason in end.dropped), (name, end.dropped)
        reasons = {reason for _, _, reason in end.removed}
        kind = {"honest": set(), "false gradients": {"gradient"}, "a false aggregate": {"aggregate"}}
        assert {peer for _, peer, _ in end.removed} == struck and reasons == kind.get(name, {"checksum"})
    honest = ends["honest"]
    to = [line for peer in range(6) for line in honest.said(peer, "traffic")[-1]["sent"].values()]
    sent = sum(line[kind] for line in to for kind in ("part", "aggregate"))
    floats = tensors = 0
    for record in honest.said(0, "committed"):
        contributors = record["contributors"]
        floats += step_bytes(6000, range(6), contributors) // 4
        tensors += 5 * (len(contributors) + 6) if contributors else 0
    assert 2 * floats < sent < 2 * floats + HEADER_BYTES * tensors
