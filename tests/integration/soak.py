"""Six real processes under random kills, restarts on damaged disks, pauses, partitions, bad links and attacks.

python -m tests.integration.soak --minutes 30 [--seed 0]     (make soak-sockets MINUTES=30)

The time is cut into episodes, each a cluster of its own with a scenario drawn from its seed. After each one the
promises are held against the run directory: no split, no honest peer removed, everyone at the end, all evidence valid.
The memory of workers that lived through the second half of an episode is compared between its begin and its end,
without huge pages: with them memory comes in pieces of 2 MB, where a worker holds some 22 MB alone.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from unittest import mock

import psutil

from btard import Experiment
from btard.launcher.backends.local import LocalBackend
from btard.launcher.monitor.state import Record
from btard.launcher.run import cluster
from btard.launcher.run.cluster import Result
from btard.launcher.run.observer import Silent
from btard.node.storage import journal
from btard.node.storage.recovery import MEMORY
from btard.node.storage.wal import ATTEMPT, HEARD, SECTOR, WriteAheadLog
from btard.node.verify.audit import check_run
from tests.ledgers import files, records, spoil

PEERS, DELIVERY_S = 6, 2.0
ATTACKS = (
    "noise", "sign_flip", "shift_aggregate", "equivocate", "wrong_part", "withhold_part",
    "withhold_aggregate", "lie_checksum", "false_accuse", "complain", "silent_validator", "malformed", "replay",
    "stall",
)  # fmt: skip
_THP_DISABLE = 41
"""PR_SET_THP_DISABLE, from linux/prctl.h."""
MOST_GROWTH = 0.05
"""Of a worker's memory from the middle of an episode to its end."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One cluster's fate: what happens to it, who attacks, and who is killed for good."""

    seed: int
    steps: int
    scenario: str
    attack: str | None
    byzantine: int
    killed: int | None


def compose(seed: int, steps: int, seconds: float) -> Episode:
    """An episode from its seed: at most two faulty peers of six, and absences shorter than every deadline.

    Args:
        seconds: how long it is likely to take.
    """
    draw = random.Random(seed)
    byzantine = draw.choice((0, 1, 2))
    attack = draw.choice(ATTACKS) if byzantine else None
    honest = range(PEERS - byzantine)
    killed = draw.choice(honest) if byzantine < 2 and draw.random() < 0.5 else None
    stay = [peer for peer in honest if peer != killed]
    lines = [line for _ in range(max(3, int(seconds / 4))) for line in _happening(draw, stay, steps, seconds)]
    if killed is not None:
        lines.append(f"at step {draw.randrange(steps // 2, steps - 5)} kill {killed}")
    return Episode(seed, steps, "\n".join(lines) + "\n", attack, byzantine, killed)


def _happening(draw: random.Random, stay: Sequence[int], steps: int, seconds: float) -> tuple[str, ...]:
    """One thing that happens to honest peers, in the language of scenarios."""
    peer, other = draw.sample(stay, k=2)
    first, at_s = draw.randrange(5, steps - 10), draw.uniform(0.5, seconds)
    last, rest = first + draw.randint(1, 6), ",".join(str(each) for each in range(PEERS) if each != peer)
    match draw.choice(("restart", "pause", "partition", "delay", "loss", "bandwidth")):
        case "restart":
            return f"at step {first} kill {peer}", f"at step {first} restart {peer}"
        case "pause":
            return (f"at {at_s:.2f}s pause {peer} for {draw.uniform(0.1, 1.0):.2f}s",)
        case "partition":
            return (f"from {at_s:.2f}s to {at_s + draw.uniform(0.1, 1.0):.2f}s partition {peer} | {rest}",)
        case "delay":
            return (f"from step {first} to step {last} delay {peer}->{other} 80ms jitter 40ms",)
        case "loss":
            return (f"from step {first} to step {last} loss {peer}<->{other} 10%",)
        case _:
            return (f"from step {first} to step {last} bandwidth {peer}->{other} 1mbit",)


@dataclass(slots=True)
class Memory(Silent):
    """Watches how much memory each worker holds, at most once a second; told of the run's progress.

    Meant for processes without huge pages, `no_huge_pages`.
    """

    samples: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By process: (step, bytes that it alone holds)."""
    _step: int = 0
    _next_s: float = 0.0

    def saw(self, records: Sequence[Record]) -> None:
        """Look at the workers."""
        self._step = max([self._step, *(record["step"] for record in records if record["event"] == "committed")])
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + 1.0
        for process in psutil.Process().children(recursive=True):
            try:
                self.samples.setdefault(process.pid, []).append((self._step, process.memory_full_info().uss))
            except psutil.Error:
                continue  # it has ended meanwhile

    def growth(self, steps: int) -> list[float]:
        """Shares by which the workers grew that were there from before the middle to the end."""
        found = []
        for samples in self.samples.values():
            middle = [used for step, used in samples if 0.5 * steps <= step < 0.65 * steps]
            last = [used for step, used in samples if step >= 0.85 * steps]
            if middle and last and samples[0][0] < 0.4 * steps:
                found.append(statistics.median(last) / statistics.median(middle) - 1.0)
        return found


