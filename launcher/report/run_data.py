"""What the page of a run is made of: its directory, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from btard.launcher.monitor.state import Record, RunState
from btard.launcher.monitor.watch import METRICS, NodeJournal
from btard.launcher.run import control, run_directory, summary
from btard.launcher.run.run_directory import RunRecord
from btard.launcher.run.summary import FINISHED, Ending, Summary, summarise
from btard.node.config import Role, RunConfig
from btard.node.errors import ConfigError
from btard.node.genesis.genesis import read_genesis
from btard.node.storage.journal import read


@dataclass(frozen=True, slots=True)
class RunData:
    """A run.

    Args:
        path: its directory.
        run_id: its name.
        run: what all peers agreed on.
        record: run.json; None: peers' own files, which no launcher has made.
        summary: summary.json, or what the peers' journals come to.
        commits: by step, then node.
        events: everything but metrics, in order of time.
        nodes: whose journals it is made of.
    """

    path: Path
    run_id: str
    run: RunConfig
    record: RunRecord | None
    summary: Summary
    commits: Mapping[int, Mapping[int, Record]]
    events: tuple[Record, ...]
    nodes: tuple[int, ...]

    @property
    def roles(self) -> dict[int, Role]:
        """Who attacked, by genesis id, as far as anything here says."""
        return {int(peer): role for peer, role in self.record.roles.items()} if self.record is not None else {}

    @property
    def simulated(self) -> bool:
        """Times are those of a modelled network."""
        return self.record is not None and self.record.experiment.backend == "simulated"

    @property
    def honest(self) -> tuple[int, ...]:
        """Who did not attack."""
        return tuple(peer for peer in range(self.run.peers) if peer not in self.roles)

    def view(self, step: int) -> Record:
        """The record of one node of a step: an honest one where there is one."""
        views = self.commits[step]
        return views[next((node for node in self.honest if node in views), min(views))]


def load(path: Path) -> RunData:
    """Read the directory of a launcher's run.

    Raises:
        ConfigError: it is none, or the run has not ended.
        DataError: a file is damaged.
    """
    record = run_directory.read_record(path)
    found, events = read(path / "metrics.jsonl")[0], read(path / "events.jsonl")[0]
    made, nodes = summary.read(path), tuple(range(record.run.peers))
    return RunData(path, record.run_id, record.run, record, made, _commits(found), tuple(events), nodes)


def load_peers(path: Path) -> RunData:
    """Read a peer's own directory, or several peers' collected files, whether the run goes on or has ended.

    Raises:
        ConfigError: no peer has written anything there.
    """
    genesis = read_genesis(path)
    run = genesis.run
    nodes = tuple(peer for peer in range(run.capacity) if (path / f"nodes/{peer}/journal.jsonl").exists())
    records = [record for node in nodes for record in NodeJournal(path, node, run.capacity, run.steps).look()]
    if not records:
        raise ConfigError(f"{path} has no journal of a peer; `btard-node run {path}` writes one")
    records.sort(key=lambda record: float(record["time"]))
    state = RunState(
        run.peers, frozenset(range(run.peers)) - frozenset(nodes), run.capacity
    )  # of the others nothing is known
    for record in records:
        state.apply(record)
    finished = all(state.nodes[node].finished for node in nodes)
    lasted_s = float(records[-1]["time"]) - float(records[0]["time"])
    made = summarise(genesis.run_id, state, {}, Ending(FINISHED if finished else "not finished here", lasted_s))
    # Of slices of the test set, whose sizes follow the roster, those that are here.
    shares = {step: [sum(each) for each in zip(*views.values(), strict=True)] for step, views in state.slices.items()}
    accuracy = [(step, correct / count) for step, (correct, count) in sorted(shares.items()) if count]
    made = msgspec.structs.replace(made, accuracy=accuracy)
    events = tuple(record for record in records if record["event"] not in METRICS)
    return RunData(path, genesis.run_id, run, None, made, _commits(records), events, nodes)


def load_either(path: Path) -> RunData:
    """Read what `load` or `load_peers` reads; errors as there."""
    return load_peers(path) if control.of_peers(path) else load(path)


def _commits(records: Sequence[Record]) -> dict[int, dict[int, Record]]:
    commits: dict[int, dict[int, Record]] = {}
    for line in records:
        if line["event"] == "committed":
            commits.setdefault(line["step"], {})[line["node"]] = line
    return dict(sorted(commits.items()))
