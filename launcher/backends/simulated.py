"""All peers in one process over a modelled network: the same run directory, without the cost of a real cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btard.launcher.backends.backend import Exited
from btard.launcher.backends.local import (
    KIND_SECONDS,
    LocalBackend,
    context,
    die_with_launcher,
    redirect_output,
    server_environment,
    without_main,
)
from btard.node.config import NodeConfig

if TYPE_CHECKING:
    from btard.launcher.run.plan import Plan

LOG = "simulation.log"


class SimulatedBackend:
    """One process for the whole cluster, joined to this one by a pipe; it does not outlive it."""

    def __init__(self) -> None:
        self._context = context()
        self._process: Any = None
        self._pipe: Connection | None = None
        self._nodes: frozenset[int] = frozenset()
        self._running: set[int] = set()
        self._bound = False

    def warm_up(self) -> None:
        """Start the fork server: it loads torch while the launcher still checks and prepares."""
        LocalBackend().warm_up()

    def prepare(self, plan: Plan) -> None:
        """Processes need nothing else."""

    def start(self, configs: Sequence[NodeConfig]) -> None:
        """Start the process that simulates all nodes."""
        logs = Path(configs[0].directory).parent.parent / "logs"
        for config in configs:
            # Whoever looks for a node's log finds the one that all share.
            (logs / f"node-{config.node}.log").symlink_to(LOG)
        ours, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_work, args=(list(configs), theirs, str(logs / LOG)), name="btard-simulation", daemon=True
        )
        with server_environment(), without_main():
            self._process.start()
        theirs.close()
        self._pipe, self._nodes = ours, frozenset(config.node for config in configs)
        self._running = set(self._nodes)

    def poll(self, timeout_s: float) -> list[Exited]:
        """Wait for a node to come to its end, or for the process; see `Backend.poll`."""
        if self._pipe is None:
            return []
        if not connection.wait([self._pipe], timeout_s):
            return []
        try:
            kind, *rest = self._pipe.recv()
        except (EOFError, OSError):
            return self._over()
        if kind == "bound":
            self._bound = True
            return []
        self._running.discard(rest[0])
        return [Exited(*rest)]

    @property
    def bound(self) -> frozenset[int]:
        """All nodes, once the simulation has begun."""
        return self._nodes if self._bound else frozenset()

    def stop(self) -> None:
        """End the process: SIGTERM, then SIGKILL."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(KIND_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process = None

    def _over(self) -> list[Exited]:
        """The process has closed its pipe: nodes whose end it did not tell ended with it."""
        assert self._pipe is not None
        self._pipe.close()
        self._pipe = None
        self._process.join()
        code = self._process.exitcode or 0
        running, self._running = sorted(self._running), set()
        return [Exited(node, code) for node in running]


def _work(configs: Sequence[NodeConfig], pipe: Connection, log: str) -> None:
    """What runs in the simulation's process."""
    import threading

    redirect_output(Path(log))
    threading.Thread(target=die_with_launcher, daemon=True).start()
    from btard.node.drivers import simulated_cluster

    sys.exit(simulated_cluster.main(configs, pipe))
