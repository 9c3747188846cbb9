"""Plays the golden runs: `--check` compares them with the record, `--record` writes it anew."""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Sequence

from btard.launcher.run import data
from btard.node.errors import DataError
from btard.node.training.environment import difference, environment, pin
from tests.golden import record
from tests.golden.runs import MNIST, RUNS
from tests.golden.told import Cells


def cpu_s() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def has_images() -> bool:
    """True where the main job's data set is prepared: a check downloads nothing."""
    try:
        data.check("mnist", data.directory(None))
    except DataError:
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    """The command line; exit status 1 if a run is not as recorded."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true")
    what.add_argument("--record", action="store_true")
    parser.add_argument("--only", nargs="+", choices=RUNS, metavar="RUN", help="with --check: these runs alone")
    given = parser.parse_args(arguments)
    pin("cpu")
    names = [name for name in given.only or RUNS if name not in MNIST or has_images()]
    for name in given.only or RUNS:
        if name not in names:
            print(f"!!! NOT PLAYED: {name}: no images here; `btard-launch data mnist` fetches them")
    if given.record:
        if len(names) < len(RUNS):
            print("error: a record needs every run", file=sys.stderr)
            return 2
        record.save({name: RUNS[name]() for name in names})
        print(f"{len(names)} runs in {record.FILE.stat().st_size} bytes, {cpu_s():.0f} CPU s")
        return 0
    return check(names)


def check(names: Sequence[str]) -> int:
    """Play runs and print what differs."""
    golden, wrong, open_ = record.load(), 0, list[str]()
    for name in names:
        cells: Cells = RUNS[name]()
        found = record.first(golden, name, cells)
        if found is not None and not record.here(golden):
            open_.append(name)
            found = record.portable(golden, name, cells)
        if found is not None:
            wrong += 1
            print(found, flush=True)
    if open_:
        print(f"!!! BITS NOT CHECKED in {len(open_)} runs: {difference(environment('cpu'), golden.environment)}")
    print(f"{len(names)} runs, {wrong} with a difference, {cpu_s():.0f} CPU s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
