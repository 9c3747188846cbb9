"""Applies `--shaping kernel`: each node's links, in its own container's network namespace, entered from outside.

Nothing is done to this machine's own interfaces or tables (`netns` refuses to enter them). Rules vanish with the
namespace, and the processes that delay packets end with the launcher.
"""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from btard.launcher.backends.backend import Note
from btard.launcher.containers import netqueue, places
from btard.launcher.containers.engine import Project
from btard.launcher.containers.kernel import Kernel
from btard.launcher.containers.netns import Namespace
from btard.launcher.network import shaping
from btard.node.errors import BackendError
from btard.node.netem.conditions import Conditions

_READY_S = 20.0
_KIND_S = 5.0
_PORTS = (places.CONTROL_PORT, places.BULK_PORT)


class Shaper:
    """The kernel's part in one run.

    Args:
        asked: the links, as they are for the whole run.
        kernel: what can be used.
        note: told when it is done, and what a user should be warned of.
    """

    def __init__(self, asked: Conditions, kernel: Kernel, note: Note) -> None:
        self._asked, self._kernel, self._note = asked, kernel, note
        self._delaying: dict[str, subprocess.Popen[str]] = {}

    def apply(self, project: Project, services: Mapping[str, int]) -> None:
        """Shape the links of all nodes, whose containers have just been started and still load torch.

        Args:
            project: of the run.
            services: genesis id by service.

        Raises:
            BackendError: a container does not run, its namespace cannot or must not be entered, or the kernel refuses a
                rule.
        """
        where = {node: project.place(name) for name, node in services.items()}
        addresses = [where[node].address for node in sorted(where)]
        spaces: dict[int, Namespace] = {}
        try:
            for node, place in where.items():
                spaces[node] = Namespace(place.pid, places.service(node))
                spaces[node].device(place.address)  # before anything is done inside
                self._delay(spaces[node], node, addresses)
            for process in self._delaying.values():
                _await_ready(process)
            for node, space in spaces.items():
                self._rules(space, node, addresses)
        finally:
            for space in spaces.values():
                space.close()
        self._note(f"the kernel shapes the links of {len(where)} containers")

    def check(self) -> None:
        """See that what delays packets still does.

        Raises:
            BackendError: a process ended; the links are not what was asked for any more.
        """
        for who, process in self._delaying.items():
            if process.poll() is not None:
                said = process.stderr.read().strip() if process.stderr is not None else ""
                raise BackendError(f"what delayed the packets of {who} ended ({said or process.returncode}); run again")

    def end(self) -> None:
        """End the processes. A second call does nothing."""
        delaying, self._delaying = self._delaying, {}
        for process in delaying.values():
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
        for process in delaying.values():
            try:
                process.wait(_KIND_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def _delay(self, space: Namespace, node: int, addresses: list[str]) -> None:
        """Start the process that delays what arrives at a node, where netem does not."""
        queues = shaping.queues(shaping.ways(self._asked, node, addresses, inward=True))
        if queues and not self._kernel.netem:
            # By its file and isolated: it starts in a fraction of what the packages around it take to load.
            command = [sys.executable, "-I", "-S", str(Path(netqueue.__file__).resolve()), *queues]
            self._delaying[space.who] = space.spawn(command)

    def _rules(self, space: Namespace, node: int, addresses: list[str]) -> None:
        """The rules of one node; a warning if it has talked without them."""
        netem = self._kernel.netem
        device = space.device(addresses[node])
        towards = shaping.incoming(shaping.ways(self._asked, node, addresses, inward=True), netem)
        away = shaping.outgoing(device, shaping.ways(self._asked, node, addresses, inward=False), netem)
        if towards:
            space.run("iptables-restore", "--noflush", given=towards)
        if away:
            space.run("tc", "-batch", "-", given=away)
        if space.talks(_PORTS):
            self._note(
                f"warning: {space.who} had connected before its links were shaped: its first messages were faster"
            )


def _await_ready(process: subprocess.Popen[str]) -> None:
    """Wait until a process holds its queues.

    Raises:
        BackendError: it does not.
    """
    assert process.stdout is not None and process.stderr is not None
    readable, _, _ = select.select([process.stdout], [], [], _READY_S)
    if not readable or process.stdout.readline().strip() != "ready":
        process.kill()
        said = " ".join(process.stderr.read().split())
        raise BackendError(f"packets cannot be delayed by NFQUEUE ({said or 'no answer'}); use --shaping process")
