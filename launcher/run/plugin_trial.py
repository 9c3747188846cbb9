"""Own attacks, rules and tasks are tried out before anything starts, in processes that may crash or hang with them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from btard.node.config import Plugin, Role, RunConfig
from btard.node.errors import ConfigError, DataError, PluginError

if TYPE_CHECKING:
    from btard.node.plugins.check import Request, Tried

LIMIT_S = 120.0
"""How long one process may take for all of them."""

_ONE, _OTHER, _TRACE = "1", "2", "1"
"""PYTHONHASHSEED of the first and the second process, and of the one that looks for the cause."""

_known: dict[bytes, tuple[Found, ...]] = {}
_asking = threading.Lock()


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be said of one plug-in.

    Args:
        name: what it is, with its file and line.
        problem: why it cannot be used; None: nothing speaks against it.
        skipped: why it could not be tried; None: it was.
        trace: the traceback of what it raised, if it did.
    """

    name: str
    problem: str | None = None
    skipped: str | None = None
    trace: str = ""

    @property
    def kind(self) -> str:
        """`task`, `attack`, `rule`, ...: the first word of its name."""
        return self.name.split()[0]


def check(run: RunConfig, roles: Mapping[int, Role], imports: Sequence[str], data_directory: Path) -> None:
    """Refuse a run whose own attacks, rules or task would not work, or would have honest peers banned.

    Raises:
        PluginError: the first of them, what it does and what to do about it.
        DataError: the data of an own task are not there.
    """
    from btard.node.plugins.check import subjects

    attacks = {msgspec.json.encode(each): each for role in roles.values() for each in role.attacks}
    # Only what matters, so that the runs of a sweep are not tried again for each of their seeds.
    asked = RunConfig(
        peers=run.peers, task=run.task, rule=run.rule, pre=run.pre, batch_size=run.batch_size, tau=run.tau,
        device=run.device,
    )  # fmt: skip
    request = _request(imports, asked, tuple(attacks.values()), data_directory, everything=False)
    tried = {subject.kind for subject in subjects(request)}
    if not tried:
        return
    if tried == {"task"}:  # it is computed without a rule or an attack: once for all that a sweep has of those
        default = RunConfig()
        asked = msgspec.structs.replace(asked, rule=default.rule, pre=default.pre, tau=default.tau)
        request = _request(imports, asked, (), data_directory, everything=False)
    for found in examine(request):
        if found.problem is not None:
            raise PluginError(f"{found.name}: {found.problem}")
        if found.skipped is not None and found.kind == "task":  # the data of a task of ours are fetched later
            raise DataError(f"{found.skipped}; put them into {data_directory}, or name their folder with --data-dir")


def check_files(imports: Sequence[str], data_directory: Path) -> tuple[Found, ...]:
    """Try everything that files and installed packages register, with their defaults and their examples.

    Raises:
        ConfigError: a file cannot be imported.
    """
    run = RunConfig(task=Plugin("quadratic"), batch_size=8)
    return examine(_request(imports, run, (), data_directory, everything=True))


def examine(request: Request) -> tuple[Found, ...]:
    """Have everything computed twice in one process and once in a fresh one; asked again, the answer is remembered.

    Raises:
        ConfigError: a file cannot be imported.
        PluginError: a process ended without an answer, or takes too long.
    """
    key = msgspec.json.encode((request, [_content(path) for path in request.imports]))
    with _asking:
        found = _known.get(key) or _examine(request)
        if not any(each.skipped for each in found):  # its data may come
            _known[key] = found
        return found


def _content(path: str) -> str:
    from btard.node.plugins.extensions import label

    return label(Path(path))


def _request(
    imports: Sequence[str], run: RunConfig, attacks: tuple[Plugin, ...], data_directory: Path, *, everything: bool
) -> Request:
    from btard.node.plugins.check import Request

    paths = tuple(str(Path(path).absolute()) for path in imports)
    return Request(paths, run, attacks, everything, str(data_directory))


