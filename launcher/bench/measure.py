"""Starts the processes of a benchmark and turns what they measured into figures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median

import msgspec

from btard.launcher.backends.local import context, server_environment
from btard.launcher.bench.worker import BASELINES, GLOO, MEAN, PROTOCOL, UPDATED, WARM_UP, Found, Sample, work
from btard.launcher.network import traffic
from btard.launcher.run.experiment import Experiment, listen
from btard.node.config import NodeConfig, RunConfig
from btard.node.crypto.keys import generate
from btard.node.errors import BackendError, ConfigError
from btard.node.limits import ENTRY_BYTES, Wire

_BOUND_S = 60.0
"""Delivery bound of the measured run: nothing may be called late while processes wait for each other."""

LIMIT_S = 600.0


class Spread(msgspec.Struct, frozen=True):
    """Median, smallest and largest of one figure over all pairs."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: list[float]) -> Spread:
        """The spread of some values."""
        return Spread(median(values), min(values), max(values))


class Part(msgspec.Struct, frozen=True):
    """CPU milliseconds per peer and step, and (by phase) wall milliseconds of the average peer."""

    cpu_ms: float
    wall_ms: float | None = None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark. Ratios are medians over pairs of neighbouring measurements; milliseconds are per peer and step.

    Args:
        bare: without journal, checkpoints, ledger and metrics.
        wire: what entries of tensors travel as.
        cpu_ratio, wall_ratio: the protocol's step over gloo's all-reduce.
        updated_cpu_ratio: over gloo's all-reduce and the update that follows it.
        mean_cpu_ratio, mean_wall_ratio: the mean butterfly over gloo's all-reduce.
        bytes_ratio: all bytes sent over the formula (4 bytes an entry, 2 with bf16).
        spread: of each ratio.
        cpu_ms, wall_ms: by operation.
        phases: of a step; validation happens in REPORT.
        kinds: of a step's CPU, by what it was spent on.
        messages: control messages per peer and step.
        bulk_bytes, control_bytes: all peers, per step.
        iterations: CenteredClip's, median.
        page_faults: of the measured steps, per peer and step.
        write_calls, written_floats: to ledger and journal, per peer and step; to files, in vectors of `size` floats.
        syncs: waits for the disk, per peer and step.
    """

    peers: int
    size: int
    pairs: int
    bare: bool
    wire: Wire
    cpu_ratio: float
    wall_ratio: float
    updated_cpu_ratio: float
    mean_cpu_ratio: float
    mean_wall_ratio: float
    bytes_ratio: float
    spread: dict[str, Spread]
    cpu_ms: dict[str, Spread]
    wall_ms: dict[str, Spread]
    phases: dict[str, Part]
    kinds: dict[str, float]
    messages: float
    bulk_bytes: float
    control_bytes: float
    iterations: float
    page_faults: float
    write_calls: float
    written_floats: float
    syncs: float


def measure(
    peers: int, size: int, pairs: int, bare: bool = False, one_port: bool = False, wire: Wire = "float32"
) -> Figures:
    """Run one benchmark: `peers` processes, vectors of `size` floats, `pairs` alternations.

    Without what a worker keeps where `bare`; with one port for each process in place of two where `one_port`;
    entries of tensors travel as `wire`. Gloo and the mean butterfly move float32.

    Raises:
        ConfigError: numbers that cannot be run.
        BackendError: a process failed.
    """
    if not peers <= size:
        raise ConfigError(f"--size {size} cannot be split among --peers {peers}; use at least {peers}")
    # One more: a last step without gradients would begin in the turn that ends a measured one.
    run = RunConfig(
        peers=peers, steps=WARM_UP + pairs + 1, delivery_bound_s=_BOUND_S, gradient_bound_s=_BOUND_S, wire=wire
    )
    members, secrets = generate(0, peers)
    with tempfile.TemporaryDirectory(prefix="btard-bench-") as name, server_environment():
        directory = Path(name)
        kind = context()
        barrier = kind.Barrier(peers)
        workers: dict[Connection, BaseProcess] = {}
        for rank in range(peers):
            ours, theirs = kind.Pipe(duplex=False)
            own = directory / "nodes" / str(rank)
            own.mkdir(parents=True)
            config = NodeConfig(
                "bench",
                rank,
                run,
                members,
                "",
                str(own),
                name,
                listen(Experiment(one_port=one_port), rank),
                checkpoints=not bare,
                metrics=None if bare else "127.0.0.1:0",
            )
            process: BaseProcess = kind.Process(
                target=work, daemon=True, name=f"btard-bench-{rank}",
                args=(config, secrets[rank], size, pairs, directory, barrier, theirs),
            )  # fmt: skip
            process.start()
            theirs.close()
            workers[ours] = process
        try:
            return figures(peers, size, pairs, bare, _collect(workers), wire)
        finally:
            for process in workers.values():
                process.kill()
                process.join()


def _collect(workers: Mapping[Connection, BaseProcess]) -> list[Found]:
    """What every process measured, by rank.

    Raises:
        BackendError: one of them died or took too long; its trace is on stderr.
    """
    found: dict[Connection, Found] = {}
    end = time.monotonic() + LIMIT_S
    while len(found) < len(workers):
        ready = connection.wait([pipe for pipe in workers if pipe not in found], max(0.0, end - time.monotonic()))
        if not ready:
            raise BackendError(f"the benchmark did not end within {LIMIT_S:.0f} s; use a smaller --size or --peers")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            try:
                found[pipe] = msgspec.msgpack.decode(pipe.recv_bytes(), type=Found)
            except EOFError as error:
                raise BackendError(f"{workers[pipe].name} failed; its error stands above") from error
    return [found[pipe] for pipe in workers]


def figures(peers: int, size: int, pairs: int, bare: bool, found: list[Found], wire: Wire = "float32") -> Figures:
    """Figures of all processes together; every ratio is taken within one pair."""
    cpu = {name: _all(found, name, _total_cpu) for name in (PROTOCOL, *BASELINES)}
    wall = {name: _all(found, name, _wall) for name in (PROTOCOL, *BASELINES)}
    spread = {
        "cpu_ratio": _ratio(cpu[PROTOCOL], cpu[GLOO]),
        "wall_ratio": _ratio(wall[PROTOCOL], wall[GLOO]),
        "updated_cpu_ratio": _ratio(cpu[PROTOCOL], cpu[UPDATED]),
        "mean_cpu_ratio": _ratio(cpu[MEAN], cpu[GLOO]),
        "mean_wall_ratio": _ratio(wall[MEAN], wall[GLOO]),
    }
    sent = _summed([each.sent_bytes for each in found])
    control = sent.get("control", 0)
    expected = sum(
        traffic.step_bytes(size, range(peers), of_step, ENTRY_BYTES[wire]) for of_step in found[0].contributors
    )
    phases = _summed([each.phases.cpu_s for each in found]), _summed([each.phases.wall_s for each in found])
    each_ms = 1000 / (peers * pairs)
    return Figures(
        peers=peers, size=size, pairs=pairs, bare=bare, wire=wire, updated_cpu_ratio=spread["updated_cpu_ratio"].median,
        cpu_ratio=spread["cpu_ratio"].median, wall_ratio=spread["wall_ratio"].median,
        mean_cpu_ratio=spread["mean_cpu_ratio"].median, mean_wall_ratio=spread["mean_wall_ratio"].median,
        bytes_ratio=sum(sent.values()) / expected, spread=spread,
        cpu_ms={name: Spread.of([1000 * value / peers for value in values]) for name, values in cpu.items()},
        wall_ms={name: Spread.of([1000 * value for value in values]) for name, values in wall.items()},
        phases={name: Part(each_ms * phases[0][name], each_ms * phases[1][name]) for name in phases[0]},
        kinds={name: each_ms * value for name, value in _summed([each.kinds for each in found]).items()},
        messages=_summed([each.sent_messages for each in found]).get("control", 0) / (peers * pairs),
        bulk_bytes=(sum(sent.values()) - control) / pairs, control_bytes=control / pairs,
        iterations=median(value for each in found for value in each.iterations),
        page_faults=sum(each.faults for each in found) / (peers * pairs),
        write_calls=sum(each.writes[0] for each in found) / (peers * pairs),
        written_floats=sum(each.writes[1] for each in found) / (4 * size * peers * pairs),
        syncs=sum(each.syncs for each in found) / (peers * pairs),
    )  # fmt: skip


def _all(found: list[Found], name: str, of_pair: Callable[[list[Sample]], float]) -> list[float]:
    return [of_pair(list(pair)) for pair in zip(*(each.samples[name] for each in found), strict=True)]


def _total_cpu(samples: list[Sample]) -> float:
    return sum(sample.cpu_s for sample in samples)


def _wall(samples: list[Sample]) -> float:
    return max(sample.ended_s for sample in samples) - min(sample.began_s for sample in samples)


def _ratio(above: list[float], below: list[float]) -> Spread:
    return Spread.of([one / other for one, other in zip(above, below, strict=True)])


def _summed(tables: list[dict[str, float]] | list[dict[str, int]]) -> dict[str, float]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: sum(table.get(name, 0) for table in tables) for name in names}
