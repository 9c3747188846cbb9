"""Talks to the container engine: whatever answers `docker compose`. Nothing else in the project starts `docker`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from btard.node.errors import BackendError

MINIMUM = (2, 20)
"""Compose before 2.20 neither waits for one-shot services reliably nor knows every option used here."""
ANSWER_S = 30.0
START_S = 180.0
BUILD_S = 1800.0
_SIGNALLED = {134: -6, 137: -9, 139: -11}
"""Codes by which an engine says that a signal killed a process; a worker that ends by itself has none of them."""
_REMOVALS = (("container", ("--all",), ("--force",)), ("network", (), ()), ("volume", (), ()))
_USE_LOCAL = "or use --backend local"


@dataclass(frozen=True, slots=True)
class Version:
    """What answered: the engine's and Compose's versions."""

    engine: str
    compose: str


def find(environment: dict[str, str] | None = None) -> Version:
    """The engine and Compose, if both can be used.

    Args:
        environment: of the commands; None: this process's own.

    Raises:
        BackendError: no docker command, no engine behind it, or no Compose that is new enough.
    """
    path = (environment or os.environ).get("PATH")
    if shutil.which("docker", path=path) is None:
        raise BackendError(
            f"no container engine: the command docker is not here; install Docker with Compose, {_USE_LOCAL}"
        )
    engine = _asked(["docker", "version", "--format", "{{.Server.Version}}"], environment)
    if engine.returncode or not engine.stdout.strip():
        where = (environment or os.environ).get("DOCKER_HOST", "its default socket")
        raise BackendError(
            f"no container engine answers at {where} ({_last_line(engine.stderr)}); start Docker, or set DOCKER_HOST, "
            f"{_USE_LOCAL}"
        )
    compose = _asked(["docker", "compose", "version", "--short"], environment)
    if compose.returncode:
        raise BackendError(f"docker has no Compose ({_last_line(compose.stderr)}); install Compose v2, {_USE_LOCAL}")
    found = compose.stdout.strip()
    numbers = re.match(r"v?(\d+)\.(\d+)", found)
    if numbers is None or tuple(map(int, numbers.groups())) < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        raise BackendError(f"Compose {found} is too old; install {wanted} or newer, {_USE_LOCAL}")
    return Version(engine.stdout.strip(), found)


def check_gpu() -> None:
    """Refuse to go on if the engine cannot give a container a GPU.

    Raises:
        BackendError: it has no NVIDIA runtime.
    """
    answer = _asked(["docker", "info", "--format", "{{json .Runtimes}}"], None)
    if answer.returncode or "nvidia" not in json.loads(answer.stdout or "{}"):
        raise BackendError(
            "the container engine has no NVIDIA runtime, so deploy/compose.gpu.yaml cannot start; install NVIDIA's "
            "container toolkit, or use --device cpu"
        )


def has_image(name: str) -> bool:
    """True if the engine holds the image."""
    return _asked(["docker", "image", "inspect", name], None).returncode == 0


def printed_in(image: str, *command: str) -> str | None:
    """What a command prints in a container of its own, without a network; None: it failed."""
    done = _asked(["docker", "run", "--rm", "--network", "none", image, *command], None)
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is: its first process, as the engine's machine numbers it, and its IPv4 address."""

    pid: int
    address: str


