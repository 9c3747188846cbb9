"""What unlike data does to V3, to tau and to bans: `python -m tests.heterogeneity` plays the report's task, simulated.

For each split, without attackers and with two of six: how far contributions lie from their aggregates, how many of
them tau clips, how often V3 would have an aggregate looked at, who is banned, and the accuracy at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from btard.launcher.options import syntax
from btard.launcher.run import data
from btard.node.build import task_of
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.api import Banned, Committed, Finished
from btard.node.protocol.attempt.attempt import part_radius
from btard.node.training.environment import pin
from btard.node.training.task import Task
from tests.simulation.stage import set_up

SPLITS = ("iid", "gamma:similarity=0.5", "dirichlet:alpha=1", "dirichlet:alpha=0.1", "classes:k=2", "classes:k=1")
LIARS = (4, 5)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run came to."""

    norm: float
    """Median distance of a contribution to its aggregate, the whole vector's."""
    clipped: float
    """Share of contributions' parts farther away than tau."""
    far: int
    """Parts of which V3 had the aggregate looked at."""
    parts: int
    """Of how many, since V3's window was full."""
    bans: tuple[tuple[int, int, str], ...]
    """(step, peer, reason)."""
    accuracy: float


def seen_in(run: RunConfig, task: Task, roles: dict[int, Role]) -> Seen:
    """Play a run, and look at the norms that its transcripts agree on."""
    stage = set_up(run, roles, 0, task=task)
    peer = stage.simulation.nodes[0].peer
    norms, bans, far, parts, limit, final_D = [], [], 0, 0, peer.state.norms.scale(), None
    for each in stage.simulation.run():
        match each.output:
            case Committed(contributors=contributors) if each.node == 0 and contributors:
                scaled, count = peer.state.norms.steps[-1], len(peer.state.norms.steps[-1]) // len(contributors)
                norms += scaled
                if limit is not None:
                    columns = [scaled[part::count] for part in range(count)]
                    far += sum(2 * sum(norm > limit for norm in column) > len(column) for column in columns)
                    parts += count
                limit = peer.state.norms.scale()
            case Banned() as ban if each.node == 0:
                bans.append((ban.step, ban.peer, ban.reason))
            case Finished(parameters_D=parameters_D) if each.node == 0:
                final_D = parameters_D
    assert final_D is not None
    root = task.dimension**0.5
    radius = part_radius(run.tau, task.dimension, run.peers, task.dimension)
    clipped = sum(norm * root > radius for norm in norms) / len(norms)
    right = task.evaluate(final_D, 0, task.test_size) / task.test_size
    return Seen(median(norms) * root, clipped, far, parts, tuple(bans), right)


def main(arguments: Sequence[str]) -> int:
    """The command line; exit status 1 if an honest peer was banned."""
    parser = argparse.ArgumentParser(prog="python -m tests.heterogeneity", description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tau", type=float, default=5.0)
    parser.add_argument("--attack", default="sign_flip")
    parser.add_argument("--validate-every", type=int, default=1)
    parser.add_argument("--split", nargs="+", default=SPLITS)
    given = parser.parse_args(arguments)
    pin("cpu")
    wrong = False
    for split in given.split:
        run = RunConfig(
            steps=given.steps,
            batch_size=given.batch_size,
            tau=given.tau,
            eval_every=given.steps,
            validate_every=given.validate_every,
            split=syntax.plugin(split),
        )
        task = task_of(run, data.directory(None))
        attack: tuple[Plugin, ...] = tuple(syntax.plugins(given.attack))
        role = Role(attack, Schedule(start=20), LIARS)
        for what, roles in (("honest", {}), (given.attack, dict.fromkeys(LIARS, role))):
            seen = seen_in(run, task, roles)
            norms = f"norm {seen.norm:6.2f}  clipped {seen.clipped:5.1%}  V3 {seen.far}/{seen.parts}"
            print(f"{split:22} {what:12} {norms}  accuracy {seen.accuracy:.3f}  bans {list(seen.bans)}", flush=True)
            wrong |= any(peer not in roles for _, peer, _ in seen.bans)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
