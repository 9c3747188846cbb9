"""How the nodes of a run ended, and what people are told of those that did not end well."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from btard.launcher.files import last_lines
from btard.launcher.monitor.state import NodeState, RunState
from btard.launcher.run.summary import Failure
from btard.node.plugins import extensions

LOG_LINES = 8
TRACE_LINES = 40


def all_finished(state: RunState) -> bool:
    """True if some honest node finished, and every other one did, was removed, or is away as the scenario wanted."""
    honest = [state.nodes[node] for node in state.honest]
    away = state.killed | state.paused
    return all(node.finished or node.out is not None or node.node in away for node in honest) and any(
        node.finished for node in honest
    )


def first_problem(directory: Path, state: RunState, exits: Mapping[int, int]) -> str:
    """The first honest node that did not finish, in words; arguments as for `failures`."""
    for failure in failures(directory, state, exits):
        if failure.node in state.honest:
            said = failure.problem or (failure.log[-1] if failure.log else "it left no word")
            return f"node {failure.node} {how_it_ended(failure.exit_code)}: {said}"
    return "a node did not finish"


def failures(directory: Path, state: RunState, exits: Mapping[int, int]) -> tuple[Failure, ...]:
    """Nodes that did not end as the protocol lets them: finished, or removed and told so.

    Args:
        directory: the run directory.
        state: what the journals said.
        exits: exit codes of the workers that have ended.
    """
    found = []
    for node in state.nodes.values():
        removed = node.out is not None and exits.get(node.node) == 0
        if node.finished or removed or node.out == "banned" or node.node not in exits:
            continue
        if node.node in state.killed:
            continue
        found.append(Failure(node.node, exits[node.node], node.problem, last_words(directory, node.node)))
    return tuple(found)


def broken_plugin(state: RunState, exits: Mapping[int, int]) -> str | None:
    """The mistake in an attack, rule or task that ended a node, in words; None: there was none.

    An attacker's is not misconduct of its node: the experiment that was asked for does not exist.
    """
    for node, code in sorted(exits.items()):
        if code == extensions.FAILED:
            said = state.nodes[node].problem or "see its log"
            return f"node {node} {how_it_ended(code)}: {said}; repair it, `btard-launch check FILE.py` tries it out"
    return None


def numberless(state: RunState) -> str | None:
    """What to tell people of losses that were no numbers; None: all of them were."""
    if not state.numberless:
        return None
    step, node = min(state.numberless)
    many = f"{len(state.numberless)} honest gradient{'' if len(state.numberless) == 1 else 's'}"
    return (
        f"the loss of {many} was no number, first peer {node}'s in step {step}; "
        "such entries of a gradient count as 0: look for items of the data that are no numbers, or lower --lr"
    )


def last_words(directory: Path, node: int, lines: int = LOG_LINES) -> tuple[str, ...]:
    """The end of a worker's log."""
    return last_lines(directory / "logs" / f"node-{node}.log", lines)


def obituary(node: NodeState, log: Sequence[str]) -> list[str]:
    """What to tell people of a worker that died: one line, and the end of its log."""
    said = f": {node.problem}" if node.problem else ""
    head = f"node {node.node} {how_it_ended(node.exit_code)} at step {node.step + 1}{said}"
    return [head, *(f"  node {node.node} | {line}" for line in log)]


def how_it_ended(exit_code: int | None) -> str:
    """An exit code in words."""
    if exit_code is None:
        return "was stopped"
    if exit_code == extensions.FAILED:
        return "failed in an attack, rule or task of its own"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"
