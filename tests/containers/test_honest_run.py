"""A run without attackers: no alert, hardened containers, and what happens to a node that is paused or killed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.containers.cluster import NODES, PATIENCE_S, Cluster, firing

pytestmark = pytest.mark.containers
SERVICES = [*NODES, "observer", "prometheus"]


@pytest.fixture(scope="module")
def running(honest: Cluster) -> Cluster:
    """The run once it is under way."""
    assert {honest.states()[name]["Health"] for name in SERVICES} == {"healthy"}, "`up --wait` returned"
    honest.wait("the first steps", lambda: honest.step() >= 5)
    return honest


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_can_do_no_more_than_it_needs(running: Cluster, service: str) -> None:
    host = running.inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0 and host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    ports = running.inspect(service)["NetworkSettings"]["Ports"] or {}
    assert all(each["HostIp"] == "127.0.0.1" for every in ports.values() for each in every or ())
    status = running.inside(service, "cat", "/proc/self/status").stdout
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["CapEff"] == facts["CapBnd"] == "0000000000000000" and facts["NoNewPrivs"] == "1"
    assert facts["Uid"].split()[0] == ("65534" if service == "prometheus" else "10001")
    assert "Read-only file system" in running.inside(service, "sh", "-c", "echo x > /etc/x").stderr


def test_no_node_sees_anothers_keys_or_role(running: Cluster) -> None:
    for node in range(6):
        mounted = {each["Name"].partition("_")[2] for each in running.inspect(f"node-{node}")["Mounts"]}
        assert mounted == {f"secrets-{node}", f"run-{node}", "ceremony"}
        environment = running.inspect(f"node-{node}")["Config"]["Env"]
        assert [each for each in environment if each.startswith("BTARD_")] == ["BTARD_DATA_DIR=/opt/data"]
    for elsewhere in ("/btard/nodes/1", "/btard/truth"):
        assert running.inside("node-0", "ls", "-A", elsewhere).stdout == ""
    reach = "import socket; socket.create_connection(('observer', 9465), 5)"
    assert running.inside("node-0", "python", "-c", reach).returncode != 0


def test_each_container_has_made_its_own_keys_which_are_nowhere_else(running: Cluster) -> None:
    own = {
        node: set(json.loads(running.inside(node, "sh", "-c", "cat /btard/secrets/*").stdout).values())
        for node in NODES
    }
    assert len(set().union(*own.values())) == 3 * len(NODES)
    for service in (*NODES, "observer"):
        others = set().union(*(values for node, values in own.items() if node != service))
        words = [word for value in others for word in ("-e", value)]
        found = running.inside(service, "grep", "-rlF", *words, "/btard")
        assert found.stdout == "", service
        # It looks at everything, checkpoints that are written anew meanwhile excepted.
        assert all(
            "/state/" in line and line.endswith("No such file or directory") for line in found.stderr.splitlines()
        )
        if service in own:
            words = [word for value in own[service] for word in ("-e", value)]
            found = running.inside(service, "grep", "-rlF", *words, "/btard")
            assert found.stdout.startswith("/btard/secrets/") and found.stdout.count("\n") == 1


def test_the_image_holds_no_compiler_and_no_torchvision(running: Cluster) -> None:
    assert running.inside("node-0", "sh", "-c", "command -v gcc cc c++ make").returncode != 0
    assert running.inside("node-0", "python", "-c", "import torchvision").returncode != 0


def test_a_clean_run_raises_no_alert(running: Cluster) -> None:
    since = time.time()
    running.wait("twenty seconds of training", lambda: time.time() - since > 20, PATIENCE_S)
    running.began = since
    assert firing(running.ask('ALERTS{alertstate="firing"}')) == set()
    assert running.step() >= 20


def test_a_paused_node_is_gone_and_not_banned(running: Cluster) -> None:
    running.compose("pause", "node-5")
    running.wait("node 5 gone", lambda: running.last("max by (peer) (btard_peer_state)").get("5") == 4, 4 * PATIENCE_S)
    at = running.step()
    running.wait("the others' next steps", lambda: running.step() > at + 5)


def test_a_killed_node_is_gone_and_an_alert_names_it(running: Cluster) -> None:
    running.compose("kill", "node-4")
    running.wait("node 4 gone", lambda: running.last("max by (peer) (btard_peer_state)").get("4") == 4, 4 * PATIENCE_S)
    at = running.step()
    running.wait("the others' next steps", lambda: running.step() > at + 5)

    def named() -> bool:
        alerts = running.ask('ALERTS{alertstate="firing",alertname="NodeDown"}')
        return any(each["metric"]["node"] == "4" for each in alerts)

    running.wait("NodeDown for node 4", named, 2 * PATIENCE_S)
    assert "HonestPeerBanned" not in firing(running.ask('ALERTS{alertstate="firing"}'))
    assert running.states()["node-4"]["ExitCode"] == 137


def test_a_node_that_wakes_up_finds_itself_out(running: Cluster) -> None:
    running.compose("unpause", "node-5")
    running.wait("node 5 ends", lambda: running.states()["node-5"]["State"] == "exited", 4 * PATIENCE_S)
    assert all(running.states()[f"node-{node}"]["State"] == "running" for node in range(4))


def test_stopped_nodes_end_in_order_and_the_observer_scores_them(running: Cluster, tmp_path: Path) -> None:
    running.compose("stop", "--timeout", "15", *NODES[:4])
    running.wait("the observer's end", lambda: running.states()["observer"]["State"] == "exited", 3 * PATIENCE_S)
    assert [running.states()[name]["ExitCode"] for name in NODES[:4]] == [143] * 4
    summary, _ = running.summary(tmp_path)
    assert summary["outcome"] == "failed" and summary["agreement"] and summary["bans"] == []
    assert running.states()["observer"]["ExitCode"] == 1
    running.compose("down", "--volumes", "--timeout", "5")
    assert running.left() == []
