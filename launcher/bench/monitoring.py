"""What monitoring costs, in alternating pairs of runs; `python -m btard.launcher.bench.monitoring`."""

from __future__ import annotations

import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import click

from btard.launcher.monitor.state import Record
from btard.launcher.run.cluster import run
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.observer import Silent
from btard.launcher.run.summary import FINISHED
from btard.node.errors import BackendError
from btard.node.storage import journal

_FIRST_STEP = 2
"""Steps before it warm caches up."""

_SCRAPE_S = 10.0
_PATIENCE_S = 30.0
"""Bounds on delivery and gradients: on a busy machine nobody shall be removed for being slow."""

_PERIOD_S = 3.0
"""Prometheus scrapes every second; these scrapes only tell how long one takes."""


@dataclass(slots=True)
class Scraper(Silent):
    """An observer that scrapes every node now and then, beside Prometheus, and takes the time."""

    scrapes_s: list[float] = field(default_factory=list)
    answer_bytes: int = 0
    _addresses: dict[int, str] = field(default_factory=dict)
    _over: Event = field(default_factory=Event)

    def saw(self, records: Sequence[Record]) -> None:
        """Learn of nodes that have begun to serve."""
        self._addresses |= {each["node"]: each["address"] for each in records if each["event"] == "metrics"}

    def follow(self) -> None:
        """Scrape until `end`."""
        while not self._over.wait(_PERIOD_S):
            for node, address in list(self._addresses.items()):
                begun = time.perf_counter()
                try:
                    with urllib.request.urlopen(f"http://{address}/metrics", timeout=_SCRAPE_S) as answer:
                        self.answer_bytes = len(answer.read())
                except OSError:
                    del self._addresses[node]  # it has ended
                    continue
                self.scrapes_s.append(time.perf_counter() - begun)

    def end(self) -> None:
        """Stop scraping."""
        self._over.set()


def step_cpu_s(run_dir: Path, peers: int) -> tuple[float, float]:
    """Processor seconds of all nodes together for one step, after warming up, and the seconds that it took."""
    total = wall_s = 0.0
    for node in range(peers):
        records, _ = journal.read(run_dir / "nodes" / str(node) / "journal.jsonl")
        used = [each for each in records if each["event"] == "committed" and each["step"] >= _FIRST_STEP]
        first, last = used[0], used[-1]
        total += (last["cpu_seconds"] - first["cpu_seconds"]) / (last["step"] - first["step"])
        wall_s = (last["time"] - first["time"]) / (last["step"] - first["step"])
    return total, wall_s


def once(experiment: Experiment) -> tuple[float, float, Scraper]:
    """One run: processor seconds of a step, how long it took, and its scrapes.

    Raises:
        BackendError: the run failed.
    """
    scraper = Scraper()
    thread = Thread(target=scraper.follow)
    thread.start()
    try:
        made = run(experiment, scraper)
    finally:
        scraper.end()
        thread.join()
    if made.summary.outcome != FINISHED:
        raise BackendError(f"the run in {made.run_dir} {made.summary.outcome}: {made.summary.problem}")
    return *step_cpu_s(made.run_dir, experiment.peers), scraper


@click.command()
@click.option("--pairs", default=9, show_default=True, type=click.IntRange(1), help="runs with, and as many without")
@click.option("--task", default="mnist_cnn", show_default=True, help="what is trained")
@click.option("--steps", default=40, show_default=True, type=click.IntRange(5), help="steps of each run")
@click.option("--peers", default=6, show_default=True, type=click.IntRange(2), help="nodes")
def main(pairs: int, task: str, steps: int, peers: int) -> None:
    """Compare the processor time of a step with and without monitoring."""
    ratios, scrapes_s, off_s, walls_s = [], list[float](), [], []
    size = 0
    for pair in range(pairs):
        used: dict[bool, float] = {}
        for monitor in (bool(pair % 2), not pair % 2):  # who goes first changes, so that a drift favours neither
            with tempfile.TemporaryDirectory() as where:
                experiment = Experiment(task=task, steps=steps, peers=peers, eval_every=steps, device="cpu",
                                        delivery_bound=_PATIENCE_S, gradient_bound=_PATIENCE_S, monitor=monitor,
                                        run_dir=f"{where}/run")  # fmt: skip
                used[monitor], wall_s, scraper = once(experiment)
            walls_s.append(wall_s)
            scrapes_s += scraper.scrapes_s
            size = max(size, scraper.answer_bytes)
        ratios.append(used[True] / used[False])
        off_s.append(used[False])
        click.echo(f"pair {pair + 1}: {1000 * used[False]:.1f} ms without, {1000 * used[True]:.1f} ms with")
    click.echo(f"step CPU of {peers} nodes, without: median {1000 * statistics.median(off_s):.1f} ms; a step took "
               f"{1000 * statistics.median(walls_s):.0f} ms, and every second holds {peers} scrapes")  # fmt: skip
    click.echo(f"with monitoring: median {100 * (statistics.median(ratios) - 1):+.1f} % "
               f"({100 * (min(ratios) - 1):+.1f} to {100 * (max(ratios) - 1):+.1f} %) of {pairs} pairs")  # fmt: skip
    ordered = sorted(scrapes_s)
    click.echo(f"one scrape: median {1000 * statistics.median(ordered):.1f} ms, "
               f"95 % below {1000 * ordered[int(0.95 * (len(ordered) - 1))]:.1f} ms, {size} bytes, "
               f"{len(ordered)} scrapes")  # fmt: skip


if __name__ == "__main__":
    main()
