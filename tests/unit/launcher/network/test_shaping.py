"""`--shaping kernel` without root: the rules that would be loaded, what is refused, and how packets are delayed."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from btard.launcher.containers import kernel, netqueue, roles
from btard.launcher.containers.kernel import Kernel
from btard.launcher.containers.netns import Namespace
from btard.launcher.containers.netqueue import Delay, Waiting
from btard.launcher.containers.shaper import Shaper
from btard.launcher.monitor.summary_table import weather
from btard.launcher.network import conditions, shaping
from btard.launcher.network.shaping import Wanted
from btard.launcher.run import plan, run_directory
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.summary import LinkRow
from btard.node import worker
from btard.node.config import NodeConfig
from btard.node.errors import BackendError, ConfigError
from btard.node.netem.conditions import Conditions
from btard.node.netem.emulated_transport import EmulatedTransport
from btard.node.netem.link_observer import LinkWatch, shaped_links
from btard.node.netem.links import Link
from btard.node.storage.journal import Journal
from btard.node.transport.flow_control import Credits
from btard.node.transport.framing import Limits
from tests.ceremony import met

TOY: dict[str, Any] = {"task": "quadratic", "peers": 3, "backend": "compose", "shaping": "kernel"}
ADDRESSES = ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
ABLE = Kernel(rate=True, loss=True, netem=False, queue=True)


def asked(**options: Any) -> Conditions:
    found = conditions.of(Experiment(**TOY, **options))
    assert found is not None
    return found


def ways(inward: bool, node: int = 0, **options: Any) -> tuple[shaping.Way, ...]:
    return shaping.ways(asked(**options), node, ADDRESSES, inward)


# --- rules -------------------------------------------------------------------------------------------------------


def test_each_peer_has_a_class_with_its_own_rate_and_nobody_else_is_limited() -> None:
    away = ways(False, bandwidth=1.25e6, link=("0->2:bandwidth=2MB/s",), delay=0.05)
    assert shaping.outgoing("eth0", away, netem=False).splitlines() == [
        "qdisc add dev eth0 root handle 1: htb",
        "class add dev eth0 parent 1: classid 1:2 htb rate 10000000bit quantum 60000",
        "filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.9.0.3/32 flowid 1:2",
        "class add dev eth0 parent 1: classid 1:3 htb rate 16000000bit quantum 60000",
        "filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.9.0.4/32 flowid 1:3",
    ]
    assert shaping.outgoing("eth0", ways(False, delay=0.05, loss=0.1), netem=False) == ""


def test_where_netem_is_it_delays_in_the_senders_class_and_no_queue_does() -> None:
    away = ways(False, delay=0.05, jitter=0.01, link=("0->1:bandwidth=10mbit,jitter=0s",))
    lines = shaping.outgoing("eth0", away, netem=True).splitlines()
    assert "qdisc add dev eth0 parent 1:2 handle 1002: netem limit 100000 delay 50000us" in lines
    assert "qdisc add dev eth0 parent 1:3 handle 1003: netem limit 100000 delay 55000us 5000us" in lines
    assert "class add dev eth0 parent 1: classid 1:3 htb rate 100000000000bit quantum 60000" in lines
    assert shaping.incoming(ways(True, delay=0.05), netem=True) == ""


def test_what_arrives_is_lost_by_chance_then_queued_by_its_sender() -> None:
    towards = ways(True, delay=0.05, jitter=0.01, loss=0.01, link=("2->0:delay=0s,jitter=0s,loss=100%",))
    assert shaping.incoming(towards, netem=False).splitlines() == [
        "*filter",
        ":BTARD - [0:0]",
        "-A INPUT -j BTARD",
        "-A BTARD -s 10.9.0.3/32 -m statistic --mode random --probability 0.010000000 -j DROP",
        "-A BTARD -s 10.9.0.3/32 -j NFQUEUE --queue-num 1",
        "-A BTARD -s 10.9.0.4/32 -j DROP",
        "COMMIT",
    ]
    assert shaping.queues(towards) == ["1:0.050000000:0.010000000"]
    assert shaping.incoming(ways(True, bandwidth=1e6), netem=False) == "" and shaping.queues(ways(True, loss=0.1)) == []


def test_a_direction_is_shaped_at_its_own_ends() -> None:
    only = ("0->2:delay=20ms,bandwidth=10mbit",)
    assert [shaping.queues(ways(True, node, link=only)) for node in range(3)] == [[], [], ["0:0.020000000:0.000000000"]]
    assert [bool(shaping.outgoing("e", ways(False, node, link=only), False)) for node in range(3)] == [
        True,
        False,
        False,
    ]
    assert shaping.wanted(asked(link=only), 3) == Wanted(rate=True, delay=True, loss=False)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delay": 0.1, "backend": "local"}, "shares this machine's own interfaces, which are never shaped; add"),
        ({"delay": 0.1, "backend": "simulated"}, "add --backend compose, or use --shaping process"),
        ({}, "has nothing to shape; add --delay"),
        ({"delay": 0.1, "duplicate": 0.1}, "cannot do --duplicate"),
        ({"link": ("0->1:loss=1%,retransmit=1s",)}, "cannot do retransmit="),
        ({"delay": 0.1, "scenario": "from 1s to 2s loss all 1%"}, "not for 'from 1s to 2s loss all 1%'; leave it out"),
        ({"delay": 0.1, "scenario": "at step 5 partition 0 | 1,2"}, "not for 'at step 5 partition"),
        ({"delay": 0.1, "scenario": "at 1s kill 1\nat 2s restart 1"}, "a restarted container has a new network"),
        ({"delay": 0.1, "scenario": "from step 5 churn 10%"}, "a restarted container has a new network"),
    ],
    ids=str,
)  # fmt: skip
def test_what_the_kernel_cannot_do_is_refused_in_one_line(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    if "scenario" in options:
        (tmp_path / "own.scn").write_text(options["scenario"] + "\n")
        options = {**options, "scenario": str(tmp_path / "own.scn")}
    with pytest.raises(ConfigError) as refused:
        plan.quick_check(Experiment(**{**TOY, **options}))
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_compose_alone_cannot_shape_and_says_so() -> None:
    environment = {"BTARD_PEERS": "2", "BTARD_TASK": "quadratic", "BTARD_DELAY": "5ms", "BTARD_SHAPING": "kernel"}
    with pytest.raises(ConfigError, match="add --backend compose"):
        roles.from_environment(environment)


def test_pauses_and_kills_go_with_it(tmp_path: Path) -> None:
    (tmp_path / "own.scn").write_text("at 1s pause 1 for 1s\nat 2s kill 2\n")
    plan.quick_check(Experiment(**TOY, delay=0.1, scenario=str(tmp_path / "own.scn")))


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        (
            Kernel(True, True, False, False),
            Wanted(False, True, False),
            "has neither netem nor NFQUEUE, so that nothing",
        ),
        (Kernel(False, True, True, True), Wanted(True, False, False), "lacks htb and u32, so that there are no rates"),
        (Kernel(True, False, True, True), Wanted(False, False, True), "lacks match statistic"),
    ],
    ids=["delay", "rate", "loss"],
)
def test_a_kernel_that_lacks_what_is_asked(found: Kernel, wanted: Wanted, words: str) -> None:
    with pytest.raises(BackendError, match=words) as refused:
        found.refuse_lack(wanted)
    assert str(refused.value).endswith(", or use --shaping process")
    found.refuse_lack(Wanted(False, False, False))
    ABLE.refuse_lack(Wanted(True, True, True))


def test_missing_tools_and_missing_rights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match="needs tc, ip, iptables-restore, nsenter, unshare, not found here; install"):
        kernel.examine()
    for tool in kernel.TOOLS:
        (tmp_path / tool).write_text("#!/bin/sh\necho unshare: Operation not permitted >&2; exit 1\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.raises(BackendError, match=r"may not enter networks here .*Operation not permitted.*; run as root, or"):
        kernel.examine()


def test_a_kernel_is_known_by_what_its_tools_could_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a kernel without netem and without the match for losses: tools that refuse just these."""
    for tool in ("ip", "nsenter", "tc", "iptables-restore"):
        script = '#!/bin/sh\nread -r given; case "$given $*" in *netem*) exit 2;; esac\n'
        if tool == "iptables-restore":
            script = '#!/bin/sh\nwhile read -r line; do case "$line" in *statistic*) exit 1;; esac; done; exit 0\n'
        (tmp_path / tool).write_text(script)
    (tmp_path / "unshare").write_text('#!/bin/sh\nshift; exec "$@"\n')
    (tmp_path / "true").write_text("#!/bin/sh\nexit 0\n")
    for tool in tmp_path.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernel.examine() == Kernel(rate=True, loss=False, netem=False, queue=True)
    assert str(kernel.examine()) == "rate by htb, delay by NFQUEUE, loss not possible"


