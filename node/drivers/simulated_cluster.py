"""A whole cluster in one process: the nodes of a run over the simulator, each with its own journal and directory.

Keys, signatures, messages, gradients and rules are the real ones, and for the same seeds so are the results, bit for
bit; only network and clock are modelled. What a journal says of durations is virtual time, its timestamps are real.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from btard.node.baselines import comparison
from btard.node.build import Node, build_node, environment_of, optimiser_of, task_of
from btard.node.config import NodeConfig
from btard.node.crypto import keys
from btard.node.crypto.signing import verify
from btard.node.drivers.scheduler import ScheduledEvent, Scheduler
from btard.node.drivers.simulator import (
    Simulation,
    SimulationControl,
    remembering,
    remembering_bodies,
    remembering_gradients,
)
from btard.node.errors import BtardError
from btard.node.netem import link_observer
from btard.node.netem.conditions import Conditions
from btard.node.netem.links import LinkModel
from btard.node.netem.network import Network
from btard.node.plugins import extensions
from btard.node.protocol.api import Dropped, Expelled, Finished, Halted, Input, Output
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.journal import Journal
from btard.node.storage.recorder import NodeTotals, Recorder
from btard.node.storage.recovery import recover
from btard.node.training.environment import encoded, named_problems, pin
from btard.node.training.task import Task

ATTACKER_GRACE_S = 10.0
"""How long, in virtual time, attackers may go on when all honest nodes have come to their end."""

Ended = Callable[[int, int], None]
"""Told of each node's end: its id and its exit code."""


def main(configs: Sequence[NodeConfig], pipe: Connection | None = None) -> int:
    """Run all nodes to their end.

    Args:
        configs: of every node of the run.
        pipe: to the launcher: ("bound",) and ("ended", node, exit code) go out.

    Returns:
        0 when every node came to its end, 1 after an error, 128 + n when a signal ended it.
    """
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    def tell(*message: object) -> None:
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.send(message)

    try:
        run(configs, lambda node, code: tell("ended", node, code), lambda: tell("bound"), lambda: bool(stopped))
    except BtardError as error:
        if extensions.failed(error):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return extensions.FAILED if extensions.failed(error) else 1
    except Exception as error:
        traceback.print_exc()
        return extensions.FAILED if extensions.failed(error) else 1
    return 128 + stopped[0] if stopped else 0


