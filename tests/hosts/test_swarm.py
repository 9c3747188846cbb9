"""Six peers on a Swarm of three nodes: the commands in the stack's head, a task that is killed, the end, `verify`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from btard.launcher.emit.emitters import EMITTERS
from btard.launcher.verify.verification import verify
from btard.node.storage import journal
from tests.hosts import swarm
from tests.hosts.lab import Lab

pytestmark = pytest.mark.swarm
PEERS, KILLED = 6, 3
IMAGE = "btard:cpu"
PATIENCE_S = 150.0
"""Ends what hangs; no test depends on how long anything takes."""
TOML = """
peers = 6
task = "quadratic"
steps = {steps}
batch-size = 4
device = "cpu"
eval-every = {steps}
probation = 2
undo = "off"
delivery-bound = "2s"
gradient-bound = "2s"
"""


def until(done: Callable[[], bool], what: Callable[[], object]) -> None:
    """Until `done`; `what` says what there is instead, if it never comes."""
    end = monotonic() + PATIENCE_S
    while not done():
        assert monotonic() < end, what()
        sleep(0.2)


def commands(stack: str) -> list[str]:
    """The shell commands in the head of a stack."""
    return re.findall(r"^#   (\S.*)$", stack.partition("\n\n")[0], re.MULTILINE)


def of_kind(own: Path, event: str) -> list[journal.Record]:
    """What the journal in a peer's directory has of one kind."""
    paths = own.glob("nodes/*/journal.jsonl")
    return [record for path in paths for record in journal.read(path)[0] if record["event"] == event]


class Stack:
    """The run as its owner at the managing node sees it.

    Args:
        engines: by node, the manager first.
        where: the owner's directory.
    """

    def __init__(self, engines: dict[str, swarm.Engine], where: Path) -> None:
        self.engines, self.where = engines, where
        self.manager, *_ = engines.values()
        nodes = [*engines, *engines]
        self.node = dict(enumerate(sorted(nodes)))
        self._environment = {
            **self.manager.environment,
            **{f"NODE_{peer}": node for peer, node in self.node.items()},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def shell(self, command: str) -> None:
        """Run a command of the head."""
        done = subprocess.run(
            ["sh", "-euc", command], cwd=self.where, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def log(self, peer: int) -> str:
        """All that a peer's tasks said."""
        done = self.manager.run("service", "logs", "--raw", f"btard_peer-{peer}")
        return done.stdout + done.stderr

    def containers(self, peer: int) -> list[str]:
        """Ids of the containers of a peer that run, on its node."""
        return self.engines[self.node[peer]].docker("ps", "-q", "--filter", f"name=btard_peer-{peer}.").split()

    def address(self, peer: int) -> str:
        """Of its container on the overlay."""
        (container,) = self.containers(peer)
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.engines[self.node[peer]].docker("inspect", "-f", form, container)

    def told(self) -> list[str]:
        """What tasks said, and why those of the swarm's that did not run did not."""
        services = [f"btard_peer-{peer}" for peer in range(PEERS)]
        return [self.manager.docker("service", "ps", "--no-trunc", *services), *map(self.log, range(PEERS))]

    def volume(self, peer: int) -> Path:
        """Where a peer's own volume lies on its node."""
        node = self.engines[self.node[peer]]
        return Path(node.docker("volume", "inspect", "-f", "{{.Mountpoint}}", f"btard_own-{peer}"))

    def copied(self, peer: int) -> Path:
        """What a peer's volume holds, copied here."""
        mine = self.where / f"own-{peer}"
        shutil.copytree(self.volume(peer), mine)
        return mine

    def records(self, peer: int, event: str) -> list[journal.Record]:
        """What a peer's journal has of one kind."""
        return of_kind(self.volume(peer), event)

    def step(self, peer: int) -> int:
        """The last one that a peer committed."""
        return max((int(record["step"]) for record in self.records(peer, "committed")), default=-1)


def test_a_killed_task_comes_back_at_a_new_address_and_the_run_is_verified(lab: Lab, tmp_path: Path) -> None:
    if (problem := swarm.lacking(IMAGE)) is not None:
        if os.environ.get("HOSTS_REQUIRED"):
            pytest.fail(f"a swarm is required here: {problem}")
        pytest.skip(f"NOT RUN, a swarm on three nodes: {problem}")
    text = EMITTERS["swarm"](PEERS).text
    (tmp_path / "stack.yaml").write_text(text)
    options, deploy, gather, assemble, again = commands(text)
    with swarm.swarm(lab, IMAGE) as engines:
        run = Stack(engines, tmp_path)
        run.shell(options)
        (tmp_path / "run.toml").write_text(TOML.format(steps=1_000_000))
        run.shell(deploy)
        until(lambda: all("proposal " in run.log(peer) for peer in range(PEERS)), run.told)
        run.shell(gather)
        run.shell(assemble)
        run.shell(again)
        until(lambda: min(map(run.step, range(PEERS))) > 2, run.told)
        before, (container,) = run.address(KILLED), run.containers(KILLED)
        began = monotonic()
        engines[run.node[KILLED]].docker("kill", container)
        last = max(map(run.step, range(PEERS)))
        # Back before the others lose patience it goes on with them; else they let it in after its probation.
        until(lambda: min(map(run.step, range(PEERS))) > last + 3, run.told)
        removed = {record["peer"] for record in run.records(0, "banned")}
        back = f"in step again at {run.address(KILLED)} after {monotonic() - began:.1f} s"
        print(f"peer {KILLED}, killed at {before}, is {back}; removed meanwhile: {removed or 'nobody'}")
        assert run.address(KILLED) != before
        run.manager.docker("stack", "rm", "btard")
        until(lambda: not any(map(run.containers, range(PEERS))), run.told)
        owned = [run.copied(peer) for peer in range(PEERS)]
    digests: dict[int, set[str]] = {}
    for record in (record for own in owned for record in of_kind(own, "committed")):
        digests.setdefault(record["step"], set()).add(record["state_digest"])
    assert digests and all(len(found) == 1 for found in digests.values())
    assert {record["standing"] for own in owned for record in of_kind(own, "banned")} <= {"gone"}
    report = verify(owned[0])
    print(report.findings)
    assert not report.wrong, report.findings
