"""`python -m docs.scale`: the table of docs/scale.md, the cost model of a step against the simulator.

Real peers, messages, signatures and rule over links of one delay and rate, in virtual time: computing costs none, but
for the gradient, whose time is given.

    python -m docs.scale                                     # the table
    python -m docs.scale --of -n 64 --task quadratic ...     # memory and file descriptors of a run's worker processes
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from btard.node.config import Plugin, RunConfig
from btard.node.drivers.simulator import cluster
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import PhaseEntered
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext

DELAYS = 8
"""In a row, in an undisputed step: six messages, the parts between COMMIT and AGG, the aggregates between AGG and
REVEAL."""
FIXED_BYTES, BYTES_PER_PEER = 1_600, 54
"""Of the six messages from one peer to another: headers, signatures and prefixes; and for each peer of the roster a
digest (34), two checksums (18), a bit of REVEAL and one of REPORT."""
FLOAT_BYTES = 4
GRADIENT_S = 0.05
UPLINK_BYTES_PER_S = 12.5e6
STEPS = 3

CASES = ((6, 1_000_000), (16, 1_000_000), (64, 1_000_000), (6, 10_000_000), (16, 10_000_000))
"""(peers, floats) that the table has; each fits into 12 GB."""
ONE_WAY_S = (0.05, 0.1)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step takes.

    Args:
        seconds: from one COMMIT's phase to the next.
        peer_bytes: that a contributor sends.
    """

    seconds: float
    peer_bytes: float


def model(peers: int, size: int, one_way_s: float) -> Cost:
    """An undisputed step by docs/scale.md: delays, the gradient, and what a peer sends through its uplink.

    Args:
        peers: n, all of them active.
        size: d, floats of the gradient.
        one_way_s: delay of every link.
    """
    each = 2 * FLOAT_BYTES * size / peers + FIXED_BYTES + BYTES_PER_PEER * peers
    peer_bytes = (peers - 1) * each
    return Cost(DELAYS * one_way_s + GRADIENT_S + peer_bytes / UPLINK_BYTES_PER_S, peer_bytes)


def simulated(peers: int, size: int, one_way_s: float) -> Cost:
    """The second step of a run without attackers, where one peer validates; the arguments are those of `model`. An
    uplink is shared out evenly among its links, for a peer speaks to all at once."""
    run = RunConfig(peers=peers, task=Plugin("quadratic", {"dimension": size}), steps=STEPS, batch_size=1)
    links = LinkModel(delay_s=one_way_s, bandwidth_bytes_per_s=UPLINK_BYTES_PER_S / (peers - 1))
    simulation = cluster(run, build_task(run.task, TaskContext(Path("unused"), run.batch_size)), links=links)
    entered_s: dict[tuple[int, int], float] = {}
    sent: dict[tuple[int, int], int] = {}
    for seen in simulation.run():
        if isinstance(seen.output, PhaseEntered) and (place := (seen.node, seen.output.step)) not in entered_s:
            traffic = simulation.traffic[seen.node]
            entered_s[place], sent[place] = seen.time_s, traffic.control_bytes + traffic.bulk_bytes
            if len(entered_s) == STEPS * peers:
                break
    return Cost(
        max(entered_s[node, 2] - entered_s[node, 1] for node in range(peers)),
        max(sent[node, 2] - sent[node, 1] for node in range(peers)),
    )


def table() -> Iterator[str]:
    """The table's lines, one for each case and delay."""
    yield "| peers | floats | one way | MB a peer: model | simulator | seconds: model | simulator |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for peers, size in CASES:
        for one_way_s in ONE_WAY_S:
            said, found = model(peers, size, one_way_s), simulated(peers, size, one_way_s)
            yield (
                f"| {peers} | {size // 1_000_000}e6 | {1000 * one_way_s:.0f} ms | {said.peer_bytes / 1e6:.3f} | "
                f"{found.peer_bytes / 1e6:.3f} | {said.seconds:.3f} | {found.seconds:.3f} |"
            )


# --- processes ------------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """What one process holds: its share of the memory that it has with others (PSS), what is its own alone, in bytes,
    and open file descriptors."""

    shared_bytes: int
    own_bytes: int
    descriptors: int


def held(arguments: list[str]) -> Iterator[str]:
    """Runs `btard-launch` and says what its workers held at most: the median over them of the fullest moment."""
    launcher = subprocess.Popen([sys.executable, "-m", "btard.launcher", *arguments], stdout=sys.stderr)
    most: dict[int, Held] = {}
    while launcher.poll() is None:
        for process in workers(launcher.pid):
            if (found := looked_at(process)) is not None:
                most[process] = Held(*map(max, most.get(process, found), found))
        time.sleep(0.5)  # memory tells nobody when it grows
    if launcher.returncode:
        raise SystemExit(launcher.returncode)
    shared, own, descriptors = (median(values) for values in zip(*most.values(), strict=True))
    yield f"{len(most)} processes: PSS {shared / 1e6:.0f} MB, own {own / 1e6:.0f} MB, {descriptors:.0f} descriptors"


def workers(launcher: int) -> list[int]:
    """Processes that the launcher's fork server has started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (ValueError, OSError):
            continue
    return [process for process, parent in parents.items() if parents.get(parent) == launcher]


def looked_at(process: int) -> Held | None:
    """What a process holds now; None: it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {line.split()[0]: int(line.split()[1]) for line in lines}
        descriptors = len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208
    except OSError:
        return None
    own = kilobytes["Private_Clean:"] + kilobytes["Private_Dirty:"]
    return Held(1024 * kilobytes["Pss:"], 1024 * own, descriptors)


def main() -> None:
    """Print the table, as it stands in the page, or what a run's workers hold."""
    of, arguments = sys.argv[1:2] == ["--of"], sys.argv[2:]
    for line in held(arguments) if of else table():
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
