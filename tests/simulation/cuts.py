"""Random cuts of a network of honest peers: `python -m tests.simulation.cuts FIRST LAST` plays these seeds.

Each run is cut once into two or three pieces at a random instant, its lines at once or within some milliseconds, for
good as far as the peers can tell or for a random time; later all nodes are started again as those that halted are. No
run may ban anybody, disagree, lose more than f peers as gone, or leave anybody that is in before its end.
"""

from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from btard.node.config import Plugin, RunConfig
from btard.node.netem.conditions import Change, Conditions, Event, Window
from btard.node.protocol.adjudication.offences import standing
from btard.node.protocol.api import Banned, Finished
from tests.simulation.restarting import Halves, digests

LASTING_S = 3600.0
"""Longer than any peer waits."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One run: `pieces` are cut off from each other from `begins_s` on, each line `spread_s` later at most."""

    peers: int
    steps: int
    undo: int
    pieces: tuple[tuple[int, ...], ...]
    begins_s: float
    spread_s: float
    lasting_s: float
    again_s: float


def drawn(seed: int) -> Cut:
    """The cut of a seed; three in five leave no piece with a majority."""
    rng = random.Random(seed)
    peers, steps = rng.choice([4, 5, 6, 6, 7]), rng.choice([3, 6, 9])
    majority = rng.random() < 0.4
    while True:
        count = rng.choice([2, 2, 2, 3])
        places = [rng.randrange(count) for _ in range(peers)]
        pieces = tuple(tuple(peer for peer in range(peers) if places[peer] == piece) for piece in range(count))
        if all(pieces) and (majority or 2 * max(map(len, pieces)) <= peers):
            break
    begins_s, spread_s = rng.uniform(0.05, 0.2 * (steps + 2)), rng.choice([0.0, 0.005, 0.02, 0.05])
    lasting_s = LASTING_S if rng.random() < 0.5 else rng.uniform(0.1, 120.0)
    soon = lasting_s < LASTING_S and rng.random() < 0.3
    again_s = begins_s + (lasting_s + rng.uniform(0.0, 100.0) if soon else LASTING_S + 100.0)
    return Cut(peers, steps, rng.choice([0, 20]), pieces, begins_s, spread_s, lasting_s, again_s)


def broken(seed: int, where: Path) -> list[str]:
    """What a run breaks."""
    cut, rng = drawn(seed), random.Random(seed)
    run = RunConfig(peers=cut.peers, task=Plugin("quadratic"), steps=cut.steps, batch_size=4, undo=cut.undo)
    of = {peer: piece for piece in cut.pieces for peer in piece}
    lines = [(one, other) for one in of for other in of if of[one] is not of[other]]
    ends_s = cut.begins_s + cut.lasting_s
    changes = tuple(
        Change(Window("s", cut.begins_s + rng.uniform(0.0, cut.spread_s), ends_s), {}, (line,), cut=True)
        for line in lines
    )
    everybody = tuple(range(cut.peers))
    again = Event(Window("s", cut.again_s), "restart", everybody, "restart")
    seen = Halves(where, Conditions(changes=changes, events=(again,)), {}, seed, run).play(())
    out = {each.output.peer: each.output.reason for each in seen if isinstance(each.output, Banned)}
    finished = {each.node for each in seen if isinstance(each.output, Finished)}
    found = [f"peer {peer}: {reason}" for peer, reason in sorted(out.items()) if standing(reason) != "gone"]
    if len(out) > (cut.peers - 1) // 2:
        found.append(f"peers {sorted(out)} are gone, more than f")
    if any(len(each) > 1 for each in digests(seen).values()):
        found.append("two states of one step")
    if left := set(everybody) - finished - out.keys():
        found.append(f"peers {sorted(left)} are in and did not finish")
    return found


def main(first: int, last: int) -> int:
    """Play the seeds [first, last); 1 if one breaks something."""
    bad = 0
    for seed in range(first, last):
        with tempfile.TemporaryDirectory() as where:
            found = broken(seed, Path(where))
        if found:
            bad += 1
            print(f"seed {seed}: {'; '.join(found)}", drawn(seed), sep="\n", flush=True)
    print(f"{last - first} cuts, {bad} with a broken promise")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
