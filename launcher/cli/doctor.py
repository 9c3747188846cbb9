"""`btard-launch doctor`: is this machine ready? One line for each thing that a run needs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from btard.launcher.containers.versions import installed
from btard.launcher.network.traffic import human
from btard.launcher.run import data
from btard.launcher.run.experiment import gpu_share
from btard.launcher.run.plan import bind_problem, driver_present, free_bytes
from btard.node.errors import BtardError

Level = Literal["ok", "warn", "fail"]
_PYTHON = (3, 11)
_INSTALL = "run `pip install .` in the clone"
_RUN_BYTES = 200 << 20
_SHARED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what to do about it."""

    subject: str
    level: Level
    found: str
    advice: str = ""


def examine(data_directory: Path, run_dir: Path, base_port: int = 0, peers: int = 6) -> Iterator[Check]:
    """Look at everything, one thing after the other; nothing is changed."""
    yield _python()
    yield from _packages()
    yield _torch()
    yield _kernels()
    yield _gpu(peers)
    yield _cores(peers)
    yield _disk(run_dir)
    yield _shared_memory()
    yield _ports(base_port, peers)
    yield _data(data_directory)
    yield _containers()
    yield _shaping()
    yield _monitoring()


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3])) + f" on {sys.platform}"
    if sys.version_info < _PYTHON:
        return Check("python", "fail", found, "install Python 3.11 or newer")
    if not sys.platform.startswith("linux"):
        return Check("python", "warn", found, "tested on Linux; workers start more slowly elsewhere")
    return Check("python", "ok", found)


def _packages() -> Iterator[Check]:
    for name in ("numpy", "pyzmq", "pynacl", "blake3", "msgspec", "click", "rich", "jinja2"):
        found = installed(name)
        yield Check(name, "ok", found) if found else Check(name, "fail", "not installed", _INSTALL)


def _torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch", "fail", str(error).splitlines()[0], _INSTALL)
    from btard.node.training.environment import processor

    kernels = f"{torch.backends.cpu.get_cpu_capability()} on {processor()}"
    return Check("torch", "ok", f"{torch.__version__}, {kernels}; a worker uses 1 of {torch.get_num_threads()} threads")


def _kernels() -> Check:
    try:
        from btard.node import kernels
    except (ImportError, OSError):
        return Check("kernels", "warn", "unknown without torch", "repair torch first")
    if kernels.library() is None:
        return Check("kernels", "warn", "not compiled: torch's passes take their place", "install gcc for faster steps")
    return Check("kernels", "ok", "compiled, and they compute what they should")


def _gpu(peers: int) -> Check:
    try:
        import torch
    except (ImportError, OSError):
        return Check("gpu", "warn", "unknown without torch", "repair torch first")
    if not torch.cuda.is_available():
        if driver_present():
            found = f"a driver is here, but torch {torch.__version__} finds no usable GPU"
            return Check("gpu", "warn", found, "gradients are computed on the CPU; install torch's CUDA build for it")
        return Check("gpu", "ok", "none: gradients are computed on the CPU")
    try:
        torch.ones(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:  # the latter from a torch that was built without CUDA
        return Check("gpu", "fail", str(error).splitlines()[0], "repair the driver, or use --device cpu")
    memory = human(round(torch.cuda.get_device_properties(0).total_memory * gpu_share(peers)))
    return Check("gpu", "ok", f"{torch.cuda.get_device_name()}, {memory} for each of {peers} workers")


def _cores(peers: int) -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < peers:
        return Check("cores", "warn", f"{count} for {peers} workers", "steps take longer; nothing else changes")
    return Check("cores", "ok", str(count))


def _disk(run_dir: Path) -> Check:
    free = free_bytes(run_dir)
    place = run_dir
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return Check("disk", "fail", f"{place} is not writable", "change directory, or use --run-dir")
    if free < _RUN_BYTES:
        return Check("disk", "fail", f"{human(free)} free at {place}", f"free {human(_RUN_BYTES)}, or use --run-dir")
    return Check("disk", "ok", f"{human(free)} free at {place}")


def _shared_memory() -> Check:
    place = Path("/dev/shm")
    if not place.exists():
        return Check("/dev/shm", "warn", "not there", "workers do without; containers should mount it")
    free = shutil.disk_usage(place).free
    level: Level = "ok" if free >= _SHARED_BYTES else "warn"
    return Check(
        "/dev/shm", level, f"{human(free)} free", "" if level == "ok" else "give it 64 MB (docker: --shm-size)"
    )


def _ports(base_port: int, peers: int) -> Check:
    ports = range(base_port, base_port + 2 * peers) if base_port else range(1)
    busy = [port for port in ports if bind_problem(port) is not None]
    if busy:
        return Check("ports", "fail", f"in use: {', '.join(map(str, busy))}", "use another --base-port, or 0")
    return Check("ports", "ok", f"{2 * peers} free on 127.0.0.1")


def _monitoring() -> Check:
    program = shutil.which("prometheus")
    if program is None:
        return Check(
            "monitor", "ok", "no prometheus; only `--monitor` would use it (Debian: apt-get install prometheus)"
        )
    return Check("monitor", "ok", program)


def _data(data_directory: Path) -> Check:
    try:
        data.check("mnist", data_directory)
    except (BtardError, ImportError, OSError) as error:
        found, _, advice = str(error).partition("; ")
        return Check("mnist", "warn", found, f"{advice} (a run fetches it by itself)".lstrip())
    return Check("mnist", "ok", str(data_directory))


def _containers() -> Check:
    """Only `--backend compose` needs an engine, so that a missing one is no failure."""
    from btard.launcher.containers import engine, ports

    try:
        found = engine.find()
    except BtardError as error:
        problem, _, advice = str(error).partition("; ")
        return Check("engine", "warn", problem, f"only --backend compose needs it: {advice}")
    busy = [port for port in ports.of(os.environ) if bind_problem(port) is not None]
    if busy:
        advice = "--monitor with --backend compose cannot start; set PROMETHEUS_PORT or GRAFANA_PORT"
        return Check("engine", "warn", f"in use: {', '.join(map(str, busy))}", advice)
    return Check("engine", "ok", f"Docker {found.engine}, Compose {found.compose}")


def _shaping() -> Check:
    """Only `--shaping kernel` asks the kernel for anything, so that what lacks is no failure."""
    from btard.launcher.containers import kernel

    try:
        return Check("shaping", "ok", str(kernel.examine()))
    except BtardError as error:
        problem, _, advice = str(error).partition("; ")
        return Check("shaping", "ok", problem, advice)
