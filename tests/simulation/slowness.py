"""What attackers cost in time: `python -m tests.simulation.slowness --steps 900` prints a table, in virtual time."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import cluster
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import Banned, Committed
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext

TASK = Plugin("quadratic", {"dimension": 24})
BOTH = (4, 5)

CASES: Mapping[str, tuple[Plugin, ...]] = {
    "honest": (),
    "just_in_time": (Plugin("just_in_time"),),
    "just_in_time, tensors too": (Plugin("just_in_time", {"tensors": True}),),
    "just_in_time within budgets": (Plugin("just_in_time", {"until": "budget"}),),
    "just_in_time within budgets, tensors too": (Plugin("just_in_time", {"until": "budget", "tensors": True}),),
    "just_in_time within tight budgets": (
        Plugin("just_in_time", {"until": "budget", "tensors": True, "before_s": 0.004}),
    ),
    "split_aggregate": (Plugin("split_aggregate"),),
    "split_aggregate to one": (Plugin("split_aggregate", {"to": "one"}),),
    "withhold_aggregate from one": (Plugin("withhold_aggregate", {"to": "one"}),),
}
"""What both attackers do, in every step."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What one run took.

    Args:
        mean_s: a step, in virtual time, the first ones left out.
        first_s: a step of those.
        removed: (step, peer, reason).
    """

    mean_s: float
    first_s: float
    removed: tuple[tuple[int, int, str], ...]


def pace(attacks: Sequence[Plugin], steps: int, skipped: int, run: RunConfig | None = None, seed: int = 0) -> Pace:
    """Play a run of the defaults, and take its time at the lowest honest peer.

    Args:
        attacks: of peers 4 and 5 of six.
        steps: of the run.
        skipped: steps at the start that the mean leaves out.
        run: another configuration.
        seed: of keys and links.
    """
    run = run or RunConfig(peers=6, steps=steps, batch_size=2, task=TASK)
    roles = {peer: Role(tuple(attacks), Schedule(start=0), BOTH, attack_seed=seed) for peer in BOTH if attacks}
    task = build_task(run.task, TaskContext(Path("unused"), run.batch_size))
    times, removed = [0.0], []
    for seen in cluster(run, task, roles, protocol_seed=seed, links=LinkModel(seed=seed)).run():
        if seen.node == 0 and isinstance(seen.output, Committed):
            times.append(seen.time_s)
        elif seen.node == 0 and isinstance(seen.output, Banned):
            removed.append((seen.output.step, seen.output.peer, seen.output.reason))
    assert len(times) > steps, f"{len(times) - 1} steps of {steps} were committed"
    first, rest = times[skipped] - times[0], times[steps] - times[skipped]
    return Pace(rest / (steps - skipped), first / max(skipped, 1), tuple(removed))


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=900, help="of each run (default: %(default)s)")
    parser.add_argument("--skipped", type=int, default=100, help="at its start (default: %(default)s)")
    parser.add_argument("--case", choices=tuple(CASES), action="append", help="this one alone (default: all)")
    parser.add_argument("--measure-bounds", action="store_true", help="D and T_g as step 0 measures them")
    parser.add_argument("--tight-budgets", action="store_true", help="budgets as step 0 measures them")
    args = parser.parse_args()
    run = RunConfig(
        peers=6, steps=args.steps, batch_size=2, task=TASK, measure_delivery=args.measure_bounds,
        measure_gradient=args.measure_bounds, tight_budgets=args.tight_budgets,
    )  # fmt: skip
    honest = pace((), args.steps, args.skipped, run)
    for name in args.case or CASES:
        found = honest if name == "honest" else pace(CASES[name], args.steps, args.skipped, run)
        ratio = found.mean_s / honest.mean_s
        print(f"{name}: {found.mean_s:.4f} s a step ({ratio:.1f} times the honest), the first {args.skipped}: "
              f"{found.first_s:.4f} s; removed: {list(found.removed)}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
