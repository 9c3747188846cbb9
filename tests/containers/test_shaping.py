"""`--shaping kernel` on real containers: the delay is there, and this machine's own network is as it was."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from btard.launcher.containers import kernel
from btard.launcher.containers.engine import Place, Project
from btard.launcher.containers.kernel import Kernel
from btard.launcher.containers.netns import Namespace
from btard.launcher.containers.shaper import Shaper
from btard.launcher.network import conditions
from btard.launcher.run.experiment import Experiment
from btard.node.errors import BackendError
from tests.containers.cluster import PATIENCE_S
from tests.containers.conftest import REQUIRED
from tests.containers.test_backend import left_of
from tests.launching import LAUNCH, environment, launched, read_until

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("image")]
DELAY_S = 0.025
SMALL = ("--backend", "compose", "-n", "3", "--task", "quadratic", "--eval-every", "10", "--delivery-bound", "10s",
         "--shaping", "kernel")  # fmt: skip


@pytest.fixture(scope="module")
def able() -> Kernel:
    """What this kernel can do; it must be able to delay packets and to limit their rate."""
    try:
        found = kernel.examine()
    except BackendError as error:
        problem = str(error)
    else:
        problem = "" if found.rate and found.loss and (found.netem or found.queue) else f"this kernel: {found}"
        if not problem:
            return found
    if os.environ.get("SHAPING_REQUIRED", os.environ.get(REQUIRED)):
        pytest.fail(f"kernel shaping is required here: {problem}")
    pytest.skip(problem)


def host_network() -> tuple[list[str], list[str]]:
    """This machine's queueing disciplines that shape anything, and its rules of ours."""
    disciplines = subprocess.run(["tc", "qdisc", "show"], capture_output=True, text=True, check=True).stdout
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    shaping = [line for line in disciplines.splitlines() if line.split()[1] in ("htb", "tbf", "netem")]
    ours = [line for line in rules.splitlines() if "BTARD" in line or "NFQUEUE" in line or "statistic" in line]
    return shaping, ours


def delaying() -> set[int]:
    """Processes on this machine that delay packets."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(b"/netqueue.py") for word in words):
                found.add(int(entry.name))
    return found


def test_a_round_trip_takes_what_was_asked_and_the_host_is_left_alone(able: Kernel, tmp_path: Path) -> None:
    before, others = host_network(), delaying()
    with launched(tmp_path, *SMALL, "--steps", "30", "--delay", "25ms", "--loss", "0.5%", "--bandwidth", "20mbit",
                  "--run-dir", "run") as process:  # fmt: skip
        said = read_until(process, "the kernel shapes the links of 3 containers")
        assert host_network() == before, "while the links are shaped"
        assert len(delaying() - others) == (0 if able.netem else 3)
        assert process.stdout is not None
        said += process.stdout.read()
        assert process.wait(PATIENCE_S) == 0, said
    assert host_network() == before and delaying() <= others
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 30 and summary["agreement"] and summary["honest_banned"] == 0
    links = {(row["sender"], row["receiver"]): row for row in summary["links"]}
    assert links.keys() == {(one, other) for one in range(3) for other in range(3) if one != other}
    for row in links.values():
        assert row["requested_delay_s"] == DELAY_S and row["requested_rate"] == 2.5e6 and row["requested_loss"] == 0.005
        assert row["measured_delay_s"] is None and row["messages"] == 0, "no model in the process beside the kernel's"
        assert row["rtt_s"] >= 2 * DELAY_S, "load only adds to it"
    print(f"round trips {sorted(row['rtt_s'] for row in links.values())}")
    assert left_of(tmp_path / "run") == []


PLACES = {"node-0": "10.9.0.1", "node-1": "10.9.0.2"}
SERVER = """
import socket
with socket.create_server(("10.9.0.2", 7000)) as listening:
    print("ready", flush=True)
    line, _ = listening.accept()
    while line.recv(1 << 16):
        pass
    line.send(b"x")
