"""Goes on with a run that was stopped or killed, from what its nodes have kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from btard.launcher.backends.local import LocalBackend
from btard.launcher.monitor.state import RunState
from btard.launcher.monitor.watch import Watch
from btard.launcher.run import cluster, control, plan, run_directory
from btard.launcher.run.experiment import CEREMONY, Experiment
from btard.launcher.run.interrupts import Interrupts
from btard.launcher.run.observer import Observer, Silent
from btard.launcher.run.run_directory import RunDirectory, RunRecord
from btard.node import config as node_config
from btard.node.config import WIRE_VERSION, NodeConfig
from btard.node.errors import ConfigError
from btard.node.genesis.ceremony import Meeting
from btard.node.storage.disk import SUFFIX
from btard.node.storage.recovery import MEMORY


def resume(run_dir: Path, observer: Observer | None = None, timeout: float | None = None) -> cluster.Result:
    """Start the nodes of a run again, each where it was, and carry the run through.

    Args:
        run_dir: the run directory.
        observer: who is told of the progress.
        timeout: seconds from now; None: as long as it takes.

    Raises:
        ConfigError: no run directory, one of another version, a finished run, or one that kept nothing to resume from.
        BackendError: the run is still running, or the place does not work.
        DataError: the data set is gone, or a file of the run was damaged.
    """
    observer = observer or Silent()
    run_dir = run_dir.absolute()
    record = run_directory.read_record(run_dir)
    with control.alone(run_dir), Interrupts() as interrupts:
        configs = _configs(run_dir, record)
        backend = LocalBackend()
        backend.warm_up()
        prepared = _prepare(record, timeout, observer)
        out = _removed(run_dir, record)
        interrupts.deferred = True
        started = tuple(config for config in configs if config.node not in out)
        meeting = Meeting(run_dir / CEREMONY, record.run, record.run_id)
        for config in started:
            meeting.withdraw(config.node)  # its ports may be somebody else's by now
        made = RunDirectory(run_dir, record.run_id, started)
        return cluster.carry(prepared, made, backend, observer, interrupts, again=True)


def resumable(run_dir: Path, experiment: Experiment) -> bool:
    """True if a run's nodes have kept what they need to go on."""
    return experiment.backend == "local" and any(run_dir.glob(f"nodes/*/{MEMORY}/*{SUFFIX}"))


def _configs(run_dir: Path, record: RunRecord) -> tuple[NodeConfig, ...]:
    """The nodes' configurations, once it is certain that there is something to resume."""
    if (record.format, record.wire_version) != (run_directory.FORMAT, WIRE_VERSION):
        raise ConfigError(
            f"{run_dir} was made by another version (format {record.format}, wire {record.wire_version}; this program "
            f"has {run_directory.FORMAT} and {WIRE_VERSION}); resume it with {_maker(record)}"
        )
    if record.experiment.backend != "local":
        raise ConfigError(
            f"{run_dir} ran on the backend {record.experiment.backend!r}; only local runs are resumed, the others keep "
            "nothing after their end: start it again with `btard-launch run`"
        )
    if control.worker(run_dir) is not None:
        raise control.still_running(run_dir)
    configs = tuple(node_config.load(path) for path in sorted(run_dir.glob("nodes/*/config.json")))
    if not resumable(run_dir, record.experiment):
        raise ConfigError(f"{run_dir} holds no checkpoint to resume from; start it again with `btard-launch run`")
    if any(config.ceremony is None for config in configs):
        raise ConfigError(
            f"{run_dir} was made by a version whose launcher made all keys; resume it with {_maker(record)}"
        )
    moved = next((config for config in configs if Path(config.directory).parent.parent != run_dir), None)
    if moved is not None:
        raise ConfigError(f"{run_dir} was made as {Path(moved.directory).parent.parent}; move it back there")
    return configs


def _maker(record: RunRecord) -> str:
    """What made a run."""
    made = record.versions
    return f"btard {made.packages.get('btard')}" + (f", commit {made.git_commit}" if made.git_commit else "")


def _prepare(record: RunRecord, timeout: float | None, observer: Observer) -> plan.Plan:
    """What runs, as it was settled at the start: the scenario is in the record, its file may be gone."""
    experiment = msgspec.structs.replace(
        record.experiment, scenario=None, timeout=timeout, undo=record.run.undo, init=None
    )
    prepared = cluster.provided(experiment, observer)
    # The file of --init may be gone; what it held lies with the data, under its digest.
    prepared = replace(prepared, run=msgspec.structs.replace(prepared.run, init=record.run.init))
    if prepared.run != record.run:
        raise ConfigError("the run's options mean something else here than where it was started; resume it there")
    return replace(prepared, conditions=record.link_model, warnings=())


def _removed(run_dir: Path, record: RunRecord) -> frozenset[int]:
    """Nodes that the others have removed; they would find nobody to speak to."""
    state = RunState(record.run.peers, frozenset(int(peer) for peer in record.roles), record.run.capacity)
    watch = Watch(run_dir, state, record.run.steps)
    try:
        watch.catch_up()
    finally:
        watch.close()
    done = [node.node for node in state.nodes.values() if node.finished]
    if done and all(state.nodes[node].finished or state.nodes[node].out is not None for node in state.honest):
        raise ConfigError(f"{run_dir} is finished; there is nothing to resume")
    return frozenset(node.node for node in state.nodes.values() if node.out is not None)
