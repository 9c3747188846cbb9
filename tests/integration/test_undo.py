"""Undo between real processes over real sockets: the poison goes, its advocate follows, an outsider checks both."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from btard.node.config import Plugin
from tests.integration.clusters import RUN, Attacker, Plan, keeps_the_promises, run_all

pytestmark = pytest.mark.sockets

PLANS = {
    "a liar about a lie": Plan(
        {4: Attacker((Plugin("sign_flip"),), 2), 5: Attacker((Plugin("false_recheck"),), 2)},
        msgspec.structs.replace(RUN, steps=9, undo=8),
    ),
}


def test_a_lie_is_taken_back_and_whoever_vouched_for_it_is_banned(tmp_path: Path) -> None:
    end = run_all(tmp_path, PLANS, 1)["a liar about a lie"]
    keeps_the_promises(end, 0)
    (first, second) = end.removed
    assert (first[1:], second[1:]) == ((4, "gradient"), (5, "false_report"))
    assert second[0] == first[0] + 1, "in the undo step"
    lies = end.struck(4)
    for peer in end.honest:
        told = [(r["step"], r["suspects"], r["to_step"], r["lost"]) for r in end.said(peer, "undone")]
        assert told == [(second[0], [4], lies[0], second[0] - lies[0]), (second[0] + 1, [5], None, 0)]
        committed = {record["step"]: record["parameter_digest"] for record in end.said(peer, "committed")}
        assert committed[second[0]] == committed[lies[0] - 1] != committed[first[0]]
    assert {finding.kind for finding in end.findings} == {"recomputation", "certificate", "quorum"}
