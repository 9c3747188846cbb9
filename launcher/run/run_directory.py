"""The run directory: made in one go before anything starts, removed again if the start fails."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from btard.launcher.containers.versions import installed
from btard.launcher.files import as_json, disk_error, write_atomically
from btard.launcher.run.experiment import IMPORTS, Experiment, Seeds, node_configs
from btard.node.config import WIRE_VERSION, NodeConfig, Role, RunConfig
from btard.node.errors import BackendError, ConfigError, DataError
from btard.node.netem.conditions import Conditions
from btard.node.storage.records import read_regular

FORMAT = 1
_RECORD_BYTES = 16 << 20
_PACKAGES = ("btard", "torch", "numpy", "pyzmq", "pynacl", "blake3", "msgspec", "click", "rich")


class Versions(msgspec.Struct, frozen=True):
    """What ran: interpreter, platform, packages (None: not installed), the state of the source tree, and on what
    processors (empty: not known)."""

    python: str
    platform: str
    packages: dict[str, str | None]
    git_commit: str | None
    git_clean: bool | None
    processors: str = ""


class RunRecord(msgspec.Struct, frozen=True):
    """run.json: how the run came about. It holds the roles, so no node reads it."""

    format: int
    wire_version: int
    run_id: str
    started: str
    argv: tuple[str, ...]
    experiment: Experiment
    sources: dict[str, str]
    run: RunConfig
    seeds: Seeds
    roles: dict[str, Role]
    link_model: Conditions | None
    data_directory: str
    versions: Versions


class RunDirectory(msgspec.Struct, frozen=True):
    """A run directory that is ready to start."""

    path: Path
    run_id: str
    configs: tuple[NodeConfig, ...]


def create(
    experiment: Experiment, run: RunConfig, roles: Mapping[int, Role], data_directory: Path,
    *, argv: Sequence[str] = (), sources: Mapping[str, str] | None = None, conditions: Conditions | None = None,
) -> RunDirectory:  # fmt: skip
    """Make the run directory with run.json and each node's folder and configuration; keys and genesis.json too of
    simulated nodes: workers come to theirs by themselves.

    Raises:
        ConfigError: the directory asked for exists and is not empty, or a path is no UTF-8; nothing is left behind.
        BackendError: it cannot be written; nothing is left behind.
    """
    from btard.node.crypto import keys
    from btard.node.genesis.ceremony import GIVEN
    from btard.node.genesis.genesis import GENESIS_FORMAT, Genesis

    path = _claim(experiment)
    # Unlike the directory's name, the run's says nothing of its attacks: every node learns it.
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    try:
        simulated, seed = experiment.backend == "simulated", experiment.seeds.protocol
        members, hidden = keys.generate(seed, run.peers) if seed is not None else ((), ())
        configs = node_configs(
            experiment, run, roles, run_id, path, data_directory, conditions, members if simulated else ()
        )
        _keep_imports(experiment, path / IMPORTS)
        for config in configs:
            Path(config.directory).mkdir(parents=True)
            write_atomically(Path(config.directory) / "config.json", as_json(config), mode=0o600)
        for config, secret in zip(configs, hidden, strict=bool(hidden)):
            keys.write(Path(config.secrets_file) if simulated else Path(config.directory) / GIVEN, secret)
        if simulated:
            genesis = Genesis(GENESIS_FORMAT, WIRE_VERSION, run_id, run, members)
            write_atomically(path / "genesis.json", as_json(genesis))
        record = RunRecord(
            FORMAT, WIRE_VERSION, run_id, time.strftime("%Y-%m-%dT%H:%M:%S%z"), tuple(argv), experiment,
            dict(sources or {}), run, experiment.seeds, {str(peer): role for peer, role in roles.items()},
            conditions,
            str(data_directory), versions(),
        )  # fmt: skip
        write_atomically(path / "run.json", as_json(record))
    except OSError as error:
        remove(path)
        raise disk_error(error, path) from error
    except UnicodeEncodeError as error:
        remove(path)
        raise ConfigError(
            f"{error.object!a} is no UTF-8 and cannot stand in a run's files; use another name, or LANG=C.UTF-8"
        ) from error
    except BaseException:
        remove(path)
        raise
    return RunDirectory(path, run_id, configs)


def _keep_imports(experiment: Experiment, directory: Path) -> None:
    """Copies of the files that the run is made with: what the workers load, and what a verifier may read."""
    if experiment.imports:
        directory.mkdir()
    for name in experiment.imports:
        shutil.copyfile(name, directory / Path(name).name)


def remove(path: Path) -> None:
    """Delete a run directory that did not start, and `runs/` if that leaves it empty."""
    shutil.rmtree(path, ignore_errors=True)
    if path.parent.name == "runs":
        try:
            path.parent.rmdir()
        except OSError:
            return


def read_record(run_dir: Path) -> RunRecord:
    """The run.json of a run directory.

    Raises:
        ConfigError: there is none, or it is not one of ours.
    """
    path = run_dir / "run.json"
    try:
        return msgspec.json.decode(read_regular(run_dir, path.name, _RECORD_BYTES), type=RunRecord)
    except (OSError, DataError) as error:
        problem = error.strerror if isinstance(error, OSError) else str(error)
        why = f"{path.name} cannot be read ({problem})" if run_dir.exists() else "it does not exist"
        raise ConfigError(f"{run_dir} is not a run directory: {why}; name one below runs/") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not readable by this version: {error}") from error


def versions() -> Versions:
    """Versions of what runs here, and the commit it was built from where it is a clone."""
    packages = {name: installed(name) for name in _PACKAGES}
    commit, clean = _git_state(Path(__file__).resolve().parents[2])
    return Versions(sys.version.split()[0], platform.platform(), packages, commit, clean, _processors())


def _processors() -> str:
    """How many, and what the system calls them."""
    try:
        named = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return f"{os.cpu_count()} x {named[1] if named else platform.processor() or platform.machine()}"


def _claim(experiment: Experiment) -> Path:
    """Create the directory and its `logs`, and only these: of two runs started at once one gets it, or each its own."""
    if experiment.run_dir is not None:
        path = Path(experiment.run_dir).absolute()
        taken = ConfigError(f"--run-dir {experiment.run_dir} exists and is not empty; name a new directory")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise taken
        try:
            return _make(path, exist_ok=True)
        except FileExistsError as error:
            raise taken from error
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{_name(experiment)}"
    for attempt in range(1000):
        path = Path("runs").absolute() / (f"{stem}-{attempt + 1}" if attempt else stem)
        with contextlib.suppress(FileExistsError):
            return _make(path, exist_ok=False)
    raise BackendError(f"runs/{stem} is taken a thousand times; use --run-dir")


def _make(path: Path, exist_ok: bool) -> Path:
    """Raises FileExistsError where it is, or becomes, somebody else's."""
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        (path / "logs").mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise disk_error(error, path) from error
    return path


def _name(experiment: Experiment) -> str:
    """A short name for people: the attacks, or "clean"."""
    attacks = [experiment.attack] if experiment.attack else []
    attacks += [role.partition("=")[2] for role in experiment.role]
    names = dict.fromkeys(name for text in attacks for name in re.findall(r"(?:^|\+)\s*([A-Za-z_]\w*)", text))
    return "-".join(list(names)[:3]) or "clean"


def _git_state(source: Path) -> tuple[str | None, bool | None]:
    if not (source / ".git").exists():
        return None, None
    try:
        head, status = (
            subprocess.run(["git", "-C", str(source), *command], capture_output=True, text=True, timeout=10, check=True)
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    return head.stdout.strip(), not status.stdout.strip()
