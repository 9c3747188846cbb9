"""One cluster of real containers, and the questions that tests ask it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = float(os.environ.get("CONTAINERS_PATIENCE_S", "30"))
"""Deadline of a single step; a machine that does other work at the same time needs more."""
NODES = [f"node-{node}" for node in range(6)]
WITHOUT_GRAFANA = [*NODES, "observer", "prometheus"]


class Cluster:
    """The committed compose.yaml under a project name of its own, its ports chosen by the system.

    Args:
        settings: `BTARD_*` variables.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.project = f"btard-test-{uuid.uuid4().hex[:10]}"
        self.settings = dict(settings)
        self.began = time.time()

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a Compose command; a failure shows what it said."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BTARD_", "COMPOSE_"))}
        environment = {**kept, "PROMETHEUS_PORT": "0", "GRAFANA_PORT": "0", **self.settings}
        command = ["docker", "compose", "--ansi", "never", "-p", self.project, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0 or not check, f"{arguments}: {done.stderr[-3000:]}\n{self.story()}"
        return done

    def up(self, wait: bool = False) -> None:
        """Start everything but Grafana, and return at once, or once all of it is healthy."""
        self.began = time.time()
        self.compose("up", "--detach", *(["--wait"] if wait else []), "--no-build", *WITHOUT_GRAFANA)

    def down(self) -> None:
        """Remove all."""
        self.compose("unpause", check=False)
        self.compose("down", "--volumes", "--timeout", "5", check=False)

    def states(self) -> dict[str, dict[str, Any]]:
        """What Compose says of each service's container, those that ended included."""
        lines = self.compose("ps", "--all", "--format", "json").stdout.splitlines()
        return {each["Service"]: each for each in map(json.loads, lines)}

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine says of a service's container."""
        found = self.states()[service]["ID"]
        done = subprocess.run(["docker", "inspect", found], capture_output=True, text=True, check=True)
        made: dict[str, Any] = json.loads(done.stdout)[0]
        return made

    def inside(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a running container."""
        return self.compose("exec", "-T", service, *command, check=False)

    def left(self) -> list[str]:
        """Containers, volumes and networks of the project that are still there."""
        found = []
        for kind, options in (("container", ["--all"]), ("volume", []), ("network", [])):
            command = ["docker", kind, "ls", "--quiet", *options,
                       "--filter", f"label=com.docker.compose.project={self.project}"]  # fmt: skip
            found += subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return found

    def story(self) -> str:
        """The ends of all logs, for a failure's message."""
        command = ["docker", "compose", "--ansi", "never", "-p", self.project, "logs", "--tail", "15"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout

    def wait(self, what: str, ready: Callable[[], object], seconds: float = PATIENCE_S) -> Any:
        """Ask until the answer is true; fail with the containers' logs after the deadline."""
        deadline = time.monotonic() + seconds
        while not (answer := ready()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{self.states()}\n{self.story()}"
            # The one pause in these tests. Most of what is awaited is an answer of Prometheus, which tells nobody when
            # it changes; the engine has events, but for the states of containers only.
            time.sleep(0.5)
        return answer

    def wait_healthy(self) -> float:
        """Wait until every node has been healthy; returns the seconds since `up`."""
        seen: set[str] = set()

        def all_seen() -> bool:
            seen.update(name for name, each in self.states().items() if each["Health"] == "healthy")
            return seen.issuperset(NODES)

        self.wait("six healthy nodes", all_seen, 2 * PATIENCE_S)
        return time.time() - self.began

    def address(self) -> str:
        """Where Prometheus answers on this machine."""
        return "http://" + self.compose("port", "prometheus", "9090").stdout.strip()

    def ask(self, expression: str, until: float | None = None) -> list[dict[str, Any]]:
        """The series of an expression over the time since `up`."""
        query = {"query": expression, "start": self.began, "end": until or time.time(), "step": "1"}
        url = f"{self.address()}/api/v1/query_range?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            made: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return made

    def last(self, expression: str) -> dict[str, float]:
        """The last value of each series, by its peer (or by nothing)."""
        return {each["metric"].get("peer", ""): float(each["values"][-1][1]) for each in self.ask(expression)}

    def step(self) -> float:
        """The last step that Prometheus knows of."""
        return max(self.last("max(btard_run_step)").values(), default=-1.0)

    def summary(self, where: Path) -> tuple[dict[str, Any], Path]:
        """The observer's summary and its run directory, copied here."""
        self.compose("cp", "observer:/btard/runs/.", str(where))
        (run_dir,) = (path for path in where.iterdir() if (path / "run.json").exists())
        made: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
        return made, run_dir


def firing(series: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of alerts in the answer to `ALERTS`."""
    return {each["metric"]["alertname"] for each in series}
