"""What `--wire bf16` costs in accuracy: pairs of simulated runs that differ in nothing else, for docs/benchmarks.md.

python -m docs.wire [--task mnist_cnn] [--seeds 5] [--steps 200] [--batch-size 64] [--tau 5]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from btard.node.config import Plugin, RunConfig
from btard.node.drivers.simulator import cluster
from btard.node.limits import Wire
from btard.node.protocol.api import Accused, Committed
from btard.node.training.environment import pin
from btard.node.training.registry import build_task
from btard.node.training.task import Task, TaskContext

DATA = Path("~/.cache/btard/data").expanduser()
WIRES: tuple[Wire, Wire] = ("float32", "bf16")


@dataclass(frozen=True, slots=True)
class Found:
    """What one honest run came to.

    Args:
        accuracy: on the test set, at the end.
        loss: mean training loss of the last tenth of all steps.
        longest: largest `||v|| / tau_j` of an aggregate.
        recomputed: parts that a check of the transcript made everybody recompute.
    """

    accuracy: float
    loss: float
    longest: float
    recomputed: int


def measure(run: RunConfig, task: Task, seed: int) -> Found:
    """One run of honest peers.

    Args:
        run: its configuration.
        task: built from it.
        seed: of keys and coins.
    """
    simulation = cluster(run, task, protocol_seed=seed)
    losses, longest, recomputed = [], 0.0, 0
    for seen in simulation.run():
        if seen.node != 0:
            continue
        recomputed += isinstance(seen.output, Accused)
        past = simulation.nodes[0].peer.shared.past
        if isinstance(seen.output, Committed) and past is not None:
            losses.append(simulation.gradients[0].loss)
            for part, owner in enumerate(past.aggregators):
                longest = max(longest, float(past.aggregates[owner].double().norm()) / past.radii[part])
    parameters_D = simulation.nodes[0].peer.shared.state.parameters_D
    correct = task.evaluate(parameters_D, 0, task.test_size)
    last = [loss for loss in losses[-max(1, run.steps // 10) :] if loss is not None]
    return Found(correct / task.test_size, mean(last), longest, recomputed)


def main(task: str, seeds: int, steps: int, batch_size: int, tau: float) -> None:
    """Print one line for each pair, and what the pairs come to."""
    pin("cpu")
    pairs = []
    for seed in range(seeds):
        pair = []
        for wire in WIRES:
            seeded = {"init_seed": seed, "data_seed": seed}
            run = RunConfig(task=Plugin(task), steps=steps, batch_size=batch_size, tau=tau, wire=wire, **seeded)
            pair.append(measure(run, build_task(run.task, TaskContext(DATA, batch_size, "cpu")), seed))
        pairs.append(pair)
        for wire, found in zip(WIRES, pair, strict=True):
            print(f"seed {seed}: {wire} {found}", flush=True)  # noqa: T201
    print(f"{task}, {steps} steps, batches of {batch_size}, tau {tau:g}, {seeds} pairs; bf16 less float32:")  # noqa: T201
    for name in ("accuracy", "loss"):
        apart = [getattr(narrow, name) - getattr(wide, name) for wide, narrow in pairs]
        spread = stdev(apart) if len(apart) > 1 else 0.0
        among = f"{min(apart):+.6f} to {max(apart):+.6f}"
        print(f"{name}: mean {mean(apart):+.6f}, standard deviation {spread:.6f}, {among}")  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="mnist_cnn")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--tau", type=float, default=5.0)
    main(**vars(parser.parse_args()))