def _examine(request: Request) -> tuple[Found, ...]:
    change = msgspec.structs.replace
    first, second = _answers(
        (change(request, disturbance=1, passes=2), _ONE), (change(request, disturbance=2, passes=1), _OTHER)
    )
    others = {tried.name: tried for tried in second}
    differing = {tried.name: how for tried in first if (how := _difference(tried, others.get(tried.name)))}
    traced = {tried.name: tried for tried in first}
    unexplained = tuple(name for name in differing if not traced[name].unequal)
    if unexplained:
        (found,) = _answers((change(request, disturbance=3, trace=unexplained), _TRACE))
        traced.update({tried.name: tried for tried in found})
    return tuple(_found(tried, others.get(tried.name), differing.get(tried.name), traced) for tried in first)


def _difference(tried: Tried, other: Tried | None) -> str | None:
    """What cannot be recomputed, in words; None: everything that was computed can be."""
    if tried.problem is not None or other is None or other.problem is not None:
        return None
    if tried.unequal:
        return f"{tried.unequal[0]} has other bits when it is computed again"
    for what, digest in tried.digests.items():
        if other.digests.get(what) != digest:
            return f"{what} has other bits in another process"
    return None


def _found(tried: Tried, other: Tried | None, difference: str | None, traced: Mapping[str, Tried]) -> Found:
    failed = tried if tried.problem is not None or other is None or other.problem is None else other
    if difference is None:
        return Found(tried.name, failed.problem, tried.skipped, failed.trace)
    again = traced[tried.name]
    if again.suspects:
        cause = again.suspects[0]
    elif tried.unequal:
        cause = "it seems to keep something between its calls (a counter, a cache, a global)"
    elif again.digests == {what: tried.digests.get(what) for what in again.digests}:
        cause = "it depends on the order of a set: go through `sorted(...)`"
    elif again.imported:
        cause = again.imported[0]
    else:
        cause = "it depends on the process that it runs in"
    if "global generator" in cause:
        cause += (
            ": seed it from the batch's seed" if tried.name.startswith("task") else ": others must recompute a rule"
        )
    return Found(tried.name, f"{difference}, so honest peers would be banned; {cause}, see docs/extending.md")


def _answers(*asked: tuple[Request, str]) -> list[list[Tried]]:
    """What fresh processes found, side by side.

    Raises:
        ConfigError: a file cannot be imported.
        PluginError: one ended without an answer, or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="btard-check-") as scratch:
        started = [_start(Path(scratch), place, *each) for place, each in enumerate(asked)]
        try:
            return [_answer(process, Path(scratch), place) for place, process in enumerate(started)]
        finally:
            for process in started:
                process.kill()
                process.wait()


def _start(scratch: Path, place: int, request: Request, hash_seed: str) -> subprocess.Popen[bytes]:
    (scratch / f"{place}.request").write_bytes(msgspec.json.encode(request))
    environment = {
        **os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }  # fmt: skip
    with (scratch / f"{place}.log").open("wb") as log:
        return subprocess.Popen(
            # -P: a file of the working directory must not stand in for one of our modules.
            [sys.executable, "-P", "-m", "btard.node.plugins.check", str(scratch / f"{place}.request"),
             str(scratch / f"{place}.answer")],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def _answer(process: subprocess.Popen[bytes], scratch: Path, place: int) -> list[Tried]:
    from btard.launcher.files import last_lines
    from btard.node.plugins.check import REFUSED, Tried

    now, answer = scratch / f"{place}.answer.now", scratch / f"{place}.answer"
    try:
        code = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        raise PluginError(
            f"{_under_way(now)} is not done after {LIMIT_S:.0f} s; a run computes far more: make it faster, or smaller"
        ) from None
    if code == REFUSED:
        raise ConfigError(answer.read_text(encoding="utf-8"))
    if code != 0 or not answer.exists():
        said = last_lines(scratch / f"{place}.log", 1)
        raise PluginError(
            f"{_under_way(now)} ended its process with exit code {code}" + (f": {said[0]}" if said else "")
        )
    return msgspec.json.decode(answer.read_bytes(), type=list[Tried])


def _under_way(now: Path) -> str:
    return now.read_text(encoding="utf-8") if now.exists() else "loading the files of --import"
