"""The backend of the observer: others start and stop the nodes, it reads their volumes."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

from btard.launcher.backends import Exited, Note
from btard.launcher.containers import mirror, places
from btard.launcher.containers.mirror import Limits
from btard.launcher.run.plan import Plan
from btard.node.config import NodeConfig
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
        self._mirror = mirror.Mirror({node: places.volume_of(root, node) for node in range(peers)}, most)
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
            self._bound.add(mirror.take(self._run_dir, change, self._note))
        self._over.update(gone)
        words = ((node, process_lock.last_word(self._places[node])) for node in gone)
        return [Exited(node, -signal.SIGKILL if word is None else word) for node, word in words]

    @property
    def bound(self) -> frozenset[int]:
        """Workers that have journalled something; the first thing is that their sockets are bound."""
        return frozenset(self._bound)

    def stop(self) -> None:
        """They are not ours to stop."""
