"""`docker compose up`, six nodes of which two lie: what the summary says, and what Prometheus says of the same run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.containers.cluster import NODES, PATIENCE_S, ROOT, Cluster, firing

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def scored(attacked: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The run at its end."""
    print(f"six nodes healthy {attacked.wait_healthy():.1f} s after `up`")
    attacked.wait("the observer's end", lambda: attacked.states()["observer"]["State"] == "exited", 6 * PATIENCE_S)
    assert attacked.states()["observer"]["ExitCode"] == 0, attacked.story()
    return attacked.summary(tmp_path_factory.mktemp("runs"))


def test_both_attackers_are_banned_and_nobody_else(scored: tuple[dict[str, Any], Path]) -> None:
    summary, run_dir = scored
    assert summary["outcome"] == "finished" and summary["agreement"]
    assert summary["byzantine"] == [4, 5] and summary["undetected"] == 0 and summary["honest_banned"] == 0
    assert {ban["peer"] for ban in summary["bans"]} == {4, 5}
    assert summary["final_test_accuracy"] > 0.5
    for ban in summary["bans"]:
        assert (run_dir / ban["evidence"]).stat().st_size > 0
    assert not list(run_dir.rglob("secrets.json"))


def test_prometheus_tells_the_same_bans_and_accuracy(attacked: Cluster, scored: tuple[dict[str, Any], Path]) -> None:
    summary, _ = scored
    run = f'{{run_id="{summary["run_id"]}"}}'
    states = attacked.last(f"max by (peer) (btard_peer_state{run})")
    assert {peer for peer, state in states.items() if state == 3} == {"4", "5"}
    byzantine = attacked.last(f"max by (peer) (btard_peer_byzantine{run})")
    assert {int(peer) for peer, lies in byzantine.items() if lies} == set(summary["byzantine"])
    banned_at = attacked.last(f"max by (peer) (btard_peer_banned_step{run})")
    assert banned_at == {str(ban["peer"]): ban["step"] for ban in summary["bans"]}
    accuracy = attacked.last(f"max(btard_final_accuracy_ratio{run})")[""]
    assert math.isclose(accuracy, summary["final_test_accuracy"], rel_tol=1e-9)
    nodes = {each["metric"]["node"] for each in attacked.ask(f"btard_step{run}")}
    assert nodes == {str(node) for node in range(6)}


def test_no_alert_of_harm_fires_in_it(attacked: Cluster, scored: tuple[dict[str, Any], Path]) -> None:
    fired = firing(attacked.ask('ALERTS{alertstate="firing"}'))
    assert not fired & {"HonestPeerBanned", "ByzantineUndetected", "StepStalled", "ReconnectStorm"}


def test_every_panel_of_every_dashboard_has_data(attacked: Cluster, scored: tuple[dict[str, Any], Path]) -> None:
    from dashboards.exempt import annotations, expressions

    summary, _ = scored
    variables = {"run_id": summary["run_id"], "compare_run": summary["run_id"], "node": "0"}
    folder = ROOT / "dashboards"
    asked = [*expressions(folder, variables), *annotations(folder, variables)]
    assert len({each.dashboard for each in asked}) == 4
    without = [each for each in asked if each.needs is None and not _has_data(attacked, each.expression)]
    assert without == []


def _has_data(cluster: Cluster, expression: str) -> bool:
    return any(not math.isnan(float(value)) for each in cluster.ask(expression) for _, value in each["values"])


def keys_of(genesis: dict[str, Any]) -> set[str]:
    return {member["signing_key"] for member in genesis["members"]}


def test_a_second_up_is_a_new_run_with_new_keys(attacked: Cluster, scored: tuple[dict[str, Any], Path]) -> None:
    """What `docker compose up` does again; Prometheus keeps the first run."""
    summary, run_dir = scored
    attacked.up()
    attacked.wait_healthy()
    seen = attacked.wait("the new run", lambda: {each["metric"]["run_id"] for each in attacked.ask("btard_run_step")}
                         - {summary["run_id"]})  # fmt: skip
    assert len(seen) == 1
    genesis = json.loads(attacked.inside("observer", "cat", f"/btard/runs/{seen.pop()}/genesis.json").stdout)
    before = json.loads((run_dir / "genesis.json").read_text())
    assert not keys_of(before) & keys_of(genesis)


def test_down_leaves_nothing(attacked: Cluster, scored: tuple[dict[str, Any], Path]) -> None:
    assert len(attacked.left()) > len(NODES)
    attacked.compose("down", "--volumes", "--timeout", "5")
    assert attacked.left() == []
