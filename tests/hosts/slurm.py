"""A Slurm of a test's own: munged, slurmctld and a slurmd for each of its virtual nodes, all gone at the end."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.launching import await_end, environment
from tests.ports import held_range

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
PATIENCE_S = 400.0
"""Ends a wait that has hung; no test depends on how long anything takes."""
_SBIN = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"))


def missing() -> list[str]:
    """The programs that are not here."""
    return [name for name in PROGRAMS if shutil.which(name, path=_SBIN) is None]


@dataclass(frozen=True, slots=True)
class Slurm:
    """A running cluster.

    Args:
        where: its directory; `disk` in it holds what nodes keep on their own disks, jobs are submitted from `home`.
        nodes: their names.
        port: the first of two for each of them that nobody else uses.
    """

    where: Path
    nodes: tuple[str, ...]
    port: int

    def call(self, *words: str) -> str:
        """What a command of Slurm's prints; fails with what it says if it fails."""
        done = subprocess.run(
            words, cwd=self.home, env=self.environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.logs())
        return done.stdout

    @property
    def home(self) -> Path:
        """What all nodes see."""
        return self.where / "home"

    @property
    def disk(self) -> Path:
        """What each node has for itself, here below its name."""
        return self.where / "disk"

    def environment(self) -> dict[str, str]:
        """Variables of whoever submits."""
        found = {name: value for name, value in environment().items() if not name.startswith("SLURM")}
        path = f"{self.where / 'bin'}{os.pathsep}{_SBIN}"
        return {
            **found,
            "PATH": path,
            "SLURM_CONF": str(self.where / "slurm.conf"),
            "BTARD_DISK": str(self.disk),
            "BTARD_PORT": str(self.port),
        }

    def job(self, number: str, fact: str) -> str:
        """A fact of a job, as `scontrol show job` names it."""
        told = self.call("scontrol", "show", "job", "--oneliner", number)
        return next((word.partition("=")[2] for word in told.split() if word.startswith(f"{fact}=")), "")

    def wait(self, done: Callable[[], bool]) -> None:
        """Until `done`; fails with all logs after a while."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)  # there is nothing that tells of a job's state or a journal's growth

    def logs(self) -> str:
        """The ends of what jobs and daemons wrote."""
        files = [*sorted(self.home.glob("*.log")), *sorted((self.where / "log").glob("*.log"))]
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in files)


@contextmanager
def running(where: Path, count: int) -> Iterator[Slurm]:
    """A cluster of `count` virtual nodes on this machine."""
    for name in ("home", "disk", "bin", "log", "state", "spool"):
        (where / name).mkdir(parents=True)
    program = where / "bin" / "btard-node"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from btard.launcher.cli.node import main; main()" "$@"\n')
    program.chmod(0o755)
    (where / "munge.key").write_bytes(secrets.token_bytes(128))
    (where / "munge.key").chmod(0o400)
    with ExitStack() as stack:
        daemons, peers = stack.enter_context(held_range(1 + count)), stack.enter_context(held_range(2 * count))
        made = Slurm(where, tuple(f"h{number}" for number in range(count)), peers[0])
        (where / "slurm.conf").write_text(_configuration(where, daemons))
        stack.callback(_end_all, where / "slurm.conf")
        files = [
            f"--key-file={where}/munge.key",
            f"--pid-file={where}/munged.pid",
            f"--seed-file={where}/munged.seed",
            f"--log-file={where}/log/munged.log",
            f"--socket={where}/munge.socket",
        ]
        for words in (
            ("munged", "--foreground", "--force", *files),
            ("slurmctld", "-D"),
            *(("slurmd", "-D", "-N", name) for name in made.nodes),
        ):
            log = stack.enter_context((where / "log" / f"{words[0]}-{words[-1]}.out".replace("/", "-")).open("w"))
            subprocess.Popen(words, env=made.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            if words[0] == "munged":
                made.wait((where / "munge.socket").is_socket)
        yield made


def _configuration(where: Path, ports: Sequence[int]) -> str:
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    nodes = f"h[0-{len(ports) - 2}]"
    return f"""ClusterName=btard
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={where}/munge.socket
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
StateSaveLocation={where}/state
SlurmdSpoolDir={where}/spool/%n
SlurmctldPidFile={where}/slurmctld.pid
SlurmdPidFile={where}/slurmd-%n.pid
SlurmctldLogFile={where}/log/slurmctld.log
SlurmdLogFile={where}/log/slurmd-%n.log
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[-1]}] CPUs=1 RealMemory=1000
PartitionName=main Nodes={nodes} Default=YES MaxTime=30 State=UP
"""


def _end_all(configuration: Path) -> None:
    """Kill all processes of this cluster, daemons, steps and workers: their environment names its configuration."""
    words = f"SLURM_CONF={configuration}\0".encode()
    while found := [pid for pid in _processes() if words in _environment_of(pid)]:
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        await_end(found)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _environment_of(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "environ").read_bytes()
    except OSError:
        return b""
