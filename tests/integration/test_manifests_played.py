"""The commands in manifests, as processes of this machine: mounts are folders, and the engine is this test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from btard.launcher.containers.places import METRICS_PORT
from btard.launcher.emit.emitters import EMITTERS
from btard.launcher.verify.verification import verify
from btard.node.genesis.identity import APPROVAL, SECRETS
from btard.node.storage import journal
from tests.launching import LAUNCH, environment
from tests.ports import held_ports
from tests.unit.launcher.emit.test_pods import pod

pytestmark = pytest.mark.sockets
PEERS = 3
PATIENCE_S = 300.0
TOML = 'peers = 3\ntask = "quadratic"\nsteps = 6\nbatch-size = 4\ndevice = "cpu"\neval-every = 3\n'


class Engine:
    """What starts containers: folders of this test in place of mounts, ports of its own in place of addresses.

    Args:
        where: the folder of all peers.
        scripts: by peer what its containers run, one after the other.
        mounts: path in a container to the folder or file that is there, `{}` for the peer's number.
        ports: one for each peer.
    """

    def __init__(self, where: Path, scripts: Sequence[Sequence[str]], mounts: Mapping[str, str], ports: Sequence[int]):
        self.where, self.mounts, self.ports = where, mounts, ports
        (where / "bin").mkdir()
        program = where / "bin" / "btard-node"
        main = "from btard.launcher.cli.node import main; main()"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{main}" "$@"\n')
        program.chmod(0o755)
        self._scripts = [[self._here(number, text) for text in texts] for number, texts in enumerate(scripts)]

    def _here(self, number: int, script: str) -> str:
        for path, place in self.mounts.items():
            script = script.replace(path, str(self.where / place.format(number)))
        script = script.replace(f"0.0.0.0:{METRICS_PORT}", "127.0.0.1:0")
        # The ports are held by this test, so all addresses of this host cannot be bound.
        return re.sub(r"(btard-node run \S+)", rf"\1 --listen {self.address(number)}", script)

    def address(self, number: int) -> str:
        """Where a peer is."""
        return f"tcp://127.0.0.1:{self.ports[number]}"

    def log(self, number: int) -> str:
        """What a peer's containers wrote."""
        return (self.where / f"{number}.log").read_text()

    @contextmanager
    def started(self, number: int, container: int) -> Iterator[subprocess.Popen[bytes]]:
        """A container, killed at the end if it is still there."""
        path = f"{self.where / 'bin'}{os.pathsep}{os.environ['PATH']}"
        with (self.where / f"{number}.log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", "-euc", self._scripts[number][container]],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**environment(), "PATH": path, "ADDRESS": self.address(number)},
                cwd=self.where,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def ended(self, number: int, container: int) -> int:
        """The exit code of a container."""
        with self.started(number, container) as process:
            return process.wait(PATIENCE_S)


