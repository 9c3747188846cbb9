"""Agreement: after every step all active honest peers hold the same roster, bans, randomness and parameters."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Banned, Committed, Expelled, Undone, Voided
from tests.simulation.stage import Stage


class Agreement:
    """Whatever one honest peer reports of an attempt, every other one reports in the same bits."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._states: dict[int, object] = {}
        self._kept = set(stage.honest)
        self._honest = stage.honest
        self._first: dict[tuple[object, ...], object] = {}
        self._by: dict[tuple[object, ...], set[int]] = {}

    def see(self, seen: Observed) -> None:
        if seen.node not in self._honest:
            return
        match seen.output:
            case Committed() as done:
                said = (
                    done.attempt,
                    done.state_digest,
                    done.parameter_digest,
                    hashlib.sha256(done.parameters_D.numpy().tobytes()).digest(),
                    done.contributors,
                    done.active,
                    dict(done.validators),
                )
                self._compare(("committed", done.step), said, seen.node)
                self._compare_state(done.step, seen.node)
            case Banned() as ban:
                # Which majority of OUTCOMEs an evidence file holds may differ; each is checked by itself.
                self._compare(("banned", ban.step, ban.attempt, ban.peer), replace(ban, evidence=b""), seen.node)
            case Undone() as undone:
                self._compare(("undone", undone.step), undone, seen.node)
            case Voided() as void:
                self._compare(("voided", void.step, void.attempt), void.removals, seen.node)
            case Expelled():
                # One side of a mutual elimination: what it saw until then was the same, and it sees no more.
                self._kept.discard(seen.node)

    def end(self) -> None:
        for what, by in self._by.items():
            assert by >= self._kept, f"{what} was not seen by honest peers {sorted(self._kept - by)}"

    def _compare_state(self, step: int, node: int) -> None:
        """What the state digest is to cover, value by value: it could leave something out."""
        state = self._stage.simulation.nodes[node].peer.state
        if state.step != step + 1 or any(ban.step > step for ban in state.bans):  # it has gone on within one input
            return
        optimiser = hashlib.sha256(state.optimiser_D.numpy().tobytes()).digest()
        # A liar's norm may be NaN, which is not equal to itself.
        norms = tuple(struct.pack(f"<{len(claimed)}d", *claimed) for claimed in state.norms.steps)
        values = state.summary, state.roster.active, state.bans, optimiser, norms
        first = self._states.setdefault(step, values)
        assert values == first, f"peer {node} goes on from another state after step {step}: {values} instead of {first}"

    def _compare(self, what: tuple[object, ...], said: object, node: int) -> None:
        by = self._by.setdefault(what, set())
        assert node not in by, f"peer {node} reports {what} twice"
        by.add(node)
        first = self._first.setdefault(what, said)
        assert said == first, f"peer {node} disagrees on {what}: {said} instead of {first}"
