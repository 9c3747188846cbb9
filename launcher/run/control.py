"""`btard-launch status`, `logs` and `stop`: a run seen, and ended, from another terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from btard.launcher.files import last_lines, write_atomically
from btard.launcher.monitor import watch
from btard.launcher.monitor.state import UNFINISHED, RunState
from btard.launcher.run import summary
from btard.launcher.run.run_directory import RunRecord, read_record
from btard.node.errors import BackendError, ConfigError
from btard.node.storage import process_lock

if TYPE_CHECKING:
    from btard.launcher.containers.engine import Project

NOTE = ".running"
STOP_S = 90.0
_LOOK_S = 0.2

Say = Callable[[str], None]


class Running(msgspec.Struct, frozen=True):
    """Who works on a run directory: the launcher's process, told from a later one with its number by its start."""

    pid: int
    started: str


@contextmanager
def marked(run_dir: Path) -> Iterator[None]:
    """Say that this process works on the directory, until it no longer does.

    Raises:
        BackendError: the directory cannot be written.
    """
    note = run_dir / NOTE
    write_atomically(note, msgspec.json.encode(Running(os.getpid(), _began(os.getpid()) or "")))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()


@contextmanager
def alone(run_dir: Path) -> Iterator[None]:
    """Keep others from going on with the run while this process does: loading torch takes seconds, in which no
    note says that somebody works on it.

    Raises:
        ConfigError: another process goes on with it.
        BackendError: it is not this user's to write.
    """
    try:
        record = (run_dir / "run.json").open("rb+")
    except OSError as error:
        raise BackendError(f"cannot write in {run_dir}: {error.strerror}; resume it as its owner") from error
    with record:
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise still_running(run_dir) from error
        yield


def still_running(run_dir: Path) -> ConfigError:
    """What to say to somebody who wants to resume a run that has not ended."""
    return ConfigError(f"{run_dir} is still running; end it by `btard-launch stop {shlex.quote(str(run_dir))}` first")


def latest(runs: Path = Path("runs")) -> Path:
    """The run directory that was made last under `runs`.

    Raises:
        ConfigError: there is none.
    """
    found = [path.parent for path in runs.glob("*/run.json")]
    if not found:
        raise ConfigError(f"no run under {runs}; name a run directory")
    return max(found, key=lambda path: (path / "run.json").stat().st_mtime)


def status(run_dir: Path) -> list[str]:
    """The run in lines: what it is, how it stands, and one line for each node and for each record that is refused.

    Raises:
        ConfigError: it is no run directory.
    """
    if of_peers(run_dir):
        return _status_of_peers(run_dir)
    record = read_record(run_dir)
    roles = {int(peer) for peer in record.roles}
    state = RunState(record.run.peers, frozenset(roles), record.run.capacity)
    problems = watch.fold(run_dir, state, record.run.steps, plays=record.experiment.backend == "simulated")
    head = f"run {record.run_id} ({record.experiment.backend}) in {run_dir}: {_standing(run_dir, record)}"
    rows = [f"step {state.step} of {record.run.steps}" if state.step >= 0 else "no step yet"]
    over = worker(run_dir) is None
    for node in state.nodes.values():
        stands = "stopped" if over and node.state in UNFINISHED else node.state
        accuracy = "" if node.accuracy is None else f"  accuracy {node.accuracy:.4f}"
        role = "attacker" if node.node in roles else "honest"
        step = f"step {node.step}" if node.step >= 0 else "no step yet"
        rows.append(f"node {node.node}  {role:8}  {node.out or stands:9}  {step}{accuracy}")
    return [head, *rows, *(f"warning: {problem}" for problem in problems)]


def of_peers(run_dir: Path) -> bool:
    """True of a peer's own directory, or of peers' files that were collected: no launcher has made it."""
    return (run_dir / "genesis.json").exists() and not (run_dir / "run.json").exists()


