"""What `btard-launch bench` does with its options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from btard.launcher import files
from btard.launcher.bench import measure, training
from btard.launcher.bench.measure import Figures, Spread
from btard.launcher.bench.training import Share
from btard.launcher.network import traffic
from btard.node.errors import ConfigError

SCALING = (4, 8, 16, 32, 64)
_OPERATIONS = {
    "protocol": "BTARD step",
    "gloo": "gloo all-reduce",
    "gloo and update": "gloo and update",
    "mean": "mean butterfly",
}


def lines(
    *, peers: int, size: float, pairs: int, task: str | None, steps: int, scaling: bool, as_json: bool, **how: Any
) -> Iterator[str]:
    """Measure and tell; as JSON one object, or with `scaling` one array. `task` and `scaling` exclude each other; `how`
    goes to `measure`.

    Raises:
        ConfigError: options that cannot be run.
        BackendError: a process failed.
    """
    if not (size >= 1 and size == int(size)):
        raise ConfigError(f"--size {size:g} must be a whole number of floats, for example 1e7")
    if task is not None and scaling:
        raise ConfigError(f"--task {task} and --scaling measure different things; leave one out")
    if task is not None:
        share = training.share(task, peers, steps)
        yield from [files.as_json(share).decode().rstrip()] if as_json else share_lines(share)
        return
    counts = SCALING if scaling else (peers,)
    found = []
    for count in counts:
        figures = measure.measure(count, int(size), pairs, **how)
        found.append(figures)
        if not as_json:
            yield from figure_lines(figures)
    if as_json:
        yield files.as_json(found if scaling else found[0]).decode().rstrip()


def figure_lines(found: Figures) -> Iterator[str]:
    """One benchmark as text."""
    what = "bare steps" if found.bare else "steps with journal, checkpoints and metrics"
    sent = f"{found.size} floats as {found.wire}"
    yield f"{found.peers} peers, {sent}, {found.pairs} pairs, {what}: median (lowest to highest)"
    for name, label in _OPERATIONS.items():
        yield f"  {label:16} CPU/peer {_spread(found.cpu_ms[name], 'ms')}   wall {_spread(found.wall_ms[name], 'ms')}"
    spread = found.spread
    yield f"  BTARD / gloo     CPU      {_spread(spread['cpu_ratio'], 'x')}   wall {_spread(spread['wall_ratio'], 'x')}"
    yield f"  BTARD / both     CPU      {_spread(spread['updated_cpu_ratio'], 'x')}   (gloo and the same update)"
    both = _spread(spread["mean_cpu_ratio"], "x"), _spread(spread["mean_wall_ratio"], "x")
    yield f"  mean / gloo      CPU      {both[0]}   wall {both[1]}"
    yield (
        f"  bytes            {found.bytes_ratio:.4f} of the formula: {traffic.human(found.bulk_bytes)} of tensors and "
        f"{traffic.human(found.control_bytes)} in {found.messages:.0f} messages per peer"
    )
    yield f"  iterations       {found.iterations:g} of CenteredClip"
    yield f"  page faults      {found.page_faults:.0f} per peer and step"
    yield (
        f"  writes           {found.write_calls:.0f} calls of {found.written_floats:.2f} vectors per peer and step, "
        f"{found.syncs:.1f} waits for the disk"
    )
    yield "  by phase, CPU and wall ms per peer:"
    for name, part in found.phases.items():
        yield f"    {name:30} {part.cpu_ms:9.2f} {part.wall_ms or 0:9.2f}"
    yield "  by kind of work, CPU ms per peer (the validator's work is spread over all peers):"
    for name, cpu_ms in sorted(found.kinds.items(), key=lambda item: -item[1]):
        yield f"    {name:30} {cpu_ms:9.2f}"


def share_lines(found: Share) -> Iterator[str]:
    """The protocol's share of a training step as text."""
    yield f"{found.task}, {found.peers} peers, {found.steps} honest steps, all peers together:"
    yield f"  gradients {found.gradient_cpu_ms:.1f} CPU-ms a step, protocol {found.protocol_cpu_ms:.1f} CPU-ms"
    yield f"  protocol over gradients {100 * found.protocol_share:.1f} %; a step takes {found.step_ms:.0f} ms"
    yield f"  ready {found.ready_s:.1f} s after the start; importing torch alone took {found.torch_import_s:.1f} s"


def _spread(figure: Spread, unit: str) -> str:
    return f"{figure.median:8.2f} {unit} ({figure.low:.2f} to {figure.high:.2f})"
