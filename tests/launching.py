"""Starting the command line as a process of its own, for tests that need a real one."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAUNCH = (sys.executable, "-c", "from btard.launcher.cli.main import main; main()")
PATIENCE_S = 120.0


def environment() -> dict[str, str]:
    """The environment of a process that finds the same packages as this one, and none of the user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BTARD_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def command(where: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line run to its end, with environment variables of its own."""
    return subprocess.run([*LAUNCH, *arguments], cwd=where, env={**environment(), **variables}, capture_output=True,
                          text=True, timeout=PATIENCE_S)  # fmt: skip


@contextmanager
def launched(where: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A launcher in a session of its own, stdout and stderr joined; whatever is left of the session is killed."""
    process = subprocess.Popen(
        [*LAUNCH, *arguments], cwd=where, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        for pid in session(process.pid):
            _kill(pid)
        process.wait(PATIENCE_S)
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What it printed up to the first line with `words`; fails if it ends before."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"it ended without {words!r}:\n{seen}")


def session(leader: int) -> list[int]:
    """Ids of all living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # After the name, which ends with the last parenthesis: state, parent, group, session.
                state, _, _, member_of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(member_of) == leader and state != "Z":
                found.append(int(entry.name))
    return found


def worker(leader: int, node: int) -> int:
    """The id of the process of a session that writes node-`node`.log."""
    for pid in session(leader):
        try:
            output = (Path("/proc") / str(pid) / "fd" / "1").readlink()
        except OSError:
            continue
        if output.name == f"node-{node}.log":
            return pid
    raise AssertionError(f"no worker {node} in session {leader}")


def await_end(pids: list[int]) -> None:
    """Wait until none of these processes is left; fails after a while."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([handle], [], [], PATIENCE_S)
        finally:
            os.close(handle)
        assert ready, f"process {pid} is still there"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