def _status_of_peers(run_dir: Path) -> list[str]:
    """The same of peers whose files lie here, each by its own word."""
    from btard.node.genesis.genesis import (
        read_genesis,
    )  # with sockets and signatures: what starts a run need not load it

    genesis = read_genesis(run_dir)
    run = genesis.run
    state = RunState(run.peers, capacity=run.capacity)
    problems = watch.fold(run_dir, state, run.steps)
    rows = [f"step {state.step} of {run.steps}" if state.step >= 0 else "no step yet"]
    for node in state.nodes.values():
        folder = run_dir / "nodes" / str(node.node)
        if not (folder / "journal.jsonl").exists():
            continue
        alive = process_lock.alive(folder)
        # A copy of another host's files has no lock: how its process is, nothing here says.
        over = process_lock.began(folder) and not alive
        stands = "stopped" if over and node.state in UNFINISHED else node.state
        accuracy = "" if node.accuracy is None else f"  accuracy {node.accuracy:.4f}"
        step = f"step {node.step}" if node.step >= 0 else "no step yet"
        rows.append(f"peer {node.node}  {stands:9}  {step}{accuracy}{'  (running)' if alive else ''}")
    rows += [f"peer {ban.peer}  {ban.standing} at step {ban.step}" for _, ban in sorted(state.bans.items())]
    head = f"run {genesis.run_id} of {run.peers} owners, as the peers in {run_dir} tell"
    return [head, *rows, *(f"warning: {problem}" for problem in problems)]


def logs(run_dir: Path, node: int | None, count: int) -> list[str]:
    """The last lines of the nodes' logs, each with its node in front.

    Raises:
        ConfigError: it is no run directory, or it has no such node.
        BackendError: its containers cannot be asked.
    """
    record = read_record(run_dir)
    if node is not None and not 0 <= node < record.run.peers:
        raise ConfigError(f"--node {node} is none of the {record.run.peers} nodes")
    nodes = range(record.run.peers) if node is None else (node,)
    if record.experiment.backend == "compose" and worker(run_dir) is not None:
        from btard.launcher.containers import emit

        names = [emit.nodes(record.run.peers)[each] for each in nodes]
        return _project(record).run("logs", "--no-color", "--tail", str(count), *names).splitlines()
    found = [
        f"node {each} | {line}" for each in nodes for line in last_lines(run_dir / "logs" / f"node-{each}.log", count)
    ]
    whose = "N" if node is None else node
    return found or [f"the workers wrote nothing; their journals are {run_dir}/nodes/{whose}/journal.jsonl"]


def stop(run_dir: Path, say: Say) -> None:
    """End a run in order, summary included; of one whose launcher is gone, remove what it left.

    Raises:
        ConfigError: it is no run directory.
        BackendError: it does not end, or containers cannot be removed.
    """
    record = read_record(run_dir)
    found = worker(run_dir)
    if found is not None:
        os.kill(found.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while worker(run_dir) is not None:
            if time.monotonic() > deadline:
                raise BackendError(f"the launcher of {run_dir} (process {found.pid}) did not end within {STOP_S:.0f} s")
            time.sleep(_LOOK_S)
        say(f"stopped {record.run_id}")
    elif record.experiment.backend == "compose":
        _project(record).down()
        (run_dir / NOTE).unlink(missing_ok=True)
        say(f"no launcher works on {record.run_id}; what it may have left of containers is removed")
    else:
        (run_dir / NOTE).unlink(missing_ok=True)
        say(f"{record.run_id} is not running")


def worker(run_dir: Path) -> Running | None:
    """The launcher that works on the directory, if it is still there."""
    try:
        note = msgspec.json.decode((run_dir / NOTE).read_bytes(), type=Running)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return note if _began(note.pid) == note.started else None


def _standing(run_dir: Path, record: RunRecord) -> str:
    if worker(run_dir) is not None:
        return "running"
    try:
        made = summary.read(run_dir)
    except ConfigError:
        if record.experiment.backend == "compose":
            return "its launcher is gone; `btard-launch stop` removes the containers that it left"
        return "its launcher is gone; `btard-launch resume` goes on, where there is a checkpoint"
    return made.outcome + (f", {made.problem}" if made.problem else "")


def _project(record: RunRecord) -> Project:
    from btard.launcher.backends.compose import project_name
    from btard.launcher.containers.engine import Project

    return Project(project_name(record.run_id))


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None if there is none (or it only waits to be reaped)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]