def run(
    configs: Sequence[NodeConfig],
    ended: Ended,
    bound: Callable[[], None] = lambda: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Simulate a cluster and journal it as its workers would.

    Args:
        configs: of every node of the run.
        ended: told of each node's end.
        bound: called once everything is ready.
        stopping: asked now and then; true ends the simulation early.

    Raises:
        BtardError: an option that cannot be run, missing data, or a full disk.
    """
    with contextlib.ExitStack() as open_files:
        journals = {
            config.node: open_files.enter_context(Journal(Path(config.directory) / "journal.jsonl", config.node))
            for config in configs
        }
        try:
            carry = _simulate if configs[0].run.topology == "butterfly" else comparison.train
            with named_problems(configs[0].run.device):
                carry(configs, journals, ended, bound, stopping)
        except Exception as error:
            text = extensions.told(error)
            for journal in journals.values():
                with contextlib.suppress(BtardError):  # the journal may be what failed
                    journal.append("failed", error=text)
            raise


class _NodeFactory:
    """Makes the nodes of a run, as their workers would: from where they were, those that are made again.

    Args:
        configs, journals: by node.
        task: shared by all.
        fingerprint: of the environment in which all compute.
    """

    def __init__(
        self, configs: Mapping[int, NodeConfig], journals: Mapping[int, Journal], task: Task, fingerprint: bytes
    ) -> None:
        self._configs, self._journals, self._task, self._fingerprint = configs, journals, task, fingerprint
        self._check, self._decode = remembering(verify), remembering_bodies()
        self.compute = remembering_gradients(task)
        self._keepers: dict[int, Checkpointer] = {}

    def make(self, node: int) -> tuple[Node, Sequence[Input]]:
        """A node, and what it had heard before."""
        if node in self._keepers:
            self._keepers.pop(node).close()
        config = self._configs[node]
        update = optimiser_of(config.run, self._task.dimension, self._task.layout)
        recovery = recover(config, self._fingerprint, self._journals[node], update)
        checkpointer = recovery.checkpointer if recovery is not None else None
        secrets = keys.load(Path(config.secrets_file))
        made = build_node(
            config, secrets, self._task, self._fingerprint, self._check, self.compute, checkpointer, self._decode
        )
        if recovery is None:
            return made, ()
        self._keepers[node] = recovery.checkpointer
        if recovery.at is not None:
            made.restore(recovery.at)
        return made, recovery.heard

    def close(self) -> None:
        """Nothing is made any more."""
        for checkpointer in self._keepers.values():
            checkpointer.close()


def _simulate(
    configs: Sequence[NodeConfig],
    journals: dict[int, Journal],
    ended: Ended,
    bound: Callable[[], None],
    stopping: Callable[[], bool],
) -> None:
    common = configs[0]
    pin(common.run.device, common.cuda_memory_fraction)
    extensions.load([Path(path) for path in common.imports])
    task = task_of(common.run, Path(common.data_directory))
    facts = environment_of(common.run, task)
    workshop = _NodeFactory({config.node: config for config in configs}, journals, task, encoded(facts))
    nodes = {config.node: workshop.make(config.node)[0] for config in configs}
    network = Network(LinkModel(seed=common.run.data_seed), common.conditions)
    stage = _stage(common.conditions, journals, workshop.make)
    simulation = Simulation(nodes, network, workshop.compute, stage=stage)
    desks = {node: NodeTotals(simulation.counters[node]) for node in nodes}
    recorders = {
        config.node: Recorder(config, journals[config.node], task, desks[config.node], lambda: simulation.now_s)
        for config in configs
    }
    for node, recorder in recorders.items():
        recorder.attach(desks[node])
        journals[node].append("bound", control="simulated", bulk="simulated")
        journals[node].append("environment", facts=facts)
        journals[node].append("greeted", peers=sorted(nodes))
    bound()
    honest, patience_s = [config.node for config in configs if config.role is None], float("inf")
    for seen in simulation.run():
        totals = desks[seen.node]
        done = simulation.gradients[seen.node]
        totals.gradient_s, totals.gradient_cpu_s, totals.loss = done.seconds, done.cpu_s, done.loss
        if isinstance(seen.output, Dropped):
            totals.dropped[seen.output.reason] += 1
            continue
        recorders[seen.node].observe(seen.output)
        if isinstance(seen.output, Finished | Expelled | Halted):
            _end(simulation, recorders, seen.node)
            ended(seen.node, _exit_code(seen.output))
            if all(not simulation.running(node) for node in honest):
                patience_s = min(patience_s, simulation.now_s + ATTACKER_GRACE_S)
        if stopping() or simulation.now_s > patience_s:
            break
    for node in nodes:
        if simulation.running(node):
            _end(simulation, recorders, node)
    if common.conditions is not None:
        for (sender, receiver), tally in sorted(network.tallies.items()):
            link = network.link(sender, receiver, simulation.now_s, simulation.step(sender))
            link_observer.report(journals[sender], receiver, link, tally, None)
    workshop.close()


def _stage(
    conditions: Conditions | None, journals: dict[int, Journal], revive: Callable[[int], tuple[Node, Sequence[Input]]]
) -> SimulationControl | None:
    """The events of the run's scenario; who is hit by one journals it, the first node what concerns the links."""
    if conditions is None:
        return None

    def played(now_s: float, cue: ScheduledEvent) -> None:
        at = cue.peers[0] if cue.peers else min(journals)
        journals[at].append("scenario", action=cue.action, peers=list(cue.peers), text=cue.text, at_s=round(now_s, 6))

    return SimulationControl(Scheduler(conditions), played, revive)


def _end(simulation: Simulation, recorders: dict[int, Recorder], node: int) -> None:
    adversary = simulation.nodes[node].adversary
    simulation.stop(node)
    if adversary is not None:
        recorders[node].attacked(adversary.attacked)
    recorders[node].end()


def _exit_code(ending: Output) -> int:
    return 1 if isinstance(ending, Halted) else 0
