"""The figures that the launcher works out itself when a run is over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from launcher.plan import Plan
from launcher.state import RunState

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
