"""A Docker Swarm for tests: an engine of its own on each host of the laboratory, joined over its switch.

The engines share nothing with the one that already runs on this machine but the files of its images' layers, which are
linked and not copied: an engine never changes one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

from tests.hosts.lab import Lab, namespace

PROGRAMS = ("docker", "dockerd", "nsenter", "iptables")
PATIENCE_S = 240.0
"""Ends what hangs: an engine that does not answer, or an image that is not copied."""


def lacking(image: str) -> str | None:
    """Why there can be no swarm here; None: there can."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"there is no {', '.join(missing)} here"
    if _docker("info", "-f", "{{.Driver}}") != "overlay2":
        return "no engine answers here that keeps its images by overlay2"
    return None if _docker("images", "-q", image) else f"no engine here has the image {image}: docker compose build"


def _docker(*words: str) -> str:
    """What this machine's own engine answers."""
    return subprocess.run(["docker", *words], capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True)
class Engine:
    """One host's engine.

    Args:
        host: the node's name.
        where: its files.
    """

    host: str
    where: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes `docker` ask this engine."""
        return {**os.environ, "DOCKER_HOST": f"unix://{self.where}/sock"}

    def docker(self, *words: str) -> str:
        """What a command that succeeds prints."""
        done = self.run(*words)
        assert done.returncode == 0, f"{self.host}: docker {' '.join(words)}: {done.stderr}{self.log}"
        return done.stdout.strip()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command's end, whatever it is."""
        command = ["docker", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S)

    @property
    def log(self) -> str:
        """The last that it said."""
        return "\n".join((self.where / "log").read_text().splitlines()[-5:])

    @contextmanager
    def running(self) -> Iterator[Engine]:
        """It answers; its containers, networks and files are gone afterwards."""
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        flags = [f"--{flag}={self.where / name}" for flag, name in places.items()]
        flags += ["-H", f"unix://{self.where}/sock", "--userland-proxy=false"]
        inside = f"hostname {self.host} && exec dockerd {' '.join(flags)}"  # a node's name is its host's
        enter = ["nsenter", f"--net=/run/netns/{namespace(self.host)}", "unshare", "-u", "sh", "-euc", inside]
        with (self.where / "log").open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *enter],
                cwd=self.where,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._answers(process)
            yield self
        finally:
            process.send_signal(signal.SIGTERM)  # it ends its containers, and its containerd
            process.wait(PATIENCE_S)
            for left in (self.where / "exec" / "netns").glob("*"):  # a swarm's load balancers
                subprocess.run(["umount", "--lazy", left], capture_output=True)  # not all of them are mounted

    def _answers(self, process: subprocess.Popen[bytes]) -> None:
        end = monotonic() + PATIENCE_S
        while subprocess.run(["docker", "version"], env=self.environment, capture_output=True).returncode != 0:
            assert process.poll() is None and monotonic() < end, f"{self.host}: {self.log}"
            sleep(0.1)


@contextmanager
def swarm(lab: Lab, image: str) -> Iterator[dict[str, Engine]]:
    """An engine on each host, the first of which manages the swarm; all have the image."""
    store = Path(_docker("info", "-f", "{{.DockerRootDir}}"))
    with ExitStack() as stack:
        root = Path(
            stack.enter_context(TemporaryDirectory(prefix="sw-", dir=store))
        )  # it is a mount, and links stay in one
        engines = {host: Engine(host, root / host) for host in lab.ipv4}
        for engine in engines.values():
            (engine.where / "data").mkdir(parents=True)
            layers = _docker("image", "inspect", "-f", "{{json .GraphDriver.Data}}", image)
            names = {Path(each).parent.name for each in re.findall(r"[^:\"]+/diff", layers)}
            for linked in ("image", "overlay2/l", *(f"overlay2/{name}" for name in names)):
                (engine.where / "data" / linked).parent.mkdir(exist_ok=True)
                subprocess.run(["cp", "-al", store / linked, (engine.where / "data" / linked).parent], check=True)
            stack.enter_context(engine.running())
            engine.docker("image", "inspect", image)
        first, *others = engines.values()
        first.docker("swarm", "init", "--advertise-addr", lab.ipv4[first.host])
        token = first.docker("swarm", "join-token", "-q", "worker")
        for engine in others:
            address = lab.ipv4[engine.host]
            engine.docker(
                "swarm", "join", "--advertise-addr", address, "--token", token, f"{lab.ipv4[first.host]}:2377"
            )
        yield engines