def test_pods_make_their_keys_and_run_what_they_were_told(tmp_path: Path) -> None:
    (made,) = (each for each in yaml.safe_load_all(EMITTERS["kubernetes"](PEERS).text) if each["kind"] == "StatefulSet")
    spec: dict[str, Any] = made["spec"]["template"]["spec"]
    identity, peer = spec["initContainers"][0], spec["containers"][0]
    assert [each["command"] for each in (identity, peer)] == [["sh", "-euc"]] * 2
    mounts = {
        "/btard/own": "own-{}",
        "/btard/genesis": "genesis",
        "/btard/run": "run-{}",
        identity["terminationMessagePath"]: "message-{}",
    }
    assert {mount["mountPath"] for mount in peer["volumeMounts"]} == {*mounts} - {"/dev/termination-log"} | {"/tmp"}
    value = identity["env"][-1]["value"].replace("$(POD_NAME)", "peer-1").replace("$(POD_NAMESPACE)", "btard")
    assert value == "tcp://peer-1.mesh.btard.svc:7400"
    for name in ("genesis", *(f"{kind}-{number}" for kind in ("own", "run") for number in range(PEERS))):
        (tmp_path / name).mkdir()
    for number in range(PEERS):
        (tmp_path / f"run-{number}" / "run.toml").write_text(TOML)
    with held_ports(PEERS) as ports:
        engine = Engine(tmp_path, [[identity["args"][0], peer["args"][0]]] * PEERS, mounts, ports)
        for number in range(PEERS):
            assert engine.ended(number, 0) == 0, engine.log(number)
        messages = [(tmp_path / f"message-{number}").read_text() for number in range(PEERS)]
        assert engine.ended(0, 0) == 0, "a pod that was moved begins with it again"
        assert (tmp_path / "message-0").read_text() == messages[0] and len(messages[0]) < 4096
        items = [pod(f"peer-{number}", message) for number, message in enumerate(messages)]
        (tmp_path / "pods.json").write_text(json.dumps({"items": items}))
        words = ("genesis", "--from-pods", "pods.json", "--config", "run-0/run.toml")
        done = subprocess.run([*LAUNCH, *words], cwd=tmp_path, env=environment(), capture_output=True, check=True)

        # Peer 2's owner wants another run: its pod signs nothing.
        (tmp_path / "run-2" / "run.toml").write_text(TOML.replace("steps = 6", "steps = 7"))
        (tmp_path / "genesis" / "genesis.json").write_bytes(done.stdout)
        assert engine.ended(2, 1) == 2
        assert "error: nothing was signed: steps is 6 in the genesis, 7 in" in engine.log(2)
        assert not (tmp_path / "own-2" / APPROVAL).exists()
        (tmp_path / "run-2" / "run.toml").write_text(TOML)
        with engine.started(0, 1) as first, engine.started(1, 1) as second, engine.started(2, 1) as third:
            pods = (first, second, third)
            for number, process in enumerate(pods):  # a pod stays and serves its files, until it is told to end
                while not finished(tmp_path / f"own-{number}"):
                    with pytest.raises(subprocess.TimeoutExpired):
                        process.wait(0.1)
            for process in pods:
                process.terminate()
            codes = [process.wait(PATIENCE_S) for process in pods]
        assert codes == [0] * PEERS, [engine.log(number) for number in range(PEERS)]

        (tmp_path / "genesis" / "genesis.json").unlink()
        with engine.started(1, 1) as process:
            while "stays: its files" not in engine.log(1):
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.1)
            process.terminate()
            assert process.wait(PATIENCE_S) == 0 and "has finished already" in engine.log(1)
    check(tmp_path)


def test_a_swarms_tasks_make_their_keys_and_run_what_they_were_told(tmp_path: Path) -> None:
    stack = yaml.safe_load(EMITTERS["swarm"](PEERS).text)
    scripts = []
    for name, service in stack["services"].items():
        assert service["command"][:2] == ["sh", "-euc"]
        assert service["environment"]["ADDRESS"] == f"tcp://{name}:7400"
        scripts.append([service["command"][2].replace("$$", "$")])
    mounts = {
        "/btard/run": "own-{}",
        "/genesis.json": "genesis.json",
        "/run.toml": "run.toml",
        "/tmp/proposal": "sent-{}",
    }
    (tmp_path / "run.toml").write_text(TOML)
    (tmp_path / "genesis.json").write_text("\n")
    with held_ports(PEERS) as ports:
        engine = Engine(tmp_path, scripts, mounts, ports)
        with engine.started(0, 0) as first, engine.started(1, 0) as second, engine.started(2, 0) as third:
            tasks = (first, second, third)
            proposals = []
            for number, task in enumerate(tasks):
                while not (found := re.findall("^proposal (.*)$", engine.log(number), re.MULTILINE)):
                    with pytest.raises(subprocess.TimeoutExpired):
                        task.wait(0.1)
                (tmp_path / f"{number}.proposal").write_text(found[-1])
                proposals.append(f"{number}.proposal")
            words = [tmp_path / "bin" / "btard-node", "assemble", "run.toml", *proposals]
            done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, check=True)
            (tmp_path / "made.json").write_bytes(done.stdout)
            (tmp_path / "made.json").replace(tmp_path / "genesis.json")
            assert [task.wait(PATIENCE_S) for task in tasks] == [0] * PEERS, [engine.log(each) for each in range(PEERS)]
    check(tmp_path)


def finished(own: Path) -> bool:
    """True once a peer has journalled its end."""
    return any(
        record["event"] == "finished" for path in own.glob("nodes/*/journal.jsonl") for record in journal.read(path)[0]
    )


def check(where: Path) -> None:
    """All finished alike, each has the proof, and no secret is in a file of another."""
    ends, secret = [], []
    for number in range(PEERS):
        own = where / f"own-{number}"
        (path,) = own.glob("nodes/*/journal.jsonl")
        ends += [record for record in journal.read(path)[0] if record["event"] == "finished"]
        secret += json.loads((own / SECRETS).read_text()).values()
        report = verify(own)
        assert not report.wrong, report.findings
    assert len(ends) == PEERS and len({record["parameter_digest"] for record in ends}) == 1
    files = [path for path in where.rglob("*") if path.is_file() and path.name != SECRETS]
    assert len(set(secret)) == 3 * PEERS
    assert not [path for path in files for value in secret if value.encode() in path.read_bytes()]
