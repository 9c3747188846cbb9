"""Every ban's evidence convinces a third party that knows only the genesis and the public data, and the final
certificate covers the final parameters."""

from __future__ import annotations

from node.protocol.events import Banned, Committed, Finished, Voided
from node.protocol.proof import Verifier
from node.protocol.state import Ban
from node.simulator import Observed
from tests.simulation.stage import Stage


class EvidenceHolds:
    """Verifies what the witness writes down (agreement says that the others write the same bytes)."""

    def __init__(self, stage: Stage) -> None:
        self._witness = stage.witness
        self._verifier = Verifier(stage.ground())
        self._together: list[Ban] = []
        self._certificate = b""

    def see(self, seen: Observed) -> None:
        if seen.node != self._witness:
            return
        match seen.output:
            case Banned() as ban:
                proof = self._verifier.check(ban.evidence)
                named = (ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed)
                assert proof.ban == Ban(*named), f"the evidence proves {proof.ban}"
                self._together.append(proof.ban)
            case Voided() | Committed():
                self._verifier.settle(self._together)
                self._together = []
                if isinstance(seen.output, Committed):
                    self._certificate = seen.output.certificate
            case Finished() as finished:
                self._verifier.check_final(self._certificate, finished.parameters_D)

    def end(self) -> None:
        pass