def test_this_machines_own_network_is_never_entered() -> None:
    with pytest.raises(BackendError, match="shares this machine's own network, which is never shaped"):
        Namespace(os.getpid(), "node-0")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(BackendError, match=r"the network of node-0 .* cannot be entered .*; use --shaping process"):
        Namespace(gone.pid, "node-0")


# --- delays ------------------------------------------------------------------------------------------------------


def test_packets_are_never_early_and_overtake_each_other_only_by_jitter() -> None:
    draws = iter([0.5, 0.0])
    waiting = Waiting({1: Delay(0.025), 2: Delay(0.01, 0.04)}, lambda: next(draws))
    waiting.take(1, 7, 0.0)
    waiting.take(2, 8, 0.0)
    waiting.take(2, 9, 0.001)
    assert waiting.wait_s(0.0) == pytest.approx(0.011)
    assert waiting.release(0.0109) == []
    assert waiting.release(0.026) == [(2, 9), (1, 7)]
    assert waiting.release(0.0299) == [] and waiting.release(0.0301) == [(2, 8)]
    assert waiting.wait_s(1.0) is None


def told(queue: int, packet: int) -> bytes:
    """What the kernel says of a packet: a stamp first, then the header with its number."""
    stamp, header = netqueue.attribute(4, b"\0" * 16), netqueue.attribute(1, struct.pack("!IHB", packet, 0x0800, 1))
    return netqueue.message(netqueue.PACKET, 0, queue, stamp, header)


