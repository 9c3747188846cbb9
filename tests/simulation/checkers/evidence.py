"""Every ban's evidence convinces a third party that knows only the genesis and the public data, and the final
certificate covers the final parameters."""

from __future__ import annotations

from node.protocol.notices import Banned, Committed, Finished, Returned
from node.protocol.proof import Verifier
from node.protocol.state import Ban
from node.simulator import Observed
from tests.simulation.stage import Stage


class EvidenceHolds:
    """Verifies what every honest peer writes down; what is the same in all bits is verified once."""

    def __init__(self, stage: Stage) -> None:
        self._honest = stage.honest
        self._ground = stage.ground()
        self._proven: dict[tuple[int, int], dict[int, Ban]] = {}
        """By step and attempt: the bans that took effect together, in roster order."""
        self._returns: dict[tuple[int, int], bytes] = {}
        self._known: set[bytes] = set()
        self._certificates: dict[int, bytes] = {}
        self._checked: set[tuple[int, bytes]] = set()

    def see(self, seen: Observed) -> None:
        if seen.node not in self._honest:
            return
        match seen.output:
            case Banned() as ban if ban.evidence not in self._known:
                self._known.add(ban.evidence)
                proof = self._verifier(before=(ban.step, ban.attempt)).check(ban.evidence)
                named = (ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed)
                assert proof.ban == Ban(*named), f"the evidence proves {proof.ban}"
                self._proven.setdefault((ban.step, ban.attempt), {})[ban.peer] = proof.ban
            case Returned() as back:
                self._verifier(before=(back.step, back.attempt + 1)).readmit(back.evidence)
                self._returns.setdefault((back.step, back.attempt), back.evidence)
            case Committed() as done:
                self._certificates[seen.node] = done.certificate
            case Finished(step=step, parameters_D=parameters_D):
                # Which OUTCOMEs certify the last step may differ from peer to peer.
                certificate = self._certificates[seen.node]
                if (step, certificate) not in self._checked:
                    self._checked.add((step, certificate))
                    self._verifier(before=(step + 1, 0)).check_final(certificate, parameters_D)

    def end(self) -> None:
        pass

    def _verifier(self, before: tuple[int, int]) -> Verifier:
        """A third party that has been shown the bans of earlier attempts."""
        verifier = Verifier(self._ground)
        for when in sorted({*self._proven, *self._returns}):
            if when < before:
                verifier.settle(tuple(self._proven.get(when, {}).values()))
                if when in self._returns:
                    verifier.readmit(self._returns[when])
        return verifier
