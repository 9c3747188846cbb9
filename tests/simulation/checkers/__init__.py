"""The promises of PROTOCOL.md section 1, one checker each, held against every output of every simulated run."""

from __future__ import annotations

from tests.simulation.checkers.accountability import Accountability
from tests.simulation.checkers.accuracy import Accuracy
from tests.simulation.checkers.agreement import Agreement
from tests.simulation.checkers.cost import Cost
from tests.simulation.checkers.equivocation import Equivocations
from tests.simulation.checkers.evidence import EvidenceHolds
from tests.simulation.checkers.liveness import Liveness
from tests.simulation.checkers.undo import Undoing

PROMISES = (Agreement, Accuracy, Accountability, Equivocations, Liveness, Cost, EvidenceHolds, Undoing)

__all__ = [
    "PROMISES",
    "Accountability",
    "Accuracy",
    "Agreement",
    "Cost",
    "Equivocations",
    "EvidenceHolds",
    "Liveness",
    "Undoing",
]
