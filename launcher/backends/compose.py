"""Workers in containers, started from here: the same compose file that `docker compose up` uses, watched from outside.

The run is prepared on this machine like any other, handed to the `roles` service on its standard input, and what the
nodes write comes back as a stream. So it does not matter where the engine runs.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from btard.launcher import assets
from btard.launcher.backends.backend import Exited, Note
from btard.launcher.containers import bundle, emit, engine, kernel, mirror, places, ports, versions
from btard.launcher.containers.engine import Project
from btard.launcher.containers.mirror import Change
from btard.launcher.containers.shaper import Shaper
from btard.launcher.files import write_atomically
from btard.launcher.network import shaping
from btard.launcher.run.plan import Plan
from btard.launcher.run.run_directory import RunDirectory
from btard.node.config import NodeConfig
from btard.node.errors import BackendError

KIND_SECONDS = 10
DRAIN_SECONDS = 5.0
_WAITING = 4096
_ERASE = "\x1b[2K"
"""Compose puts it before every line of a log, also where nothing is a terminal."""


class ComposeBackend:
    """One Compose project per run; nothing of it outlives the run, but for the image.

    Args:
        note: told what takes time.
    """

    def __init__(self, note: Note) -> None:
        self._note = note
        self._project: Project | None = None
        self._run_dir = Path()
        self._services: dict[str, int] = {}
        self._stream: subprocess.Popen[bytes] | None = None
        self._events: subprocess.Popen[bytes] | None = None
        self._heard: queue.Queue[Change | Exited | None] = queue.Queue(_WAITING)
        self._sweeps = 0
        self._ended: dict[int, tuple[Exited, int]] = {}
        self._over: set[int] = set()
        self._paused: set[int] = set()
        self._unheard: Counter[int] = Counter()
        self._bound: set[int] = set()
        self._shaper: Shaper | None = None
        self._dimension = 0

    def warm_up(self) -> None:
        """Look for the engine, so that a machine without one says so at once.

        Raises:
            BackendError: there is none, or its Compose is too old.
        """
        engine.find()

    def prepare(self, plan: Plan) -> None:
        """Check for a GPU, free ports and the kernel's shaping where they are asked for; build the image or find it.

        Raises:
            BackendError: no GPU for containers, a port in use, a kernel that cannot shape, no image and no clone to
                build it from, or the build failed.
        """
        if plan.experiment.shaping == "kernel" and plan.conditions is not None:
            found = kernel.examine()
            found.refuse_lack(shaping.wanted(plan.conditions, plan.run.peers))
            self._shaper = Shaper(plan.conditions, found, self._note)
        self._dimension = plan.dimension or 0
        device = plan.run.device
        if device == "cuda":
            engine.check_gpu()
        if plan.experiment.monitor:
            ports.check()
        image = emit.image(device)
        self._provide(image, device)
        if problem := _unlike(image):
            self._note(f"warning: {problem}")

    def _provide(self, image: str, device: str) -> None:
        """Build the image, or find it."""
        root = assets.root()
        if not (root / "Dockerfile").exists():
            if not engine.has_image(image):
                raise BackendError(f"the image {image} is not here; build it in a clone: docker compose build")
            return
        self._note(f"building {image} from {root} (minutes at first, seconds after)")
        files = (root / "compose.yaml", *((root / "deploy" / "compose.gpu.yaml",) if device == "cuda" else ()))
        Project("btard-build", files, root).run("build", "roles", within_s=engine.BUILD_S)

    def start(self, configs: Sequence[NodeConfig]) -> None:
        """Hand out configurations and roles, start the nodes and their observer, and begin to listen.

        Raises:
            BackendError: the engine refuses something.
        """
        self._run_dir = Path(configs[0].directory).parent.parent
        self._services = {places.service(config.node): config.node for config in configs}
        monitored = any(config.metrics is not None for config in configs)
        project = self._project = self._written(configs)
        made = RunDirectory(self._run_dir, configs[0].run_id, tuple(configs))
        goods = msgspec.json.encode(bundle.pack(made, monitored))
        alone = ("run", "--rm", "-T", "--no-deps")
        project.run(*alone, "roles", "python", "-m", "btard.launcher.containers.roles", "deliver", given=goods)
        self._events = project.deaths()
        self._listen(self._events, self._took_event)
        sizes = map(str, (len(configs), configs[0].run.steps, self._dimension))
        mirrored = ("observer", "python", "-m", "btard.launcher.containers.mirror", *sizes)
        self._stream = engine.spawn(project.command(*alone, *mirrored))
        self._listen(self._stream, self._took_change)
        beside = ["observer", *(["prometheus"] if monitored else [])]
        project.run("up", "--detach", "--no-deps", "--no-build", *beside)
        # A short run is over before a slow machine has started one more container: whoever acts by the run's steps
        # has to see the first of them.
        self._await_sweep(project)
        project.run("up", "--detach", "--no-deps", "--no-build", *self._services)
        if self._shaper is not None:
            self._shaper.apply(project, self._services)
        if monitored:
            self._show_pages(project)

    def poll(self, timeout_s: float) -> list[Exited]:
        """Wait for news, write what the nodes wrote, and name the workers that ended.

        An end is told once everything that the worker had written by then is here.

        Raises:
            BackendError: the connection to the containers broke, or their links are not shaped any more.
        """
        if self._shaper is not None:
            self._shaper.check()
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                heard = self._heard.get(timeout=left_s)
            except queue.Empty:
                break
            if heard is None:
                raise BackendError("the connection to the containers broke; is the engine still running?")
            self._take(heard)
            if self._complete():
                break
        done = self._complete()
        for exited in done:
            del self._ended[exited.node]
            self._over.add(exited.node)
            self._keep_log(exited.node)
        return done

    @property
    def bound(self) -> frozenset[int]:
        """Workers that have journalled something; the first thing is that their sockets are bound."""
        return frozenset(self._bound)

    def act(self, action: str, node: int) -> None:
        """Do to a node's container what a scenario asks for; its volumes stay, so a restarted node is where it was.

        Raises:
            BackendError: the engine refuses it.
        """
        assert self._project is not None
        service = places.service(node)
        running = self._project.running(service)
        match action:
            case "restart":
                if running:
                    self._tell("kill", service)
                self._begin_again(node)
                self._project.tell("start", service)
            case "kill" if running:
                self._tell("kill", service)
            case "pause" if running and node not in self._paused and self._tell("pause", service):
                self._paused.add(node)
            case "continue" if node in self._paused:
                self._project.tell("unpause", service)
                self._paused.discard(node)

    def _tell(self, what: str, service: str) -> bool:
        """Do it, unless the container ends of itself at this moment; False if it did."""
        assert self._project is not None
        try:
            self._project.tell(what, service)
        except BackendError:
            if self._project.running(service):
                raise
            return False
        return True

    def _begin_again(self, node: int) -> None:
        """The end of its earlier life counts no more; the engine may not have told us of it yet."""
        self._paused.discard(node)
        if node not in self._over and self._ended.pop(node, None) is None:
            self._unheard[node] += 1
        self._over.discard(node)

    def stop(self) -> None:
        """Stop the nodes, fetch what is still missing, and remove everything. A second call does nothing.

        Raises:
            BackendError: something could not be removed.
        """
        project, self._project = self._project, None
        if project is None:
            return
        try:
            for node in self._paused:  # one that is frozen would not hear
                with suppress(BackendError):
                    project.tell("unpause", places.service(node))
            with suppress(BackendError):
                project.run("stop", "--timeout", str(KIND_SECONDS), *self._services)
                self._drain()
            self._project = project
            for node in set(self._services.values()) - self._over:
                self._keep_log(node)
        finally:
            self._project = None
            for process in (self._stream, self._events):
                if process is not None:
                    # Not a signal that asks: Compose's own `run` waits for its container whatever it is told.
                    process.kill()
                    process.wait()
            if self._shaper is not None:
                self._shaper.end()
            project.down()

    def _await_sweep(self, project: Project) -> None:
        """Until the stream works.

        Raises:
            BackendError: it does not come up.
        """
        while not self._sweeps:
            try:
                heard = self._heard.get(timeout=engine.START_S)
            except queue.Empty:
                heard = None
            if heard is None:
                raise BackendError(f"what nodes write cannot be followed; see: docker compose -p {project.name} logs")
            self._take(heard)

    def _show_pages(self, project: Project) -> None:
        """Start Grafana and say where to look; a run goes on without it."""
        self._note(f"Prometheus: http://{project.run('port', 'prometheus', '9090').strip()}")
        try:
            project.run("up", "--detach", "--no-deps", "--no-build", "grafana")
            self._note(f"Grafana: http://{project.run('port', 'grafana', '3000').strip()}")
        except BackendError as error:
            self._note(f"warning: no Grafana: {error}")

    def _written(self, configs: Sequence[NodeConfig]) -> Project:
        """The project of this run, its compose file in the run directory."""
        peers, root = len(configs), assets.root()
        files = [(self._run_dir / "compose.yaml", emit.compose(peers, built=True))]
        if configs[0].run.device == "cuda":
            files.append((self._run_dir / "compose.gpu.yaml", emit.gpu(peers)))
        for path, text in files:
            write_atomically(path, text.encode())
        return Project(project_name(configs[0].run_id), tuple(path for path, _ in files), root)

    def _listen(self, process: subprocess.Popen[bytes], take: Callable[[bytes], Change | Exited | None]) -> None:
        """Read a command's lines in a thread; its end is heard as None."""

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                news = take(line)
                if news is not None:
                    self._heard.put(news)
            self._heard.put(None)

        threading.Thread(target=read, daemon=True).start()

    def _took_change(self, line: bytes) -> Change:
        return msgspec.json.decode(line, type=Change)

    def _took_event(self, line: bytes) -> Exited | None:
        death = Project.death(line)
        if death is None or death[0] not in self._services:
            return None
        service, code = death
        return Exited(self._services[service], code)

    def _take(self, heard: Change | Exited) -> None:
        if isinstance(heard, Exited) and self._unheard[heard.node]:
            self._unheard[heard.node] -= 1
        elif isinstance(heard, Exited):
            self._ended[heard.node] = heard, self._sweeps
        elif heard.path == mirror.SWEEP:
            self._sweeps += 1
        elif (node := mirror.take(self._run_dir, heard, self._note)) is not None:
            self._bound.add(node)

    def _complete(self) -> list[Exited]:
        """Ends after which the stream has gone over all files once more: the first sweep may have begun before."""
        return [exited for exited, since in self._ended.values() if self._sweeps >= since + 2]

    def _drain(self) -> None:
        """Take in what the nodes wrote until they were stopped."""
        deadline, enough = time.monotonic() + DRAIN_SECONDS, self._sweeps + 2
        while self._sweeps < enough and (left_s := deadline - time.monotonic()) > 0:
            try:
                heard = self._heard.get(timeout=left_s)
            except queue.Empty:
                return
            if heard is None:
                return
            self._take(heard)

    def _keep_log(self, node: int) -> None:
        """What a container printed, as its log in the run directory."""
        if self._project is None:
            return
        with suppress(BackendError):
            text = self._project.run("logs", "--no-color", "--no-log-prefix", places.service(node), within_s=30.0)
            write_atomically(self._run_dir / "logs" / f"node-{node}.log", text.replace(_ERASE, "").encode())


def _unlike(image: str) -> str | None:
    """How an image differs from this launcher, and what follows; None: in nothing that changes a gradient's bits."""
    mine, printed = versions.here(), engine.printed_in(image, "python", "-m", "btard.launcher.containers.versions")
    try:
        theirs = msgspec.json.decode(printed or "", type=versions.Versions)
    except msgspec.MsgspecError:
        return f"the image {image} does not say what it computes with: build it anew, in a clone: docker compose build"
    found = versions.difference(mine, theirs)
    if not found:
        return None
    return (
        f"launcher and image {image} differ ({found}): evidence of this run is recomputed in the image; "
        "`btard-launch verify` will print the command"
    )


def project_name(run_id: str) -> str:
    """The Compose project of a run."""
    return f"btard-{run_id}".lower()