@dataclass(frozen=True, slots=True)
class Project:
    """One Compose project.

    Args:
        name: what its containers, volumes and networks are called after.
        files: compose files, later ones on top.
        root: what relative paths in them start from.
    """

    name: str
    files: tuple[Path, ...] = ()
    root: Path | None = None

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        files = [part for file in self.files for part in ("--file", str(file))]
        root = ["--project-directory", str(self.root)] if self.root is not None else []
        return ["docker", "compose", "--ansi", "never", "--project-name", self.name, *root, *files, *arguments]

    def run(self, *arguments: str, given: bytes = b"", within_s: float = START_S) -> str:
        """Run a Compose command to its end; returns what it printed.

        Raises:
            BackendError: it failed, or did not end in time.
        """
        command = self.command(*arguments)
        try:
            # A session of its own: Ctrl-C at the terminal is the launcher's business, not this command's.
            done = subprocess.run(
                command, input=given, capture_output=True, timeout=within_s, env=environment(), start_new_session=True
            )
        except subprocess.TimeoutExpired:
            raise BackendError(f"`docker compose {arguments[0]}` did not end within {within_s:.0f} s") from None
        except OSError as error:
            raise BackendError(f"docker cannot be started: {error.strerror}") from error
        if done.returncode:
            raise BackendError(explained(arguments[0], done.stderr.decode(errors="replace")))
        return done.stdout.decode(errors="replace")

    def container(self, service: str, *filters: str) -> str:
        """The id of a service's container, empty if there is none.

        Args:
            filters: of `docker ps`, beside the service.

        Raises:
            BackendError: the engine does not answer.
        """
        only = [f"label=com.docker.compose.service={service}", "label=com.docker.compose.oneoff=False", *filters]
        return "".join(self.left("container", "--all", *(part for each in only for part in ("--filter", each))))

    def running(self, service: str) -> bool:
        """True if a service's container has a process.

        Raises:
            BackendError: the engine does not answer.
        """
        return bool(self.container(service, "status=running", "status=paused"))

    def place(self, service: str) -> Place:
        """Where a service's running container is, in the first of its networks.

        Raises:
            BackendError: it is not running, or the engine does not answer.
        """
        form = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        answer = _asked(["docker", "container", "inspect", "--format", form, self.container(service)], None)
        words = answer.stdout.split()
        if answer.returncode or len(words) < 2 or words[0] == "0":
            raise BackendError(f"{service} is not running: {_last_line(answer.stderr)}; see its log")
        return Place(int(words[0]), words[1])

    def tell(self, what: str, service: str) -> None:
        """`docker kill`, `pause`, `unpause` or `start` a service's container.

        Not by Compose: its `start` looks at what the service depends on.

        Raises:
            BackendError: the engine refuses.
        """
        done = _asked(["docker", what, self.container(service)], None)
        if done.returncode:
            raise BackendError(f"`docker {what}` of {service} failed: {_last_line(done.stderr)}")

    def deaths(self) -> subprocess.Popen[bytes]:
        """A command that prints a line of JSON for each container of the project that ends.

        Raises:
            BackendError: it cannot be started.
        """
        labels = f"label=com.docker.compose.project={self.name}"
        return spawn(["docker", "events", "--format", "{{json .}}", "--filter", labels, "--filter", "event=die"])

    @staticmethod
    def death(line: bytes) -> tuple[str, int] | None:
        """Service and exit code (minus the signal that killed it) in a line of `deaths`; None for a `compose run`."""
        facts = json.loads(line)["Actor"]["Attributes"]
        if facts.get("com.docker.compose.oneoff") == "True":
            return None
        code = int(facts["exitCode"])
        return facts.get("com.docker.compose.service", ""), _SIGNALLED.get(code, code)

    def down(self) -> None:
        """Remove containers, networks and volumes; images stay.

        Raises:
            BackendError: something could not be removed; the message says how to.
        """
        # By label and not by `compose down`: that needs the files that made the project, which may be gone, and it
        # leaves alone what was started by `compose run`, and with it the volumes that such a container holds.
        for kind, listing, removal in _REMOVALS:
            for name in self.left(kind, *listing):
                _asked(["docker", kind, "rm", *removal, name], None)
        left = [name for kind, listing, _ in _REMOVALS for name in self.left(kind, *listing)]
        if left:
            by_hand = f"docker compose -p {self.name} down -v --remove-orphans"
            raise BackendError(f"the engine still holds {', '.join(left)}; run `{by_hand}`")

    def left(self, kind: str, *options: str) -> list[str]:
        """The project's containers, volumes or networks that are there.

        Raises:
            BackendError: the engine does not answer.
        """
        label = f"label=com.docker.compose.project={self.name}"
        answer = _asked(["docker", kind, "ls", "--quiet", *options, "--filter", label], None)
        if answer.returncode:
            raise BackendError(f"the engine does not list what is left: {_last_line(answer.stderr)}")
        return answer.stdout.split()


def spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own.

    Raises:
        BackendError: it cannot be started.
    """
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BackendError(f"docker cannot be started: {error.strerror}") from error


def environment() -> dict[str, str]:
    """This process's, without what would change a project behind our back; settings travel in the bundle."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BTARD_", "COMPOSE_"))}


def explained(what: str, stderr: str) -> str:
    """What Compose complained of in one line, and what to do where it is known."""
    said = _last_line(stderr)
    known = (
        ("port is already allocated", "stop what listens there, or set PROMETHEUS_PORT and GRAFANA_PORT"),
        ("address already in use", "stop what listens there, or set PROMETHEUS_PORT and GRAFANA_PORT"),
        ("could not select device driver", "install NVIDIA's container toolkit, or use --device cpu"),
        ("no space left on device", "free space where the engine keeps its images: docker system df"),
        ("failed to solve", "run `docker compose build` in the clone to see all of it"),
        ("permission denied", "may this user use the engine? (group docker)"),
    )
    advice = next((text for sign, text in known if sign in stderr), "")
    return f"`docker compose {what}` failed: {said}{f'; {advice}' if advice else ''}"


def _asked(command: list[str], given: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=ANSWER_S, env=given or environment()
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {ANSWER_S:.0f} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", error.strerror or str(error))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error response from daemon: ") if lines else "it said nothing"
