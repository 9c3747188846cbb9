"""A systematic adversary over the real Peer.

python -m tests.adversary --n 4 --states 1000000 [--deviations 2] [--jobs 2]
python -m tests.adversary --guided --n 5 6 --runs 200000 [--jobs 2] [--minutes 30]
python -m tests.adversary --n 6 --replay near,c,@CLOSE1,hold:5:CLOSE:0123,...
python -m tests.adversary --scenario NAME | --scenarios
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter

import torch

from tests.adversary import moves
from tests.adversary.cluster import Size
from tests.adversary.explore import Found, explore, shrink
from tests.adversary.guided import guide
from tests.adversary.known import KNOWN, known
from tests.adversary.play import play, story
from tests.adversary.swift import swift
from tests.simulation.record import Entry, append, commit, today

_SHOWN = 5
STYLES = tuple((links, "c") for links in moves.LINKS)


def attackers_of(peers: int) -> int:
    """f_0."""
    return (peers + 1) // 2 - 1


def size_of(peers: int, steps: int, kills: bool) -> Size:
    """As many puppets as there may be faults; a peer that is away counts as one."""
    return Size(peers, attackers_of(peers) - kills, steps)


def _explore(task: tuple[int, int, int, int, float, bool, int, int, bool]) -> tuple[Found, str]:
    peers, steps, deviations, most, until, kills, which, jobs, first = task
    whole = Found()
    for place, style in enumerate(STYLES):
        deadline = time.monotonic() + (until - time.monotonic()) / (len(STYLES) - place)
        explore(size_of(peers, steps, kills), list(style), deviations, most * (place + 1) // len(STYLES),
                deadline, kills, (which, jobs), first, found=whole)  # fmt: skip
    return whole, ""


def _guide(task: tuple[int, int, int, int, float, bool, bool]) -> tuple[Found, str]:
    peers, steps, seed, runs, until, kills, first = task
    found, learner = guide(size_of(peers, steps, kills), seed, runs, until, kills, first)
    return found, f"n={peers} seed {seed}: {len(learner.covered)} joint situations, corpus of {len(learner.corpus)}"


def main(arguments: list[str]) -> int:
    """The command line; exit status 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[4], help="peers; as many puppets as the model allows")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--states", type=int, default=1_000_000, help="stop after so many distinct states")
    parser.add_argument("--deviations", type=int, default=2, help="most moves in one run of an exhaustive search")
    parser.add_argument("--guided", action="store_true")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", action="store_true", help="one honest peer may be restarted, for one puppet less")
    parser.add_argument("--first", action="store_true", help="stop at the first broken promise")
    parser.add_argument("--record", action="store_true", help="add a line to docs/reports/soak.csv")
    parser.add_argument("--replay", metavar="LINE")
    parser.add_argument("--puppets", type=int, help="with --replay, if not as many as the model allows")
    parser.add_argument("--shrink", action="store_true", help="with --replay: the shortest line that breaks as much")
    parser.add_argument("--scenario")
    parser.add_argument("--scenarios", action="store_true", help="all known attacks, a line each")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    swift()
    if given.replay is not None or given.scenario is not None:
        named = known(given.scenario) if given.scenario else None
        puppets = attackers_of(given.n[0]) if given.puppets is None else given.puppets
        size = named.size if named else Size(given.n[0], puppets, given.steps)
        line = named.line if named else given.replay
        played = play(size, line)
        if given.shrink and played.broken is not None:
            for shorter in shrink(size, line, played.broken.split(":")[0]):
                print(shorter, flush=True)
                line = shorter
            played = play(size, line)
        print(story(played))
        return int(played.broken is not None)
    if given.scenarios:
        verdicts = {each.name: play(each.size, each.line).broken for each in KNOWN}
        for name, broken in verdicts.items():
            print(f"{name}: {broken or 'every promise held'}")
        return int(any(verdicts.values()))
    return _search(given)


def _task(given: argparse.Namespace, peers: int, which: int) -> tuple[object, ...]:
    """What one process does; the sizes come one after the other, each with its share of the time."""
    share = (given.n.index(peers) + 1) / len(given.n)
    until, jobs = time.monotonic() + 60.0 * given.minutes * share, given.jobs
    if given.guided:
        runs = given.runs // (jobs * len(given.n))
        return peers, given.steps, given.seed + which, runs, until, given.kills, given.first
    most = given.states // jobs
    return peers, given.steps, given.deviations, most, until, given.kills, which, jobs, given.first


def _search(given: argparse.Namespace) -> int:
    began, work = time.monotonic(), _guide if given.guided else _explore
    broken = 0
    tasks = [_task(given, peers, which) for peers in given.n for which in range(given.jobs)]
    with multiprocessing.get_context("fork").Pool(given.jobs) as pool:
        done = pool.map(work, tasks, chunksize=1)  # type: ignore[arg-type]
    for place, peers in enumerate(given.n):
        found, texts = Found(), list[str]()
        for part, text in done[place * given.jobs : (place + 1) * given.jobs]:
            found.merge(part)
            texts += [text] if text else []
        broken += len(found.broken)
        print(*texts, _told(given, peers, found), sep="\n", flush=True)
        if given.record:
            _record(given, peers, found)
    print(f"{time.monotonic() - began:.0f} s with {given.jobs} jobs")
    return int(broken > 0)


def _told(given: argparse.Namespace, peers: int, found: Found) -> str:
    """The sums of a search; of each kind of broken promise the first lines."""
    lines, kinds, guided = list[str](), Counter[str](), given.guided
    more = f" --puppets {attackers_of(peers) - 1}" if given.kills else ""
    for line, problem in found.broken:
        kind = problem.split(":")[0]
        kinds[kind] += 1
        if kinds[kind] <= _SHOWN:
            lines.append(f"n={peers}: {problem}\n  python -m tests.adversary --n {peers}{more} --replay {line}")
    how = "guided" if guided else "complete" if found.complete else "cut short"
    all_of_it = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no promise broken"
    states = "" if guided else f"{len(found.states)} distinct states, "
    lines.append(f"n={peers}: {states}{found.runs} runs, {found.hostile} hostile steps, {found.events} events, "
                 f"{found.cpu_s:.0f} s of CPU, {how}: {all_of_it}")  # fmt: skip
    return "\n".join(lines)


def _record(given: argparse.Namespace, peers: int, found: Found) -> None:
    kind = f"guided n={peers}" if given.guided else f"explore n={peers} d={given.deviations}"
    seeds = f"{given.seed}..{given.seed + given.jobs}" if given.guided else ""
    append(Entry(today(), commit(), kind + (" kills" if given.kills else ""), seeds, found.runs, len(found.states),
                 found.hostile, len(found.broken), round(found.cpu_s)))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
