"""Prometheus's own programs, for tests that need them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from btard import Experiment, Result
from btard.launcher.backends.backend import Exited
from btard.launcher.backends.local import LocalBackend
from btard.launcher.run import cluster
from btard.launcher.run.cluster import run
from btard.launcher.run.observer import Silent
from btard.node.config import NodeConfig

PATIENCE_S = 60.0
GATED = Path(__file__).with_name("gated_quadratic.py")


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; a test without it is skipped, but in CI it fails."""
    found = shutil.which(name)
    if found is None:
        problem = f"{name} is not installed (Debian: apt-get install prometheus)"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    return found


def promtool(*arguments: str | Path, where: Path | None = None) -> tuple[int, str]:
    """Exit code and output of promtool."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], cwd=where, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True, slots=True)
class Monitored:
    """A finished run that a real Prometheus has watched, and that Prometheus, open again for questions.

    Args:
        result: of the run.
        notes: the lines that people saw.
        began_s, ended_s: seconds since the epoch.
        address: where the Prometheus listens.
    """

    result: Result
    notes: tuple[str, ...]
    began_s: float
    ended_s: float
    address: str

    @property
    def run_id(self) -> str:
        """The label of its series."""
        return self.result.summary.run_id

    def ask(self, expression: str, *, last: bool = False) -> list[dict[str, Any]]:
        """The series of an expression over the time of the run; `last`: those that have a value at its end, with that
        alone.

        Raises:
            AssertionError: Prometheus refuses it.
        """
        began_s = self.ended_s if last else self.began_s
        asked = {"query": expression, "start": f"{began_s:.3f}", "end": f"{self.ended_s:.3f}", "step": "1"}
        data = urllib.parse.urlencode(asked).encode()
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/query_range", data, PATIENCE_S) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        return found

    def last(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The last value of each series, by its labels without the metric's name."""
        return {
            tuple(sorted((name, value) for name, value in each["metric"].items() if name != "__name__")): float(
                each["values"][-1][1]
            )
            for each in self.ask(expression)
        }


class Notes(Silent):
    """An observer that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        """Keep it."""
        self.lines.append(line)

    @property
    def url(self) -> str:
        """Where Prometheus is."""
        return next(line.removeprefix("metrics: ") for line in self.lines if line.startswith("metrics: http"))


class Patient(LocalBackend):
    """A backend whose workers compute nothing before Prometheus has found them all: it looks for new targets every five
    seconds only, and the runs of tests are short."""

    def __init__(self, notes: Notes, targets: int, gate: Path) -> None:
        super().__init__()
        self._notes, self._targets, self._gate = notes, targets, gate

    def start(self, configs: Sequence[NodeConfig]) -> None:
        """As a local backend, with the gate closed."""
        self._gate.touch()
        super().start(configs)

    def poll(self, timeout_s: float) -> list[Exited]:
        """As a local backend; the gate is opened in time."""
        if self._gate.exists() and self._up() == self._targets:
            self._gate.unlink()
        return super().poll(timeout_s)

    def _up(self) -> int:
        query = urllib.parse.urlencode({"query": "count(up == 1)"})
        try:
            with urllib.request.urlopen(f"{self._notes.url}/api/v1/query?{query}", timeout=PATIENCE_S) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError as error:
            # It is starting: nobody listens, or answers queries, yet. The run's own limit ends the wait.
            if isinstance(error, urllib.error.HTTPError) and error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return 0
        return int(found[0]["value"][1]) if found else 0


@contextmanager
def watched(folder: Path) -> Iterator[Monitored]:
    """One attacked run over modelled links with `--monitor`, and its Prometheus.

    Args:
        folder: for its run directory.
    """
    program("prometheus")
    where = folder / "run"
    gate = where.with_name("gate")
    notes, began_s = Notes(), time.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "build", lambda *given: Patient(notes, 5, gate))
        result = run(
            Experiment(task=f"gated_quadratic:gate={gate}", imports=(str(GATED),),
                       device="cpu", peers=4, steps=120, eval_every=20, monitor=True, timeout=100,
                       role=("3=noise:start=20,probability=0.1",), protocol_seed=2, delay=0.004, loss=0.002,
                       link=("0->1:bandwidth=100kB/s",), run_dir=str(where)),
            notes,
        )  # fmt: skip
    with reopened(result.run_dir / "monitoring") as address:
        yield Monitored(result, tuple(notes.lines), began_s, time.time(), address)


@pytest.fixture(scope="session")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """One attacked run, for all tests that ask its Prometheus."""
    with watched(tmp_path_factory.mktemp("monitored")) as seen:
        yield seen


@contextmanager
def reopened(folder: Path) -> Iterator[str]:
    """A Prometheus on what another has collected; yields its address."""
    nothing = folder / "nothing.yml"
    nothing.write_text("{}\n")
    command = [program("prometheus"), f"--config.file={nothing}", f"--storage.tsdb.path={folder / 'data'}",
               "--web.listen-address=127.0.0.1:0", "--log.level=info"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = ""
        for line in process.stderr:
            if "Listening on" in line:
                address = re.search(r"address=(\S+)", line)[1]  # type: ignore[index]
            if "Server is ready" in line:
                break
        assert address, "Prometheus did not start"
        yield address
    finally:
        process.terminate()
        process.communicate()
