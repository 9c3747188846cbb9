"""The figures that the launcher works out itself when a run is over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from btard.launcher.monitor.state import RunState
from btard.launcher.run.plan import Plan

MODEL = "model.pt"


@dataclass(frozen=True, slots=True)
class Final:
    """Test accuracy of the agreed final parameters, and the saved model, relative to the run directory.

    `problem` says in one line why there are none.
    """

    test_accuracy: float | None = None
    model: str | None = None
    problem: str | None = None


def final_figures(plan: Plan, run_dir: Path, state: RunState) -> Final:
    """Evaluate the final parameters on the whole test set, and save the model.

    They are those that most of the nodes still in hold, each with a certificate of the last step; no node's word counts
    for it. A comparison run certifies nothing: there they are those most honest nodes ended with.

    Raises:
        BtardError: the parameters or the test data cannot be read, or the model cannot be written.
    """
    imports = [Path(path) for path in plan.experiment.imports]
    if plan.run.topology == "butterfly":
        digests, needed = _certified(plan, run_dir, state, imports), majority(state)
    else:
        digests, needed = {node: state.nodes[node].parameter_digest for node in _finished(state)}, 1
    if not digests:
        return Final()
    node, digest, held = agreed(digests, state)
    if node is None or held < needed:
        return Final(problem=f"no model: certified final parameters that agree are needed of {needed} of the "
                             f"{len(state.nodes)} nodes, and {held} have them; see `btard-launch verify`")  # fmt: skip
    from btard.launcher.backends.local import call_aside
    from btard.node.verify import audit

    file = run_dir / "nodes" / str(node) / "parameters.f32"
    accuracy = call_aside(audit.evaluate_final, plan.run, plan.data_directory, file, imports, digest)
    call_aside(audit.save_model, plan.run, plan.data_directory, file, run_dir / MODEL, imports, digest)
    return Final(accuracy, MODEL)


def majority(state: RunState) -> int:
    """More than half of the nodes that have not been removed."""
    return sum(node.out is None for node in state.nodes.values()) // 2 + 1


def agreed(digests: dict[int, str | None], state: RunState) -> tuple[int | None, str | None, int]:
    """The parameters that most nodes hold.

    Args:
        digests: of each node's; None: not certified.
        state: the run's.

    Returns:
        The node to take them from, an honest one where there is one; their digest; how many nodes hold them.
    """
    known = {node: digest for node, digest in sorted(digests.items()) if digest is not None}
    if not known:
        return None, None, 0
    digest, held = Counter(known.values()).most_common(1)[0]
    holders = [node for node in known if known[node] == digest]
    return min(holders, key=lambda node: (node in state.byzantine, node)), digest, held


def _finished(state: RunState) -> list[int]:
    """Honest nodes that finished."""
    return [node for node in state.honest if state.nodes[node].finished]


def _certified(plan: Plan, run_dir: Path, state: RunState, imports: list[Path]) -> dict[int, str | None]:
    """The certified final parameters of every node that finished and is still in."""
    ended = [each.node for each in state.nodes.values() if each.finished and each.out is None]
    if not ended:
        return {}
    from btard.launcher.backends.local import call_aside
    from btard.node.protocol.state.state import Ban
    from btard.node.verify.final_parameters import certified

    bans = [Ban(ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed)
            for ban in sorted(state.bans.values(), key=lambda ban: (ban.step, ban.attempt, ban.peer))]  # fmt: skip
    returned = sorted((back.step + 1, back.peer) for back in state.returned.values())
    back = [(peer, step) for step, peer in returned]
    return call_aside(certified, run_dir, plan.data_directory, ended, bans, back, imports)