class LosesPower(LocalBackend):
    """Whoever is started again finds on its disk what a loss of power may leave there.

    Args:
        seed: of what that is.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = random.Random(seed)
        self.found: Counter[str] = Counter()

    def act(self, action: str, node: int) -> None:
        """As any backend; the disk is damaged between a worker's end and its next start."""
        if action == "restart":
            super().act("kill", node)
            if node in self._processes:
                self._processes[node].join()
            self.found[damage(Path(self._configs[node].directory) / MEMORY, self._draw)] += 1
        super().act(action, node)


def damage(memory: Path, draw: random.Random) -> str:
    """What was not synced is lost in part, or a bit is; says what was done.

    The batch that the ledger was being given loses sectors, a new file of it has no beginning yet, or the newest
    checkpoint has another bit than was written: with the one before it a node goes on all the same.
    """
    there, checkpoints = files(memory), records(memory, ATTEMPT)
    match draw.choice(("a torn batch", "a file that is not begun", "a flipped bit", "nothing")):
        case "a torn batch" as what if there:
            before = there[-1].read_bytes()
            ledger = WriteAheadLog(there[-1])
            ledger.append(HEARD, 0, draw.randbytes(draw.randrange(2 * SECTOR, 9 * SECTOR)))
            ledger.write()
            ledger.close()
            whole = bytearray(there[-1].read_bytes())
            batch = len(whole) - len(before)
            lost = len(before) + draw.randrange(batch // SECTOR) * SECTOR
            whole[lost : lost + SECTOR] = bytes(SECTOR)
            there[-1].write_bytes(whole[: draw.randrange(lost + SECTOR, len(whole) + 1)])
        case "a file that is not begun" as what if there:
            opening = there[-1].read_bytes()[:SECTOR]
            path = there[-1].with_stem(f"{int(there[-1].stem) + 1:08d}")
            path.write_bytes(draw.choice((opening, bytes(SECTOR)))[: draw.randrange(SECTOR)])
        case "a flipped bit" as what if checkpoints:
            spoil(checkpoints[-1], draw.randrange(checkpoints[-1].attached.size))
        case _:
            what = "an undamaged disk"
    return what


def no_huge_pages() -> None:
    """This process and those that it starts get small pages only, whatever they ask for (prctl(2), Linux).

    Workers ask for huge pages for speed. With them the first touch of a byte can add 2 MB to what a worker holds alone,
    a tenth of it: small leaks would hide in that, and what is none would look like one.

    Raises:
        OSError: the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_THP_DISABLE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot switch huge pages off")


def play(episode: Episode, where: Path) -> tuple[Result, list[float], Counter[str]]:
    """Run an episode and hold it to the promises; returns its result, the workers' growth and what disks were like.

    Raises:
        AssertionError: a promise is broken.
    """
    where.mkdir(parents=True)
    scenario = where / "episode.scn"
    scenario.write_text(episode.scenario, encoding="utf-8")
    memory = Memory()
    experiment = Experiment(
        peers=PEERS, byzantine=episode.byzantine, attack=episode.attack, attack_start=episode.steps // 5,
        attack_probability=0.2, task="quadratic:dimension=2000", batch_size=4, steps=episode.steps, eval_every=1000,
        seed=episode.seed, protocol_seed=episode.seed, delivery_bound=DELIVERY_S, gradient_bound=2.0,
        scenario=str(scenario), run_dir=str(where / "run"),
    )  # fmt: skip
    backend = LosesPower(episode.seed)
    with mock.patch.object(cluster, "build", lambda name, note: backend):
        result = cluster.run(experiment, memory)
    hold(episode, result)
    return result, memory.growth(episode.steps), backend.found


def hold(episode: Episode, result: Result) -> None:
    """The promises, from the run directory alone.

    Raises:
        AssertionError: one is broken.
    """
    summary = result.summary
    assert summary.outcome == "finished", f"{summary.outcome}: {summary.problem}"
    assert summary.agreement, "honest peers disagree"
    lost = {row.peer for row in (*summary.bans, *summary.gone) if row.peer not in summary.byzantine}
    assert lost <= {episode.killed}, f"honest peers {sorted(lost)} were removed"
    assert len(summary.honest_eliminated_peers) <= len(summary.eliminated) // 2
    digests: dict[int, set[str]] = {}
    for peer in set(range(PEERS)) - set(summary.byzantine):
        for record in journal.read(result.run_dir / "nodes" / str(peer) / "journal.jsonl")[0]:
            if record["event"] == "committed":
                digests.setdefault(record["step"], set()).add(record["state_digest"])
    assert set(digests) == set(range(episode.steps + 1)), "a step is missing"
    assert all(len(found) == 1 for found in digests.values()), "a split"
    wrong = [finding for finding in check_run(result.run_dir) if not finding.ok]
    assert not wrong, wrong


def soak(minutes: float, seed: int) -> int:
    """Play episodes until the time is over; returns how many broke a promise or leaked."""
    end_s, bad, number, steps, seconds = time.monotonic() + 60 * minutes, 0, seed, 150, 15.0
    while time.monotonic() < end_s:
        episode, began_s = compose(number, steps, seconds), time.monotonic()
        scratch = Path(mkdtemp(prefix="btard-soak-"))
        problem, growth, what = "", list[float](), ""
        try:
            result, growth, disks = play(episode, scratch / "episode")
            what = _told(result, disks)
        except AssertionError as error:
            problem = f"{error} (kept in {scratch})"
        if not problem:
            shutil.rmtree(scratch)
        took_s, worst = time.monotonic() - began_s, max(growth, default=0.0)
        leaks = number > seed and worst > MOST_GROWTH  # the first one is short: it shows how fast this machine is
        bad += bool(problem) or leaks
        verdict = f"BROKEN: {problem}\n{episode}" if problem else "LEAKS" if leaks else "holds"
        print(f"episode {number}: {steps} steps in {took_s:.0f} s, {episode.attack or 'no attack'} by "
              f"{episode.byzantine}; {what}; memory {worst:+.1%} at most of {len(growth)} workers; {verdict}",
              flush=True)  # fmt: skip
        seconds = min(max(0.0, end_s - time.monotonic()), max(30.0, 10.0 * minutes))
        steps = max(150, int(steps / took_s * seconds))
        number += 1
    print(f"{number - seed} episodes, {bad} bad")
    return bad


def _told(result: Result, disks: Counter[str]) -> str:
    summary = result.summary
    events = disks + Counter(event.action for event in summary.scenario)
    removed = [*(f"{row.peer} {row.reason}" for row in summary.bans), *(f"{row.peer} gone" for row in summary.gone)]
    return f"{', '.join(f'{count} {name}' for name, count in sorted(events.items()))}; removed: {', '.join(removed)}"


def main(arguments: list[str]) -> int:
    """The command line; exit status 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    no_huge_pages()
    return int(soak(given.minutes, given.seed) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
