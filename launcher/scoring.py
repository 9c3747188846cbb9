"""The figures that the launcher works out itself when a run is over."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.plan import Plan
from launcher.state import NodeState, RunState

MODEL = "model.pt"


@dataclass(frozen=True, slots=True)
class Final:
    """Test accuracy of the agreed final parameters, and the saved model, relative to the run directory."""

    test_accuracy: float | None = None
    model: str | None = None


def final_figures(plan: Plan, run_dir: Path, state: RunState) -> Final:
    """Evaluate the final parameters on the whole test set, and save the model.

    The parameters are those most honest nodes ended with; where they disagree, the summary's `agreement` says so.

    Raises:
        BtardError: the parameters or the test data cannot be read, or the model cannot be written.
    """
    file = agreed_parameters(state)
    if file is None:
        return Final()
    from launcher.backends.local import call_aside
    from node import audit

    imports = [Path(path) for path in plan.experiment.imports]
    accuracy = call_aside(audit.evaluate_final, plan.run, plan.data_directory, run_dir / file, imports)
    call_aside(audit.save_model, plan.run, plan.data_directory, run_dir / file, run_dir / MODEL, imports)
    return Final(accuracy, MODEL)


def agreed_parameters(state: RunState) -> str | None:
    """The file with the parameters that most honest nodes finished with (the lowest id's file among them)."""
    ends = [state.nodes[node] for node in state.honest if state.nodes[node].finished]
    if not ends:
        return None
    digest, _ = Counter(node.parameter_digest for node in ends).most_common(1)[0]
    return next(node.parameters_file for node in ends if node.parameter_digest == digest)


def obituary(node: NodeState, log: Sequence[str]) -> list[str]:
    """What to tell people of a worker that died: one line, and the end of its log."""
    said = f": {node.problem}" if node.problem else ""
    head = f"node {node.node} {how_it_ended(node.exit_code)} at step {node.step + 1}{said}"
    return [head, *(f"  node {node.node} | {line}" for line in log)]


def how_it_ended(exit_code: int | None) -> str:
    """An exit code in words."""
    if exit_code is None:
        return "was stopped"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"