"""
CLIENT = """
import json, socket, time
began = time.monotonic()
with socket.create_connection(("10.9.0.2", 7000)) as line:
    met = time.monotonic()
    line.sendall(bytes(300_000))
    line.shutdown(socket.SHUT_WR)
    line.recv(1)
    print(json.dumps([met - began, time.monotonic() - met]))
drop = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2000):
    drop.sendto(b"x", ("10.9.0.2", 9))
"""


class Pair(Project):
    """Two network namespaces with a cable between them, as two nodes' containers have."""

    def place(self, service: str) -> Place:
        return Place(int(self.name.split()[list(PLACES).index(service)]), PLACES[service])


@contextmanager
def two_networks() -> Iterator[tuple[Pair, list[Namespace]]]:
    """A pair, and both entered."""
    sleeping = [subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; read -r end"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE) for _ in PLACES]  # fmt: skip
    try:
        for process in sleeping:
            assert process.stdout is not None and process.stdout.readline() == b"\n"
        spaces = [Namespace(process.pid, name) for process, name in zip(sleeping, PLACES, strict=True)]
        spaces[0].run(
            "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(sleeping[1].pid)
        )
        for space, address in zip(spaces, PLACES.values(), strict=True):
            space.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            space.run("ip", "link", "set", "eth0", "up")
        yield Pair(" ".join(str(process.pid) for process in sleeping)), spaces
        for space in spaces:
            space.close()
    finally:
        for process in sleeping:
            process.communicate()


def test_delay_rate_and_loss_hold_in_their_own_direction(able: Kernel) -> None:
    """Namespaces without containers: what two nodes' kernels do to a connection and to packets."""
    links = ("0->1:delay=20ms,bandwidth=8mbit,loss=20%", "1->0:delay=10ms,jitter=5ms")
    asked = conditions.of(Experiment(peers=2, task="quadratic", backend="compose", shaping="kernel", link=links))
    assert asked is not None
    with two_networks() as (pair, spaces):
        shaper = Shaper(asked, able, print)
        try:
            shaper.apply(pair, {"node-0": 0, "node-1": 1})
            server = spaces[1].spawn([sys.executable, "-I", "-S", "-c", SERVER])
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            met_s, sent_s = json.loads(spaces[0].run(sys.executable, "-I", "-S", "-c", CLIENT))
            server.communicate()
            shaper.check()
            counted = spaces[1].run("iptables", "-nvxL").splitlines()
        finally:
            shaper.end()
    print(f"connected after {met_s * 1000:.1f} ms, 300 kB in {sent_s:.3f} s")
    assert met_s >= 0.030, "there and back, once"
    assert sent_s >= 0.95 * 300_000 / 1e6, "8 Mbit/s, but for a burst at the beginning"
    dropped, arrived = (
        next(int(line.split()[0]) for line in counted if f" {target} " in line) for target in ("DROP", "BTARD")
    )
    # Some of the 2000 datagrams may still be queued for their rate. Six standard deviations around a fifth.
    assert arrived > 1500 and abs(dropped - 0.2 * arrived) < 6 * math.sqrt(0.16 * arrived), counted
    print(f"{dropped} of {arrived} packets dropped")


def test_a_kernel_that_cannot_is_told_before_anything_starts(tmp_path: Path) -> None:
    """Without the tools on its path, the launcher starts no container."""
    (tmp_path / "docker").symlink_to(str(_which("docker")))
    done = subprocess.run(
        [*LAUNCH, *SMALL, "--delay", "1ms", "--run-dir", "run"], cwd=tmp_path, capture_output=True, text=True,
        env={**environment(), "PATH": str(tmp_path)}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 3 and not (tmp_path / "run").exists()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "--shaping kernel needs tc, ip, iptables-restore, nsenter, unshare" in line
    assert line.endswith("install iproute2 and iptables and util-linux, or use --shaping process")


def _which(command: str) -> str:
    import shutil

    found = shutil.which(command)
    assert found is not None
    return found
