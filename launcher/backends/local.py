"""Workers as processes of this machine, forked from a server that has torch loaded already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from btard.launcher.backends.backend import Exited
from btard.node.config import NodeConfig
from btard.node.errors import BackendError

if TYPE_CHECKING:
    from btard.launcher.run.plan import Plan

P = ParamSpec("P")
T = TypeVar("T")

# glibc reads the allocator's settings at exec, hence before the server starts. Freed tensors of any size stay mapped
# instead of returning to the kernel after each step, ZeroMQ's threads share them (one arena), and they lie in huge
# pages: a fresh vector of 40 MB costs 3 ms of page faults and copying, with the defaults 22 ms.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "67108864",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
PRELOAD = ["btard.launcher.backends.preload", "btard.launcher.backends.local"]
_SIGNALS = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "continue": signal.SIGCONT}
KIND_SECONDS = 5.0
# Starting a process changes this one's environment and modules for a moment: one thread at a time.
_STARTING = threading.RLock()
ORPHAN_SECONDS = 5.0


class LocalBackend:
    """One process per peer, joined to this one by a pipe; none outlives it."""

    def __init__(self) -> None:
        self._context = context()
        self._processes: dict[int, BaseProcess] = {}
        self._pipes: dict[int, Connection] = {}
        self._bound: set[int] = set()
        self._configs: dict[int, NodeConfig] = {}

    def warm_up(self) -> None:
        """Start the fork server: it loads torch while the launcher still checks and prepares."""
        if isinstance(self._context, ForkServerContext):
            with server_environment():
                forkserver.ensure_running()

    def prepare(self, plan: Plan) -> None:
        """Processes need nothing else."""

    def start(self, configs: Sequence[NodeConfig]) -> None:
        """Start one worker per configuration and return; `poll` carries the start-up on."""
        for config in configs:
            self._configs[config.node] = config
            self._launch(config)

    def _launch(self, config: NodeConfig) -> None:
        ours, theirs = self._context.Pipe()
        process: BaseProcess = self._context.Process(
            target=_work, args=(config, theirs), name=f"btard-node-{config.node}", daemon=True
        )
        with server_environment(), without_main():
            process.start()
        theirs.close()
        self._processes[config.node], self._pipes[config.node] = process, ours

    def poll(self, timeout_s: float) -> list[Exited]:
        """Wait for a worker to bind or to end; see `Backend.poll`."""
        alive = {process.sentinel: node for node, process in self._processes.items()}
        binding = {pipe: node for node, pipe in self._pipes.items() if node not in self._bound}
        ready = connection.wait([*alive, *binding], timeout_s)
        for item in ready:
            if isinstance(item, Connection):
                self._receive(binding[item])
        return [self._reap(alive[item]) for item in ready if isinstance(item, int)]

    @property
    def bound(self) -> frozenset[int]:
        """Workers that have bound their sockets."""
        return frozenset(self._bound)

    def act(self, action: str, node: int) -> None:
        """Send a worker the signal that a scenario asks for, or start one again that has ended."""
        process = self._processes.get(node)
        if action == "restart":
            if process is not None:
                process.kill()
                self._reap(node)
            self._launch(self._configs[node])
            return
        if process is not None and process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, _SIGNALS[action])

    def stop(self) -> None:
        """End every worker: "stop" on its pipe and SIGTERM, then SIGKILL; returns when none is left."""
        for node, process in self._processes.items():
            if node in self._pipes:
                with suppress(OSError):
                    self._pipes[node].send(("stop",))
            process.terminate()
            self.act("continue", node)  # a paused one would not hear
        deadline = time.monotonic() + KIND_SECONDS
        for node, process in list(self._processes.items()):
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
            self._forget(node)

    def _receive(self, node: int) -> None:
        try:
            self._pipes[node].recv()  # that it has bound
        except (EOFError, OSError):
            # It died before binding; its sentinel says so too.
            self._pipes.pop(node).close()
        else:
            self._bound.add(node)

    def _reap(self, node: int) -> Exited:
        process = self._processes[node]
        process.join()
        code = process.exitcode
        self._forget(node)
        return Exited(node, 1 if code is None else code)

    def _forget(self, node: int) -> None:
        del self._processes[node]
        if node in self._pipes:
            self._pipes.pop(node).close()


def context() -> ForkServerContext | SpawnContext:
    """Fork server with torch and the worker loaded; spawn where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOAD)
    return server


def call_aside(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a process like a worker's: whatever it sets in torch stays there.

    Raises:
        BackendError: the process was killed.
        Exception: whatever the function raises.
    """
    with server_environment(), without_main(), ProcessPoolExecutor(1, mp_context=context()) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise BackendError(f"the process that ran {function.__name__} was killed; is there memory left?") from error


@contextmanager
def server_environment() -> Iterator[None]:
    """What a process started meanwhile inherits: the workers' environment, and a deaf ear for Ctrl-C, which reaches
    the whole process group; only the launcher acts on it, and tells the workers."""
    with _STARTING:
        yield from _lend_environment()


def _lend_environment() -> Iterator[None]:
    # Started later, together with the fork server, the tracker would unblock SIGINT under our feet.
    resource_tracker.ensure_running()
    # The fork server preloads by its own path: without ours it would find nothing beside installed packages, skip
    # the preload silently, and leave each worker to import torch for itself.
    wanted = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def without_main() -> Iterator[None]:
    """Hide `__main__` while a process starts: workers need nothing from the user's script, and a script that
    calls `run()` without the usual guard would otherwise run again in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(config: NodeConfig, pipe: Any) -> None:
    """What runs in a worker process."""
    redirect_output(Path(config.directory).parent.parent / "logs" / f"node-{config.node}.log")
    threading.Thread(target=die_with_launcher, daemon=True).start()
    from btard.node import worker

    sys.exit(worker.main(config, pipe))


def redirect_output(log: Path) -> None:
    """Send everything this process prints, native libraries included, to its log."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def die_with_launcher() -> None:
    """End this process if the launcher is gone, even when killed, and the worker has not noticed by itself.

    PR_SET_PDEATHSIG would not do: a worker's parent is the fork server, which lives as long as a worker does.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(ORPHAN_SECONDS)
        os._exit(1)
