"""The figures that the launcher works out itself when a run is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from btard.launcher.monitor.state import RunState
from btard.launcher.run.plan import Plan
from btard.node.config import RunConfig

MODEL = "model.pt"

P = ParamSpec("P")
T = TypeVar("T")


class Call(Protocol):
    """Calls a function: in a process of its own where what it sets in torch must stay there, or here."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns."""


def here(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in this process: for tasks that no other knows."""
    return function(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Final:
    """Test accuracy of the agreed final parameters, and the saved model, relative to the run directory.

    `problem` says in one line why there are none.
    """

    test_accuracy: float | None = None
    model: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The file of a run's final parameters, and their digest; where there is none, `problem` says in one line why, if
    nodes finished."""

    file: Path | None = None
    digest: str | None = None
    problem: str | None = None


def final_figures(plan: Plan, run_dir: Path, state: RunState, call: Call | None = None) -> Final:
    """Evaluate the final parameters on the whole test set, and save the model.

    Args:
        plan, run_dir, state: of the run.
        call: where to compute; None: in a process aside.

    Raises:
        BtardError: the parameters or the test data cannot be read, or the model cannot be written.
    """
    from btard.launcher.backends.local import call_aside
    from btard.node.verify import audit

    if call is None:
        call = call_aside
    imports = [Path(path) for path in plan.experiment.imports]
    ended = end(plan.run, run_dir, plan.data_directory, state, imports, call)
    if ended.file is None:
        return Final(problem=ended.problem)
    accuracy = call(audit.evaluate_final, plan.run, plan.data_directory, ended.file, imports, ended.digest)
    call(audit.save_model, plan.run, plan.data_directory, ended.file, run_dir / MODEL, imports, ended.digest)
    return Final(accuracy, MODEL)


def end(
    run: RunConfig, run_dir: Path, data_directory: Path, state: RunState, imports: list[Path], call: Call = here
) -> End:
    """The final parameters that most of the nodes still in hold, each with a certificate of the last step; no node's
    word counts for it. A comparison run certifies nothing: there they are those most honest nodes ended with.

    Raises:
        BtardError: the task or its data is not here.
    """
    if run.topology == "butterfly":
        digests, needed = _certified(run_dir, data_directory, state, imports, call), majority(state)
    else:
        digests, needed = {node: state.nodes[node].parameter_digest for node in _finished(state)}, 1
    if not digests:
        return End()
    node, digest, held = agreed(digests, state)
    if node is None or held < needed:
        return End(
            problem=f"no model: certified final parameters that agree are needed of {needed} of the "
            f"{len(state.nodes)} nodes, and {held} have them; see `btard-launch verify`"
        )
    return End(run_dir / "nodes" / str(node) / "parameters.f32", digest)


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


def _certified(
    run_dir: Path, data_directory: Path, state: RunState, imports: list[Path], call: Call
) -> dict[int, str | None]:
    """The certified final parameters of every node that finished and is still in."""
    ended = [each.node for each in state.nodes.values() if each.finished and each.out is None]
    if not ended:
        return {}
    from btard.node.protocol.state.state import Ban
    from btard.node.verify.final_parameters import certified

    bans = [Ban(ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed)
            for ban in sorted(state.bans.values(), key=lambda ban: (ban.step, ban.attempt, ban.peer))]  # fmt: skip
    returned = sorted((back.step + 1, back.peer) for back in state.returned.values())
    back = [(peer, step) for step, peer in returned]
    return call(certified, run_dir, data_directory, ended, bans, back, imports)
