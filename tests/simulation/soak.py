"""Plays the composed runs of a range of seeds and holds each to every promise; a failing seed says how to replay it.

python -m tests.simulation.soak --seeds 0..100 [--jobs 2] [--record FILE] [--report]
python -m tests.simulation.soak --replay 17 [--composition 1]
python -m tests.simulation.soak --sum FILE
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from btard.node.protocol.api import Dropped, PhaseEntered
from btard.node.training.environment import pin
from tests.adversary.swift import swift
from tests.simulation.checkers import PROMISES
from tests.simulation.checkers.cost import Cost
from tests.simulation.composer import COMPOSITION, compose, described
from tests.simulation.hooked import Hooked
from tests.simulation.ledger import Ledger, Played, table
from tests.simulation.record import FILE, Entry, append, commit, today
from tests.simulation.stage import Stage, play

REGRESSIONS = Path(__file__).parent / "regressions.txt"
REPLAY = "python -m tests.simulation.soak --replay {} --composition {}"


def regressions() -> tuple[tuple[int, int], ...]:
    """Seeds that once broke a promise, each with its composition: they are played whenever the tests run."""
    lines = (line.partition("#")[0].split() for line in REGRESSIONS.read_text(encoding="utf-8").splitlines())
    return tuple((int(seed), int(composition)) for seed, composition in filter(None, lines))


def promises(stage: Stage) -> tuple[type, ...]:
    """What a run is held to: a peer that starts again says and asks more than a step's share of messages."""
    restarts = isinstance(stage.simulation, Hooked) and stage.simulation.restarts
    return tuple(promise for promise in PROMISES if not (restarts and promise is Cost))


def hold(seed: int, composition: int = COMPOSITION) -> Ledger:
    """Play one seed under the eyes of all checkers.

    Raises:
        AssertionError: a promise is broken; the note says how to see it again.
    """
    stage = compose(seed, composition)
    ledger = Ledger(stage)
    try:
        play(stage, (*promises(stage), lambda _: ledger))
    except BaseException as error:
        error.add_note(f"{described(stage)}\nreplay: {REPLAY.format(seed, composition)}")
        raise
    return ledger


def played(seed: int, composition: int = COMPOSITION) -> Played:
    """Play one seed; a broken promise is part of the result."""
    began_s = time.process_time()
    try:
        ledger, problem = hold(seed, composition), ""
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        ledger, problem = None, "\n".join((f"{type(error).__name__} at {where}: {error}", *error.__notes__))
    return Played(seed, problem, time.process_time() - began_s, ledger.facts() if ledger is not None else {})


def results(seeds: Iterable[int], jobs: int, composition: int = COMPOSITION) -> Iterator[Played]:
    """The outcome of each seed, in any order."""
    play_one = functools.partial(played, composition=composition)
    if jobs == 1:
        yield from map(play_one, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(play_one, seeds, chunksize=8)


def soak(
    seeds: range, jobs: int, record: Path | None, report: Path | None = None, composition: int = COMPOSITION
) -> int:
    """Play a range, print each failure as it happens and the sums at the end; returns how many seeds failed.

    Args:
        seeds, composition: to play.
        jobs: processes.
        record: each result is added to this file.
        report: one line about all of them is added to this one.
    """
    began_s, done = time.monotonic(), []
    for result in results(seeds, jobs, composition):
        done.append(result)
        if result.problem:
            print(f"seed {result.seed}: {result.problem}\n", flush=True)
        if record is not None:
            with record.open("ab") as file:
                file.write(msgspec.json.encode(result) + b"\n")
    print(table(done))
    print(f"seeds {seeds.start}..{seeds.stop} in {time.monotonic() - began_s:.0f} s with {jobs} jobs")
    failed = sum(bool(result.problem) for result in done)
    if report is not None:
        hostile = sum(int(result.facts.get("hostile steps", 0)) for result in done)
        cpu_s = round(sum(result.cpu_s for result in done))
        which = f"{seeds.start}..{seeds.stop}"
        kind = "soak" if composition == 1 else f"soak {composition}"
        append(Entry(today(), commit(), kind, which, len(done), 0, hostile, failed, cpu_s), report)
    return failed


def replay(seed: int, composition: int = COMPOSITION) -> int:
    """Print what every node of one seed reports, then hold it to the promises."""
    stage = compose(seed, composition)
    print(described(stage), stage.run, sep="\n")

    def show() -> None:
        for peer in stage.roles:
            print("attacked", peer, stage.adversary(peer).attacked)
        if isinstance(stage.simulation, Hooked):
            print("moves", dict(stage.simulation.moves))

    try:
        for found in stage.simulation.run():
            if not isinstance(found.output, Dropped | PhaseEntered):
                print(f"{found.time_s:9.3f} {found.node} {str(found.output)[:240]}")
    finally:
        show()
    hold(seed, composition)
    print("all promises hold")
    return 0


def seeds_of(text: str) -> range:
    """`A..B`: the seeds from A up to, without, B."""
    first, _, last = text.partition("..")
    return range(int(first), int(last))


def main(arguments: list[str]) -> int:
    """The command line; exit status 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=seeds_of)
    what.add_argument("--replay", type=int)
    what.add_argument("--sum", type=Path, help="print the sums of a file that --record wrote")
    parser.add_argument("--composition", type=int, choices=range(1, COMPOSITION + 1), default=COMPOSITION,
                        help="how a seed becomes a run; older ones stay for known seeds")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--record", type=Path, help="append each result to this file, one JSON object a line")
    parser.add_argument("--report", action="store_true", help="add a line about all seeds to docs/reports/soak.csv")
    given = parser.parse_args(arguments)
    pin("cpu")
    if given.replay is not None:
        return replay(given.replay, given.composition)
    if given.sum is not None:
        decode = functools.partial(msgspec.json.decode, type=Played)
        known = [decode(line) for line in given.sum.read_bytes().splitlines()]
        print(table(known))
        return int(any(result.problem for result in known))
    report = FILE if given.report else None
    return int(soak(given.seeds, given.jobs, given.record, report, given.composition) > 0)


if __name__ == "__main__":
    swift()  # here and not in `main`, whose callers would keep it
    sys.exit(main(sys.argv[1:]))