def test_messages_are_as_the_kernel_writes_them() -> None:
    # nlmsghdr (length 32, type 0x301, request), nfgenmsg (queue 5, big-endian), NFQA_VERDICT_HDR: NF_ACCEPT, number 9.
    own = struct.pack("=IHHII", 32, 0x301, 1, 0, 0) + bytes.fromhex("0000 0005".replace(" ", ""))
    assert netqueue.verdict(5, 9) == own + struct.pack("=HH", 12, 2) + bytes.fromhex("0000000100000009")
    other = netqueue.message(2, 0, 0, b"\0" * 16)
    assert list(netqueue.packets(told(1, 7) + other + told(258, 1 << 31))) == [(1, 7), (258, 1 << 31)]
    assert list(netqueue.packets(b"")) == list(netqueue.packets(bytes(16))) == []


def test_packets_are_let_go_when_they_are_due_and_all_ends_with_the_launcher() -> None:
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    kernels.settimeout(30)
    until, launcher = os.pipe()
    served = threading.Thread(target=netqueue.serve, args=(ours, Waiting({1: Delay(0.02)}), until))
    served.start()
    try:
        began_s = time.monotonic()
        kernels.send(told(1, 7) + told(1, 8))
        answer = b""
        while len(answer) < 64:
            answer += kernels.recv(4096)
        assert answer == netqueue.verdict(1, 7) + netqueue.verdict(1, 8)
        assert time.monotonic() - began_s >= 0.02
    finally:
        os.close(launcher)
        served.join(30)
        os.close(until)
        ours.close()
        kernels.close()
    assert not served.is_alive()


def test_a_delaying_process_that_ends_is_noticed() -> None:
    shaper = Shaper(asked(delay=0.1), ABLE, print)
    shaper.check()
    dead = subprocess.Popen([sys.executable, "-c", "raise SystemExit('no more')"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    dead.wait()
    shaper._delaying["node-1"] = dead
    with pytest.raises(BackendError, match=r"what delayed the packets of node-1 ended \(no more\)"):
        shaper.check()
    shaper.end()
    shaper.end()


# --- the node ----------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    chosen = plan.make(Experiment(**TOY, delay=0.025, link=("0->1:loss=1%",), run_dir=str(tmp_path / "run")))
    made = run_directory.create(chosen.experiment, chosen.run, chosen.roles, tmp_path, conditions=chosen.conditions)
    return met(made.configs)[0]


def test_the_process_adds_no_delay_of_its_own_and_journals_what_was_asked(config: NodeConfig, tmp_path: Path) -> None:
    links = shaped_links(config)
    assert links == {1: Link(0.025, loss=0.01), 2: Link(0.025)}
    secrets = worker.keys.load(Path(config.secrets_file))
    transport = worker._transport(config, secrets, Limits.for_run(3, 10), Credits.for_run(3, 10, 2.0, 1e6))
    try:
        assert not isinstance(transport, EmulatedTransport)
        journal = Journal(tmp_path / "journal.jsonl", 0)
        LinkWatch(transport, journal, links).end()
    finally:
        transport.close()
    rows = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [(row["event"], row["peer"], row["requested_delay_s"], row["requested_loss"]) for row in rows] == [
        ("links", 1, 0.025, 0.01), ("links", 2, 0.025, 0.0),
    ]  # fmt: skip
    assert all(row["measured_delay_s"] is row["measured_loss"] is row["rtt_s"] is None for row in rows)


def test_the_table_tells_round_trips_where_nothing_else_is_measured() -> None:
    rows = [LinkRow(one, 1 - one, 0, 0, 0.025, None, 0.01, None, None, None, 0.051 + one / 1000) for one in range(2)]
    assert weather(rows) == [
        "delay asked 25.0 ms, shortest round trips 51.0 ms to 52.0 ms (by the kernel, 2 directions; rate and loss of "
        "its packets are not measured)"
    ]
