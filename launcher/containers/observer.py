"""The `observer` service: `python -m btard.launcher.containers.observer`.

It is the only service that knows who attacks. It follows the nodes' journals to the end of the run and scores it, as
the launcher does for processes of its own. Any node may be hostile: what its files say counts for itself alone.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from btard.launcher import exits
from btard.launcher.backends.backend import Exited, Note
from btard.launcher.containers import mirror, places
from btard.launcher.containers.bundle import PASSWORD_FILE
from btard.launcher.containers.mirror import Limits
from btard.launcher.monitor import summary_table
from btard.launcher.monitor.live_view import LiveView
from btard.launcher.monitor.prometheus_session import Exporter
from btard.launcher.run import cluster, plan, removals
from btard.launcher.run.interrupts import Interrupts
from btard.launcher.run.observer import Observer
from btard.launcher.run.plan import Plan
from btard.launcher.run.run_directory import RunDirectory, RunRecord, read_record
from btard.node.config import NodeConfig
from btard.node.errors import BtardError, ConfigError
from btard.node.storage import process_lock


class Volumes:
    """Mirrors what nodes write into the run directory, and notices when one is gone.

    Args:
        peers: how many.
        root: where their volumes are mounted.
        run_dir: the run directory.
        most: what may be copied of a node's files.
        note: told of what is not.
    """

    def __init__(self, peers: int, root: Path, run_dir: Path, most: Limits, note: Note) -> None:
        self._places = {node: places.written_by(root, node) for node in range(peers)}
        self._mirror = mirror.Mirror({node: places.volume_of(root, node) for node in range(peers)}, most, root)
        self._run_dir, self._note = run_dir, note
        self._over: set[int] = set()
        self._bound: set[int] = set()

    def warm_up(self) -> None:
        """Nothing takes time."""

    def prepare(self, plan: Plan) -> None:
        """Nothing is missing."""

    def start(self, configs: Sequence[NodeConfig]) -> None:
        """They start by themselves."""

    def poll(self, timeout_s: float) -> list[Exited]:
        """Wait, copy what is new, and name the workers that ended.

        One that left no exit code was killed: everything that can be caught leaves a word.
        """
        time.sleep(timeout_s)
        gone = [node for node, place in self._places.items()
                if node not in self._over and process_lock.began(place) and not process_lock.alive(place)]  # fmt: skip
        for change in self._mirror.changes():  # after the look at who is gone, so that nobody's last words are lost
            node = mirror.take(self._run_dir, change, self._note)
            self._bound |= {node} if node is not None else set()
        self._over.update(gone)
        words = ((node, process_lock.last_word(self._places[node])) for node in gone)
        return [Exited(node, -signal.SIGKILL if word is None else word) for node, word in words]

    @property
    def bound(self) -> frozenset[int]:
        """Workers that have journalled something; the first thing is that their sockets are bound."""
        return frozenset(self._bound)

    def stop(self) -> None:
        """They are not ours to stop."""


GRAFANA, GRAFANA_PORT = "grafana", 3000


def main(arguments: list[str], root: Path = places.ROOT, port: int = places.TRUTH_PORT) -> int:
    """Follow the run, the ground truth served on a port (0: any); returns the launcher's exit code."""
    try:
        if arguments:
            raise ConfigError(f"unknown arguments {' '.join(arguments)!r}; use none")
        return observe(read_record(places.truth(root)), root, port)
    except BtardError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return exits.USAGE if isinstance(error, ConfigError) else exits.FAILED


def observe(record: RunRecord, root: Path, port: int) -> int:
    """Follow a run to its end, write its run directory and its summary.

    Raises:
        BtardError: the run directory cannot be written, or the data is missing.
    """
    directory = _run_directory(record, root)
    with Interrupts() as interrupts:
        interrupts.deferred = True
        chosen = _plan(record)
        console = Console(highlight=False, width=120)
        # The nodes may have started before this process; what they took is counted from when they got their keys.
        since = (places.truth(root) / "run.json").stat().st_mtime
        monitor = LiveView(console, since)
        most = mirror.limits(record.run.steps, chosen.dimension)
        backend = Volumes(record.run.peers, root, directory.path, most, monitor.note)
        seen = _annotated(Exporter(monitor, f"0.0.0.0:{port}"), root)
        late_s = max(0.0, time.time() - since)
        result = cluster.carry(chosen, directory, backend, seen, interrupts, head_start_s=late_s)
    name = result.run_dir.name
    summary_table.show(
        console, result.summary, result.run_dir, check=["docker", "compose", "run", "--rm", "verify", f"runs/{name}"]
    )
    for line in (
        f"take it along: docker compose cp observer:{result.run_dir} . && btard-launch verify {name}",
        "press Ctrl-C; dashboards stay until then (after `up -d`: docker compose down)",
    ):
        console.print(line, soft_wrap=True)
    removed = bool(removals.unexplained(result.summary)) and not record.experiment.allow_honest_removals
    return exits.of_run(result.summary.outcome, result.signum, violated=False, honest_removed=removed)


def _annotated(inner: Observer, root: Path) -> Observer:
    """The same with attacks and bans written to Grafana, where one was started."""
    password = places.grafana(root) / PASSWORD_FILE
    try:
        socket.gethostbyname(GRAFANA)  # it may still be starting: the first annotation comes later
        auth = f"admin:{password.read_text()}"
    except OSError:
        return inner
    from btard.launcher.monitor.grafana import Annotator

    return Annotator(inner, f"http://{GRAFANA}:{GRAFANA_PORT}", auth)


def _run_directory(record: RunRecord, root: Path) -> RunDirectory:
    """The run directory as the launcher would have made it, before the nodes have met."""
    path = places.runs(root) / record.run_id
    (path / "logs").mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_bytes((places.truth(root) / "run.json").read_bytes())
    return RunDirectory(path, record.run_id, ())


def _plan(record: RunRecord) -> Plan:
    """The plan that the run was made from, with the data as it lies here."""
    roles = {int(peer): role for peer, role in record.roles.items()}
    return plan.again(record.experiment, record.run, roles, places.DATA)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
