"""Enters the network namespace of a container from outside, and never the one that the launcher lives in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from btard.node.errors import BackendError

ANSWER_S = 20.0
_PROC = Path("/proc")
_ESTABLISHED = "01"


class Namespace:
    """The network namespace of a process, held open: what is entered is what was checked, even if the process ends.

    Args:
        pid: the process, as this machine numbers it.
        who: whose it is, for messages.

    Raises:
        BackendError: there is no such process here, it may not be looked at, or its namespace is this machine's own.
    """

    def __init__(self, pid: int, who: str) -> None:
        self.pid, self.who = pid, who
        try:
            self._descriptor = os.open(_PROC / str(pid) / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BackendError(
                f"the network of {who} (process {pid}) cannot be entered ({error.strerror}); kernel shaping needs root "
                "and an engine on this machine; use --shaping process"
            ) from error
        if _identity(os.fstat(self._descriptor)) in _own():
            self.close()
            raise BackendError(
                f"{who} (process {pid}) shares this machine's own network, which is never shaped; "
                "use an engine on this machine, or --shaping process"
            )

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs another one inside."""
        return ["nsenter", f"--net=/proc/self/fd/{self._descriptor}", *arguments]

    def run(self, *arguments: str, given: str = "") -> str:
        """Run a command inside to its end; returns what it printed.

        Raises:
            BackendError: it failed, with what it said.
        """
        try:
            done = subprocess.run(
                self.command(*arguments), input=given, capture_output=True, text=True, timeout=ANSWER_S,
                pass_fds=(self._descriptor,), start_new_session=True,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendError(f"{arguments[0]} in the network of {self.who}: {error}") from error
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise BackendError(f"{arguments[0]} in the network of {self.who} failed: {said}; use --shaping process")
        return done.stdout

    def spawn(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """Start a process inside that lives as long as its standard input.

        Raises:
            BackendError: it cannot be started.
        """
        try:
            return subprocess.Popen(
                self.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, pass_fds=(self._descriptor,), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise BackendError(f"nsenter cannot be started: {error.strerror}; install util-linux") from error

    def device(self, address: str) -> str:
        """The interface that has an IPv4 address; that there is one shows that this is the container's namespace.

        Raises:
            BackendError: none has it.
        """
        for device in json.loads(self.run("ip", "-json", "-4", "address", "show")):
            if any(each.get("local") == address for each in device.get("addr_info", ())):
                return str(device["ifname"])
        raise BackendError(
            f"process {self.pid} is not {self.who}: its network has no address {address}; kernel shaping needs an "
            "engine on this machine; use --shaping process"
        )

    def talks(self, ports: Sequence[int]) -> bool:
        """True if a TCP connection from or to one of these ports stands."""
        with suppress(OSError):  # the process has ended
            for line in (_PROC / str(self.pid) / "net" / "tcp").read_text().splitlines()[1:]:
                _, local, remote, state, *_ = line.split()
                ends = {int(end.rpartition(":")[2], 16) for end in (local, remote)}
                if state == _ESTABLISHED and ends & set(ports):
                    return True
        return False


def _own() -> set[tuple[int, int]]:
    """The launcher's namespace, and that of the machine's first process."""
    found = set()
    for process in ("self", "1"):
        with suppress(OSError):
            found.add(_identity((_PROC / process / "ns" / "net").stat()))
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
