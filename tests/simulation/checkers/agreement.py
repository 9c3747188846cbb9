"""Agreement: after every step all active honest peers hold the same roster, bans, randomness and parameters."""

from __future__ import annotations

from dataclasses import replace

from node.protocol.events import Banned, Committed, Voided
from node.protocol.state import parameters_digest
from node.simulator import Observed
from tests.simulation.stage import Stage


class Agreement:
    """Whatever one honest peer reports of an attempt, every other one reports in the same bits."""

    def __init__(self, stage: Stage) -> None:
        self._honest = stage.honest
        self._first: dict[tuple[object, ...], object] = {}
        self._counts: dict[tuple[object, ...], int] = {}

    def see(self, seen: Observed) -> None:
        if seen.node not in self._honest:
            return
        match seen.output:
            case Committed() as done:
                # The state digest covers roster, bans, randomness, parameters, optimiser, norms and transcript.
                said = (
                    done.attempt,
                    done.state_digest,
                    parameters_digest(done.parameters_D),
                    done.contributors,
                    done.active,
                    dict(done.validators),
                )
                self._compare(("committed", done.step), said, seen.node)
            case Banned() as ban:
                # Which majority of OUTCOMEs an evidence file holds may differ; each is checked by itself.
                self._compare(("banned", ban.step, ban.attempt, ban.peer), replace(ban, evidence=b""), seen.node)
            case Voided() as void:
                self._compare(("voided", void.step, void.attempt), void.removals, seen.node)

    def end(self) -> None:
        for what, count in self._counts.items():
            assert count == len(self._honest), f"{what} was seen by {count} of {len(self._honest)} honest peers"

    def _compare(self, what: tuple[object, ...], said: object, node: int) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1
        first = self._first.setdefault(what, said)
        assert said == first, f"peer {node} disagrees on {what}: {said} instead of {first}"
