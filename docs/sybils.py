"""What an identity costs a Sybil, and what it does before it is banned: the table in docs/hosts.md.

python -m docs.sybils [--seeds 4] [--steps 120]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import cluster
from btard.node.protocol.api import Banned, Committed, Entered, Finished, Lapsed, Probed, Returned
from btard.node.training.environment import pin
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext

FOUNDERS, PLACES = 6, 8
HONEST = "honest"
"""In the place of an attack: eight newcomers that mean no harm, to compare with."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one run came to.

    Args:
        entered, admitted: identities that came to be on probation, and members.
        worked: gradients that they computed rightly on probation.
        served: steps from entry to admission, of each that was admitted.
        lies: wrong gradients that were aggregated.
        lasted: steps from admission to ban, of each that was banned.
        together: most hostile members at once, and the members then.
        loss: of the last step that a founder contributed to.
    """

    entered: int
    admitted: int
    worked: int
    served: tuple[int, ...]
    lies: int
    lasted: tuple[int, ...]
    together: tuple[int, int]
    loss: float


def measure(seed: int, then: str, probation: int, admit_every: int, steps: int) -> Found:
    """One run of six honest founders and eight newcomers, all of one mind, that apply at once.

    Args:
        seed: of the run.
        then: what the newcomers do, as `rejoin` has it; or `HONEST`.
        probation, admit_every, steps: of the run.
    """
    run = RunConfig(
        peers=FOUNDERS,
        task=Plugin("quadratic", {"dimension": 64}),
        steps=steps,
        batch_size=4,
        probation=probation,
        roster="open",
        members=FOUNDERS + PLACES,
        admit_every=admit_every,
        data_seed=seed,
        delivery_bound_s=0.5,
        gradient_bound_s=1.0,
    )
    newcomers = tuple(range(FOUNDERS, FOUNDERS + PLACES))
    attacks = (Plugin("rejoin", {"then": then}),)
    roles = {} if then == HONEST else {peer: Role(attacks, Schedule(start=0), newcomers) for peer in newcomers}
    task = build_task(run.task, TaskContext(Path("unused"), run.batch_size))
    simulation = cluster(run, task, roles, protocol_seed=seed, newcomers=dict.fromkeys(newcomers, 1))
    entries: dict[int, int] = {}
    back: dict[int, int] = {}
    out: dict[int, int] = {}
    worked = lies = 0
    together = (0, FOUNDERS)
    for seen in simulation.run():
        if seen.node != 0:
            continue
        match seen.output:
            case Entered(step=step, peer=peer):
                entries[peer] = step
            case Probed():
                worked += 1
            case Returned(step=step, peer=peer):
                back[peer] = step
            case Banned(step=step, peer=peer) if peer >= FOUNDERS:
                out[peer] = step
            case Committed(active=active, contributors=contributors):
                lies += sum(peer >= FOUNDERS for peer in contributors) if then != HONEST else 0
                sybils = sum(peer >= FOUNDERS for peer in active)
                together = max(together, (sybils, len(active)))
            case Finished() | Lapsed():
                pass
    served = tuple(back[peer] - entries[peer] for peer in back)
    lasted = tuple(out[peer] - back[peer] for peer in out if peer in back)
    return Found(len(entries), len(back), worked, served, lies, lasted, together, simulation.gradients[0].loss)


ROWS = (
    ("wrong on probation", "gradient", 3, 1),
    ("honest, then sign flips", "later", 1, 1),
    ("honest, then sign flips", "later", 3, 1),
    ("honest, then sign flips", "later", 10, 1),
    ("honest, then sign flips", "later", 3, 30),
    ("honest throughout", HONEST, 3, 1),
)
HEAD = (
    "newcomers that are",
    "probation",
    "admit every",
    "admitted",
    "right gradients an identity",
    "steps served",
    "wrong gradients aggregated",
    "steps until banned (most)",
    "most at once",
    "loss at the end",
)


def rows(seeds: int, steps: int) -> Sequence[tuple[str, ...]]:
    """The table's rows, each a mean over seeds."""
    made = []
    for words, then, probation, admit_every in ROWS:
        found = [measure(seed, then, probation, admit_every, steps) for seed in range(seeds)]
        admitted = sum(each.admitted for each in found)
        served, lasted = ([value for each in found for value in getattr(each, name)] for name in ("served", "lasted"))
        sybils, members = max(each.together for each in found)
        made.append(
            (
                words,
                str(probation),
                str(admit_every),
                f"{admitted} of {sum(each.entered for each in found)}",
                f"{sum(each.worked for each in found) / admitted:.1f}" if admitted else "0",
                f"{mean(served):.1f}" if served else "-",
                f"{sum(each.lies for each in found) / admitted:.1f} each" if admitted else "0",
                f"{mean(lasted):.1f} ({max(lasted)})" if lasted else "-",
                f"{sybils} of {members}" if sybils else "0",
                f"{mean(each.loss for each in found):.3f}",
            )
        )
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m docs.sybils", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    pin("cpu")
    for row in (HEAD, ("---",) * len(HEAD), *rows(given.seeds, given.steps)):
        print("| " + " | ".join(row) + " |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
