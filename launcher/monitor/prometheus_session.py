"""`--monitor`: an observer that serves the truth of the run it follows, on behalf of another that people see, and one
that has a Prometheus of its own, tells it whom to scrape, and ends it with the run."""

from __future__ import annotations

import ctypes
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from btard.launcher.assets import asset
from btard.launcher.files import as_json, disk_error, last_lines, write_atomically
from btard.launcher.monitor.ground_truth import GroundTruth
from btard.launcher.monitor.state import Record, RunState
from btard.launcher.run.observer import Observer
from btard.launcher.run.plan import Plan, bind_problem
from btard.launcher.run.run_directory import read_record
from btard.launcher.run.summary import Summary
from btard.node.errors import BackendError
from btard.node.metrics.http import MetricsEndpoint
from btard.node.metrics.monitoring import LINGER_S

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


FOLDER = "monitoring"
LAUNCHER = "launcher"
"""The label `node` of the truth."""
_LAST_SCRAPES = 2
"""How often the score must have been scraped: one sample alone falls between the points at which a graph asks."""


class Exporter:
    """Serves the truth from the run's beginning until its score was scraped, 15 s at most.

    Args:
        inner: told of everything, first.
        address: HOST:PORT to serve on; port 0 lets the system choose.
    """

    def __init__(self, inner: Observer, address: str) -> None:
        self.inner = inner
        self.truth: GroundTruth | None = None
        self.exposition: MetricsEndpoint | None = None
        self._address = address

    def note(self, line: str) -> None:
        """Pass the line on."""
        self.inner.note(line)

    def began(self, plan: Plan, run_dir: Path, state: RunState) -> None:
        """Begin to serve.

        Raises:
            ConfigError: the address is not HOST:PORT.
            BackendError: it cannot be bound.
        """
        self.inner.began(plan, run_dir, state)
        self.truth = GroundTruth(plan.roles, state, plan.dimension, plan.run.entry_bytes)
        self.exposition = MetricsEndpoint(self._address, self.truth.registry)

    def saw(self, records: Sequence[Record]) -> None:
        """Bring the metrics up to date."""
        self.inner.saw(records)
        if self.truth is not None:
            self.truth.saw(records)

    def ended(self) -> None:
        """Pass it on: the truth stays open until it knows the score."""
        self.inner.ended()

    def scored(self, summary: Summary) -> None:
        """Serve the score until it was scraped."""
        self.inner.scored(summary)
        if self.truth is not None and self.exposition is not None:
            self.truth.scored(summary.final_test_accuracy)
            self.exposition.end(_LAST_SCRAPES)
            if self.exposition.scraped_ever:
                select.select([self.exposition.last_scrape], [], [], LINGER_S)
        self.close()

    def close(self) -> None:
        """Serve no longer; a second call does nothing."""
        if self.exposition is not None:
            self.exposition.close()


class PrometheusSession(Exporter):
    """An exporter with a Prometheus of its own."""

    def __init__(self, inner: Observer) -> None:
        super().__init__(inner, "127.0.0.1:0")
        self._prometheus: Prometheus | None = None
        self._targets: dict[str, str] = {}

    def began(self, plan: Plan, run_dir: Path, state: RunState) -> None:
        """Start Prometheus; without it the run goes on, and says so once.

        Raises:
            BackendError: the disk is full.
        """
        super().began(plan, run_dir, state)
        assert self.exposition is not None
        self._prometheus = Prometheus(run_dir / FOLDER, read_record(run_dir).run_id)
        self._aim({LAUNCHER: self.exposition.address})
        self._start(self._prometheus)

    def saw(self, records: Sequence[Record]) -> None:
        """Scrape the nodes that have begun to serve."""
        super().saw(records)
        new = {str(each["node"]): str(each["address"]) for each in records if each["event"] == "metrics"}
        if new:
            self._aim(new)
        if self._prometheus is not None and self._prometheus.taken:
            self._start(self._prometheus)
        if self._prometheus is not None and (problem := self._prometheus.problem) is not None:
            self.note(f"warning: {problem}; the run goes on without it")

    def scored(self, summary: Summary) -> None:
        """Let the score be scraped, then end Prometheus."""
        collected = self._prometheus is not None and self._prometheus.running
        super().scored(summary)
        if self._prometheus is not None and collected:
            self.note(f"metrics: show them again with `{self._prometheus.again}`")

    def close(self) -> None:
        """End everything; a second call does nothing."""
        super().close()
        if self._prometheus is not None:
            self._prometheus.stop()

    def _start(self, prometheus: Prometheus) -> None:
        try:
            self.note(f"metrics: {prometheus.start()}")
        except BackendError as error:
            self.note(f"warning: {error}")

    def _aim(self, new: dict[str, str]) -> None:
        self._targets |= new
        if self._prometheus is not None:
            self._prometheus.aim(self._targets)


@contextmanager
def around(observer: Observer) -> Iterator[PrometheusSession]:
    """A station around the observer of a run; all is ended on leaving."""
    station = PrometheusSession(observer)
    try:
        yield station
    finally:
        station.close()
