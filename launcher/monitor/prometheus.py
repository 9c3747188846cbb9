"""Starts Prometheus for one run, where it is installed; all that it reads and writes lies in the run directory."""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from btard.launcher.assets import asset
from btard.launcher.files import as_json, disk_error, last_lines, write_atomically
from btard.launcher.run.plan import bind_problem
from btard.node.errors import BackendError

PROGRAM = "prometheus"
PORT = 9090
"""Where Prometheus usually listens; another one is taken if this one is in use."""

_STOP_S = 10.0
_PR_SET_PDEATHSIG = 1


class Prometheus:
    """The monitoring folder of a run, and the process that fills it.

    Args:
        where: the folder; made here, with the rules and an empty list of targets.
        run_id: label of every target.

    Raises:
        BackendError: the folder cannot be written.
    """

    def __init__(self, where: Path, run_id: str) -> None:
        self.targets_file = where / "targets" / "run.json"
        self._where, self._run_id = where, run_id
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False
        source = asset("deploy", "prometheus")
        try:
            self.targets_file.parent.mkdir(parents=True)
            shutil.copyfile(source / "prometheus.yml", where / "prometheus.yml")
            shutil.copytree(source / "rules", where / "rules")
        except OSError as error:
            raise disk_error(error, where) from error
        self.aim({})

    def aim(self, targets: Mapping[str, str]) -> None:
        """Write who is to be scraped: addresses by the value of the label `node`.

        Raises:
            BackendError: the disk is full.
        """
        groups = [{"targets": [address], "labels": {"run_id": self._run_id, "node": name}}
                  for name, address in targets.items()]  # fmt: skip
        write_atomically(self.targets_file, as_json(groups))

    def start(self) -> str:
        """Start the program; returns the address of its pages.

        Raises:
            BackendError: it is not installed, or cannot be started.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise BackendError(
                f"{PROGRAM} is not installed, so nothing collects the metrics; install it (Debian: apt-get install "
                f"prometheus), or let a Prometheus of yours read {self.targets_file}"
            )
        address = f"127.0.0.1:{_free_port(PORT)}"
        command = [program, *self._arguments(), f"--web.listen-address={address}", "--log.level=warn"]
        try:
            with self._log.open("wb") as log:
                # A group of its own: Ctrl-C must not end it before the last values are in.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
                    preexec_fn=_end_with_launcher,
                )  # fmt: skip
        except OSError as error:
            raise BackendError(f"{program} cannot be started: {error.strerror}; reinstall it") from error
        return f"http://{address}"

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def taken(self) -> bool:
        """True if the process ended because somebody took its port before it did; another start takes another one."""
        return self._process is not None and not self.running and "address already in use" in self._last_word

    @property
    def problem(self) -> str | None:
        """Why the process that was started is gone, told once."""
        if self._process is None or self.running or self._told:
            return None
        self._told = True
        return f"prometheus ended with exit code {self._process.returncode}: {self._last_word or 'it left no word'}"

    @property
    def again(self) -> str:
        """The command that shows what was collected."""
        return " ".join([PROGRAM, *self._arguments()])

    def stop(self) -> None:
        """End the process, kindly first, so that it writes what it has; a second call does nothing."""
        process, self._told = self._process, True
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _last_word(self) -> str:
        return "".join(last_lines(self._log, 1))

    @property
    def _log(self) -> Path:
        return self._where / "prometheus.log"

    def _arguments(self) -> list[str]:
        return [f"--config.file={self._where / 'prometheus.yml'}", f"--storage.tsdb.path={self._where / 'data'}"]


def _free_port(preferred: int) -> int:
    """The preferred port, or any other if it is in use; somebody may take it before it is bound, see `taken`."""
    if bind_problem(preferred) is None:
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_launcher() -> None:
    """Ask the kernel, in the new process, to end it with the launcher, however that ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
